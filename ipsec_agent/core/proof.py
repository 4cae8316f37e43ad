"""What is seen of a peer to which packets were sent, to say whether they are ESP."""

import enum

from msgspec import Struct, field

from ipsec_agent.core.model import Address
from ipsec_agent.core.path_mtu import PathMtu


class Verdict(enum.StrEnum):
    """What became of it."""

    PROVEN = "proven"
    BLACK_HOLE = "black-hole"
    CLEAR_BY_CONFIG = "clear-by-config"
    NO_POLICY = "no-policy"
    NO_ROUTE = "no-route"
    NO_PEER = "no-peer"
    NO_IKE_ANSWER = "no-ike-answer"
    NO_ESP = "no-esp"
    SENDS_CLEAR = "sends-clear"
    CERTIFICATE_REFUSED = "certificate-refused"
    PROPOSALS_DIFFER = "proposals-differ"
    SELECTORS_DIFFER = "selectors-differ"
    PEER_WITHOUT_IPSEC = "peer-without-ipsec"
    THIS_VM = "this-vm"
    TIMED_OUT = "timed-out"


class Window(Struct, frozen=True):
    """What was captured between the two addresses, in packets.

    Attributes:
        closed: ICMP errors of the peer's that refuse IKE.
        protocols: what travelled in clear, such as TCP.
        links: those on which ESP was seen.
        lost: that nobody looked at, since there was no room for them.
    """

    esp_out: int = 0
    esp_in: int = 0
    ike_out: int = 0
    ike_in: int = 0
    clear_out: int = 0
    clear_in: int = 0
    closed: int = 0
    protocols: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    lost: int = 0


class Echoes(Struct, frozen=True):
    """What was sent to be answered; times in seconds.

    Attributes:
        refused: names of the errors with which this VM did not send some, such as EPERM.
        times: from each echo to its answer.
    """

    sent: int = 0
    refused: tuple[str, ...] = ()
    times: tuple[float, ...] = ()


class Told(Struct, frozen=True):
    """What the agent's status says."""

    code: str
    message: str
    hint: str


class Pair(Struct, frozen=True):
    """What the status says of a peer before anything is sent.

    Attributes:
        own: this VM's address that is used for it, None where no route leads there.
        encrypted: the config encrypts between the two; `because` says why or why not.
        enforced: the policies of the connection are in the kernel.
        optional: packets pass in clear where there is no SA.
    """

    peer: Address
    own: Address | None
    encrypted: bool
    because: str
    enforced: bool = True
    optional: bool = False


class Observation(Struct, frozen=True):
    """All that was seen of a peer.

    Attributes:
        before: the window in which an SA was waited for; `waited` is its seconds.
        proof: the window after it.
        sas: there was an SA each way.
        counted_out, counted_in: packets by the kernel's SAs, within the window of the proof.
        knocked: no echo was answered, but a datagram or a connection was.
        absent: the peer's address is on a link of this VM, and no machine answers there.
        decrypted: this kernel may show what arrived as ESP in clear (esp4_offload).
        path: None where no echo was answered.
        dropped: the guard has dropped what this VM sent to the peer meanwhile.
        fault: what the status says of the peer, and `own_fault` what keeps this VM from it.
    """

    pair: Pair
    before: Window = Window()
    proof: Window = Window()
    sas: bool = False
    counted_out: int = 0
    counted_in: int = 0
    echoes: Echoes = Echoes()
    waited: float = 0.0
    knocked: bool = False
    absent: bool = False
    decrypted: bool = False
    path: PathMtu | None = None
    dropped: bool = False
    fault: Told | None = None
    own_fault: Told | None = None

    @property
    def clear_out(self) -> int:
        """Packets that left in clear, and should not have."""
        return sum(window.clear_out for window in self._judged)

    @property
    def clear_in(self) -> int:
        """Packets that came in clear, and should not have."""
        seen = sum(window.clear_in for window in self._judged)
        # The SAs count each of them where the kernel has decrypted it.
        may = self.decrypted and (self.sas or self.counted_in)
        return 0 if may and self.counted_in >= self.proof.clear_in else seen

    @property
    def _judged(self) -> tuple[Window, ...]:
        """While IPsec is optional, packets may pass in clear until there is an SA."""
        if self.pair.optional:
            return (self.proof,) if self.sas else ()
        return (self.before, self.proof)

    @property
    def esp_both_ways(self) -> bool:
        """By the counters, by the capture, and by an answer.

        Without one, what came may be a job's, and tells nothing of what went.
        """
        wire = self.proof.esp_in or (self.decrypted and self.proof.clear_in)
        counted = self.counted_out and self.counted_in
        return bool(counted and self.proof.esp_out and wire and self.answered)

    @property
    def answered(self) -> bool:
        """Whether the peer answered anything that was sent to prove it."""
        return bool(self.echoes.times or self.knocked)


class Finding(Struct, frozen=True):
    """A verdict in words."""

    verdict: Verdict
    message: str
    hint: str = ""
    notes: tuple[str, ...] = field(default=())
