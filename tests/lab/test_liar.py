"""A VM that lies: it has the deployment's certificate, and negotiates what no honest VM would.

Three VMs: the victim, its peer, and the liar, whose charon is told by the test what to negotiate.
Its agent and its guard are gone. It reads what its SAs bring to it, and sends through them with an
address of another.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from vici.exception import CommandException

from ipsec_agent.config_file import load_config
from ipsec_agent.core.desired import desired
from ipsec_agent.core.orphans import renewal
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.swanctl import renewal_message
from tests.charon.nodes import SCALE, Node, ip, ips, network, until
from tests.kernel.guard_lab import Capture, arrived, receiver, run, send_udp, silent
from tests.lab.deployment import A, B, C, configure, start
from tests.lab.traffic import ping
from tests.lab.truth import charon_of

pytestmark = [pytest.mark.esp, pytest.mark.timeout(400)]

SUBNET, OTHER = "10.9.0.0/24", "10.9.0.99"
"""What is encrypted, and an address in it that is not the liar's: what is sent there is meant for
somebody else, and what comes from there is forged."""

SUBNET6, A6, C6 = "fd09::/64", "fd09::1", "fd09::3"
PORT = 9
SECRET, FORGED = b"meant for others", b"made by the liar"
SETTLED = 6 * SCALE


@dataclass
class Bed:
    """The VMs. `settings` are those of the liar's connection that an honest one has, too."""

    victim: Node
    peer: Node
    liar: Node
    settings: dict[str, Any]

    def told(self) -> str:
        """What the victim's status says of the liar; "" where it says nothing."""
        found = [
            f"{problem['severity']}: {problem['message']}"
            for problem in self.victim.status()["problems"]
            if problem["code"] == "peer-lies"
        ]
        return "; ".join(text for text in found if C in text or C6 in text)

    def sas(self) -> int:
        """How many CHILD_SAs the victim has with the liar."""
        return sum(len(sa["child-sas"]) for sa in self._sas(self.victim, (C, C6)))

    def read(self) -> int:
        """Packets that came to the liar by its SAs."""
        return sum(
            int(child.get("packets-in", b"0"))
            for sa in self._sas(self.liar, (A, A6))
            for child in sa["child-sas"].values()
        )

    def _sas(self, node: Node, peers: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        with charon_of(node) as session:
            for found in list(session.list_sas()):
                for sa in found.values():
                    if sa["remote-host"].decode() in peers:
                        yield sa

    def load(
        self,
        *,
        version: int = 4,
        encap: str = "no",
        unique: str = "never",
        **children: dict[str, Any],
    ) -> None:
        """Give the liar's charon a connection with the victim, called `lie`."""
        own, to = (C, A) if version == 4 else (C6, A6)
        body = self.settings | {
            "local_addrs": [own], "remote_addrs": [to], "encap": encap, "unique": unique,
        }  # fmt: skip
        with charon_of(self.liar) as session:
            session.load_conn({"lie": body | {"children": children}})

    def initiate(self, child: str = "lie") -> None:
        """Have the liar begin."""
        with charon_of(self.liar) as session:
            list(session.initiate({"child": child, "ike": "lie", "timeout": str(20000 * SCALE)}))

    def reaches(self, peer: str) -> None:
        """The victim and a peer speak, once they have an SA."""
        victim = self.victim.name
        until(lambda: ping(victim, peer, 1).arrived, f"{peer} answers", SETTLED)

    def tells(self, *words: str) -> None:
        """The victim's status says so of the liar, after the pass that found it."""
        until(
            lambda: all(one in self.told() for one in words),
            lambda: f"{words}: {self.told()}\n{self.victim.log[-3000:]}",
            SETTLED,
        )

    def forget(self) -> None:
        """End what the liar still has, without a word to the victim."""
        with charon_of(self.liar) as session, contextlib.suppress(Exception):
            list(session.terminate({"ike": "lie", "force": "yes", "timeout": "-1"}))


def lie(mode: str, local: str = SUBNET, remote: str = f"{A}/32", **more: str) -> dict[str, Any]:
    """A child of the liar's."""
    return {"mode": mode, "local_ts": [local], "remote_ts": [remote], **more}


@contextlib.contextmanager
def bed(directory: Path) -> Iterator[Bed]:
    """The VMs; two of them are as they should be."""
    with network(directory, 3, "ly") as nodes:
        for number, node in enumerate(nodes, 1):
            ip("addr", "add", f"fd09::{number}/64", "dev", "eth0", "nodad", netns=node.name)
        configure(nodes, [], [SUBNET, SUBNET6])
        start(nodes)
        victim, peer, liar = nodes
        config = load_config(liar.config)
        own = ip_address(C)
        honest = renewal(desired(config, Placement(own, (own,))), (own, ip_address(A)))
        assert honest is not None
        (settings,) = renewal_message(honest).values()
        corrupt(liar)
        yield Bed(victim, peer, liar, {key: settings[key] for key in settings if key != "children"})


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """The VMs that all tests here share."""
    with bed(tmp_path_factory.mktemp("liar")) as found:
        yield found


@pytest.fixture(autouse=True)
def _apart(laid: Bed) -> Iterator[None]:
    """Whatever a test leaves, the next one begins without an SA between victim and liar."""
    yield
    laid.forget()
    with charon_of(laid.victim) as session:
        for sa in list(laid._sas(laid.victim, (C, C6))):
            number = sa["uniqueid"]
            with contextlib.suppress(Exception):
                list(session.terminate({"ike-id": number, "force": "yes", "timeout": "-1"}))
    until(lambda: not laid.sas(), "victim and liar have no SA", SETTLED)


def corrupt(liar: Node) -> None:
    """Its charon goes on without agent, guard and traps, and another's address is its own."""
    assert liar.agent is not None
    liar.agent.kill()
    liar.agent.wait(20)
    run("nft", "delete", "table", "inet", "ipsec_agent", ns=liar.name)
    with charon_of(liar) as session:
        for name in [name for found in session.list_conns() for name in found]:
            session.unload_conn({"name": name})
    ips(f"addr add {OTHER}/32 dev lo", netns=liar.name)


@contextlib.contextmanager
def deceived(laid: Bed) -> Iterator[Bed]:
    """The victim's agent does nothing meanwhile, and has ended everything a while after.

    At the end all SAs are gone, the status has told who lied, and the peers still reach each other.
    """
    # Held in the middle of a pass, it would have asked charon before the lie and the kernel after.
    until(lambda: laid.victim.status()["age"] == 0, "a pass has ended", SETTLED)
    with laid.victim.held():
        yield laid
        assert laid.sas()
    until(lambda: not laid.sas(), f"the SA is ended: {laid.victim.log[-2000:]}", SETTLED)
    laid.forget()
    laid.reaches(B)


def refused(laid: Bed) -> None:
    """Nothing meant for others goes to the liar, and nothing that it forges is heard."""
    before = laid.read()
    with receiver(laid.victim.name, A, PORT) as heard, receiver(laid.liar.name, OTHER, PORT) as got:
        send_udp(laid.victim.name, A, OTHER, SECRET, ports=(0, PORT))
        send_udp(laid.liar.name, OTHER, A, FORGED, ports=(0, PORT))
        assert silent(heard)
        assert arrived(got, 0) is None
    assert laid.read() == before


def passes(laid: Bed) -> None:
    """Without the guard's rules the liar reads, and is heard: it could be convicted."""
    for chain in ("ipsec_out", "ipsec_in"):
        text = f"flush chain inet ipsec_agent {chain}\nadd rule inet ipsec_agent {chain} accept\n"
        run("nft", "-f", "-", ns=laid.victim.name, text=text)
    with receiver(laid.victim.name, A, PORT) as heard, receiver(laid.liar.name, OTHER, PORT) as got:
        assert send_udp(laid.victim.name, A, OTHER, SECRET, ports=(0, PORT))
        assert arrived(got) == SECRET
        send_udp(laid.liar.name, OTHER, A, FORGED, ports=(0, PORT))
        assert arrived(heard) == FORGED


def test_it_initiates_for_the_whole_subnet(laid: Bed) -> None:
    """In tunnel mode, whereupon all that has no SA yet would go to the liar."""
    with deceived(laid):
        laid.load(lie=lie("tunnel"))
        laid.initiate()
        refused(laid)
        passes(laid)
    laid.tells("critical", "not in transport mode")


def test_it_initiates_in_udp(laid: Bed) -> None:
    """With forced encapsulation, which its victim does not know."""
    with deceived(laid):
        laid.load(encap="yes", lie=lie("tunnel"))
        laid.initiate()
        refused(laid)
    laid.tells("not in transport mode")


def test_it_answers(laid: Bed) -> None:
    """The victim begins; the liar then asks for a tunnel within the same IKE_SA."""
    with deceived(laid):
        laid.load(answer=lie("transport", "dynamic"), lie=lie("tunnel"))
        laid.reaches(C)
        laid.initiate()
        refused(laid)
        passes(laid)
    laid.tells("not in transport mode")


def test_it_claims_anothers_address(laid: Bed) -> None:
    """In transport mode for it: charon makes that a tunnel, or nothing at all."""
    with laid.victim.held():
        laid.load(lie=lie("transport", f"{OTHER}/32"))
        with contextlib.suppress(Exception):
            laid.initiate()
        refused(laid)
    until(lambda: not laid.sas(), "the SA is ended", SETTLED)
    laid.forget()


@pytest.mark.long
def test_it_sends_anothers_address_through_its_own_sa(laid: Bed) -> None:
    """The SA is an honest one; what it brings from another address is dropped by its selector."""
    laid.load(lie=lie("transport", "dynamic"))
    laid.initiate()
    before = mismatches(laid.victim)
    with receiver(laid.victim.name, A, PORT) as heard:
        send_udp(laid.liar.name, C, A, b"its own", ports=(0, PORT))
        assert arrived(heard) == b"its own"
        impersonate(laid.liar)
        assert send_udp(laid.liar.name, OTHER, A, FORGED, ports=(0, PORT))
        assert silent(heard)
    assert mismatches(laid.victim) == before + 1
    laid.forget()
    ip("xfrm", "policy", "delete", "src", OTHER, "dst", A, "dir", "out", netns=laid.liar.name)


def impersonate(liar: Node) -> None:
    """Have the SA that leads to the victim send from another's address."""
    lines = ip("xfrm", "state", netns=liar.name).splitlines()
    place = next(at for at, line in enumerate(lines) if line.endswith(f"dst {A}"))
    spi = lines[place + 1].split()[3]
    key = " ".join(next(line for line in lines[place:] if "aead" in line).split())
    ends, mode = f"src {OTHER} dst {A}", "reqid 77 mode transport"
    ips(
        f"xfrm state delete src {C} dst {A} proto esp spi {spi}",
        # Behind all that the victim has seen, or it would be dropped as a replay.
        f"xfrm state add {ends} proto esp spi {spi} {mode} replay-oseq 0x1000 {key}",
        f"xfrm policy add {ends} dir out priority 1 tmpl {ends} proto esp {mode}",
        netns=liar.name,
    )


def mismatches(node: Node) -> int:
    """Packets that came by an SA whose selector does not take them."""
    text = run("cat", "/proc/net/xfrm_stat", ns=node.name)
    return int(text.split("XfrmInStateMismatch")[1].split()[0])


def test_it_narrows_to_a_port(laid: Bed) -> None:
    """Between the two hosts, for a port only: it is ended, and other traffic never fails."""
    with deceived(laid):
        laid.load(lie=lie("transport", f"{C}/32[udp/{PORT}]", f"{A}/32[udp]"))
        laid.initiate()
        laid.reaches(B)
    laid.tells("one protocol or port")


def test_ipv4_in_ipv6(laid: Bed) -> None:
    """charon knows no such selectors within a connection of IPv6."""
    laid.load(version=6, lie=lie("tunnel"))
    with contextlib.suppress(Exception):
        laid.initiate()
    refused(laid)
    assert not laid.sas()
    laid.forget()


@pytest.mark.long
def test_it_sends_its_victim_elsewhere(laid: Bed) -> None:
    """By a redirection of IKE (RFC 5685); the victim goes nowhere."""
    laid.load(answer=lie("transport", "dynamic"))
    laid.reaches(C)
    with Capture(laid.liar.name, "eth0") as wire, charon_of(laid.liar) as session:
        (own,) = laid._sas(laid.liar, (A,))
        number = own["uniqueid"].decode()
        session.redirect({"ike-id": number, "peer-ip": A, "gateway": OTHER})
        assert (A, OTHER) not in {(seen.source, seen.target) for seen in wire.packets(1)}
        assert wire.lost() == 0
    laid.reaches(C)


ATTEMPTS: dict[str, dict[str, Any]] = {
    "in BEET mode": lie("beet"),
    "for everything": lie("tunnel", "0.0.0.0/0", "0.0.0.0/0"),
    "for both IP versions": {
        **lie("tunnel"),
        "local_ts": [SUBNET, SUBNET6],
        "remote_ts": [f"{A}/32", f"{A6}/128"],
    },
    "for one protocol, in a tunnel": lie("tunnel", f"{SUBNET}[udp]", f"{A}/32[udp]"),
    "by the label of a handover": lie("tunnel", label="ipsec-agent-later-1", label_mode="simple"),
    "compressed": lie("tunnel", ipcomp="yes"),
    "of two hosts in a tunnel": lie("tunnel", f"{C}/32"),
}


@pytest.mark.long
@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_it_tries_otherwise(laid: Bed, attempt: dict[str, Any]) -> None:
    """Whatever else it asks for that is not in transport mode is refused and ended, too."""
    with deceived(laid):
        laid.load(lie=attempt)
        laid.initiate()
        refused(laid)
    laid.tells("not in transport mode")


REFUSALS: dict[str, dict[str, Any]] = {
    "of a gateway": lie("tunnel", "10.9.0.254/32"),
    "of IPv6 in IPv4": lie("tunnel", SUBNET6, f"{A6}/128"),
    "without encryption": {**lie("transport", "dynamic"), "esp_proposals": ["null-sha256"]},
    "of AH": {**lie("transport", "dynamic"), "ah_proposals": ["sha256"]},
}


@pytest.mark.long
@pytest.mark.parametrize("attempt", REFUSALS.values(), ids=REFUSALS)
def test_its_victim_makes_no_such_sa(laid: Bed, attempt: dict[str, Any]) -> None:
    """charon refuses."""
    laid.load(lie=attempt)
    with pytest.raises(CommandException):
        laid.initiate()
    refused(laid)
    assert not laid.sas()


@pytest.mark.long
def test_it_says_that_it_is_the_first(laid: Bed) -> None:
    """INITIAL_CONTACT with the identity of all VMs ends nobody else's SA."""
    laid.reaches(B)
    before = [sa["initiator-spi"] for sa in laid._sas(laid.victim, (B,))]
    laid.load(unique="replace", lie=lie("transport", "dynamic"))
    laid.initiate()
    assert laid.sas()
    assert [sa["initiator-spi"] for sa in laid._sas(laid.victim, (B,))] == before


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.long)])
def test_many_children(laid: Bed, count: int) -> None:
    """However many SAs it makes, one step ends them."""
    with deceived(laid):
        children = {
            f"lie{number}": lie("transport", f"{C}/32[udp/{number + 1000}]", f"{A}/32[udp]")
            for number in range(count)
        }
        laid.load(version=4, encap="no", unique="never", **children)
        for name in children:
            laid.initiate(name)
        assert laid.sas() == count
    laid.tells(f"and {count - 1} more")
