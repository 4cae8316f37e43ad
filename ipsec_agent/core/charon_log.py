"""Which lines of charon's log explain a problem, and what to do about each."""

import enum
import re
from ipaddress import ip_address

from msgspec import Struct


class Said(Struct, frozen=True):
    """A line of charon's log.

    Attributes:
        group: such as IKE or KNL.
        level: lines above 1 are for developers.
        ike_sa: the number of the IKE_SA that it is about, 0 for none.
    """

    group: str
    level: int
    text: str
    ike_sa: int = 0


class Explanation(Struct, frozen=True):
    """A line that explains something.

    Attributes:
        code: stable name of the problem.
        message: the line as charon wrote it.
        peer: the peer's address where the line names it, else "".
        hint: what to do.
    """

    code: str
    message: str
    peer: str
    hint: str


CERTIFICATES = (
    "compare issuers and fingerprints of ca_certificates and instance_certificate:"
    " `ipsec-agent certs show /etc/ipsec-agent/ipsec.yml` on both VMs"
)
CERTIFICATE_DATES = (
    "compare the clocks of both VMs (`date -u`), and on that VM the dates of instance_certificate:"
    " `ipsec-agent certs show /etc/ipsec-agent/ipsec.yml`; renew it if it has expired"
)
PROPOSALS = (
    "compare esp_proposals and ike_proposals of both VMs; a peer whose kernel lacks ESP"
    " says the same: see `ipsec-agent status` there"
)
KEY = (
    "the agent loads it again; where that does not last, find the program that unloads it over"
    " charon's VICI socket"
)
IDENTITY = (
    "find out what runs IPsec on that peer: it asks for another identity than that of this VM's"
    " certificate, or proves its own by another way than a certificate"
)
SUBNETS = "compare ipsec_subnets and no_ipsec_subnets of both VMs"

REFUSED = (
    f"{CERTIFICATES}; compare the clocks, too (`date -u`): a peer whose clock is wrong refuses a"
    " certificate that holds"
)

SILENT = (
    "check that the peer is up, and that UDP 500, UDP 4500 and protocol 50 reach it; `ipsec-agent"
    " doctor` names rules of this VM's own firewall that drop them"
)

PATTERNS = (
    (r"received AUTHENTICATION_FAILED notify", "peer-refuses-us", REFUSED),
    (r"no trusted .*public key found", "peer-not-trusted", CERTIFICATES),
    (r"no issuer certificate found for", "peer-not-trusted", CERTIFICATES),
    (r"subject certificate invalid", "peer-certificate-invalid", CERTIFICATE_DATES),
    (r"constraint check failed", "peer-not-trusted", CERTIFICATES),
    (r"signature validation failed", "peer-not-trusted", CERTIFICATES),
    (r"no private key found for", "own-key-missing", KEY),
    (r"received NO_PROPOSAL_CHOSEN", "proposals-differ", PROPOSALS),
    (r"no acceptable proposal found", "proposals-differ", PROPOSALS),
    (r"received proposals (inacceptable|unacceptable)", "proposals-differ", PROPOSALS),
    (r"received TS_UNACCEPTABLE", "selectors-differ", SUBNETS),
    (r"traffic selectors .* unacceptable", "selectors-differ", SUBNETS),
    (r"no matching peer config found", "peer-not-configured", IDENTITY),
    (
        r"giving up after \d+ retransmits",
        "peer-silent",
        SILENT,
    ),
    (
        r"unable to (install|add) .*(policy|SA|SAD|SPD)",
        "kernel-refuses",
        "`ipsec-agent check --machine` says what the kernel lacks",
    ),
    (
        r"installing trap failed",
        "trap-not-installed",
        "see charon's log; the agent tries again",
    ),
)

EXPLAINS = re.compile("|".join(pattern for pattern, _, _ in PATTERNS))
"""Any of them, at the beginning only: behind it are names that a peer chose, and may say so.

Hundreds of lines come at once when charon loads its connections, and few explain anything.
"""

HINTS = {code: hint for _, code, hint in PATTERNS}
"""What to do, by the code."""

BEGINNINGS = re.compile(
    r"^initiating IKE_SA .* to (\S+)$"
    r"|^(\S+) is initiating (?:an IKE_SA|IKE_SA .*\[\d+\])$"
    r"|^IKE_SA .* (?:established|rekeyed) between .*?\.\.\.([0-9A-Fa-f:.]+)\["
)
"""What charon says when an IKE_SA gets its number (ike_init.c, ike_establish.c, ike_rekey.c).

From 6.0.6 the responder's line names the connection, as the initiator's does.
"""

ADDRESS = re.compile(r"[0-9A-Fa-f:.]{3,}")
"""What may be an address; a time of day or a hex number may look like one."""

NAME = re.compile(r"['\"].*")
"""What a peer says that it is called: it may bear the address of another one."""

SIDES = re.compile(r"===|\.\.\.")
"""Stands between charon's own side and the peer's."""


def explain(said: Said) -> Explanation | None:
    """What a line explains, None for the others."""
    if said.level > 1 or said.group in {"ENC", "NET"} or not EXPLAINS.match(said.text):
        return None
    for pattern, code, hint in PATTERNS:
        if re.match(pattern, said.text):
            return Explanation(code, said.text, _peer(said.group, said.text), hint)
    return None


class Sign(enum.StrEnum):
    """What a line tells of a peer, without a complaint."""

    ANSWERED = "answered"
    FAREWELL = "farewell"
    PROVED = "proved"
    SUCCEEDED = "succeeded"
    TRIED = "tried"


RECEIVED = re.compile(r"^received packet: from (\S+)\[\d+\] to ")
FAREWELL = re.compile(r"^received DELETE for IKE_SA ")
SUCCEEDED = re.compile(r"^(?:inbound |outbound )?CHILD_SA \S+ established with SPIs ")
TRIED = re.compile(r"^establishing CHILD_SA ")
PROVED = re.compile(r"^IKE_SA .* established between ")
"""receiver.c (the group NET), ike_delete.c, child_create.c (both), ike_establish.c."""


def sign(said: Said) -> tuple[Sign, str] | None:
    """What a line tells of a peer, and its address where the line has it, else ""."""
    if said.group == "NET":
        found = RECEIVED.search(said.text)
        return (Sign.ANSWERED, _address(found[1])) if found else None
    if said.group != "IKE":
        return None
    if FAREWELL.search(said.text):
        return Sign.FAREWELL, ""
    if SUCCEEDED.search(said.text):
        return Sign.SUCCEEDED, ""
    peer = counterpart(said)
    if peer and PROVED.search(said.text):
        return Sign.PROVED, peer
    return (Sign.TRIED, peer) if peer or TRIED.search(said.text) else None


def doubts_kernel(said: Said) -> bool:
    """Whether a line may mean that this kernel can no longer do ESP.

    It did not take an SA or a policy; or a peer refuses the proposal, as one does whose kernel has
    lost ESP: so may have this one, which as the initiator is not asked then.
    """
    if said.group == "KNL":
        found = explain(said)
        return found is not None and found.code == "kernel-refuses"
    return said.text.startswith("received NO_PROPOSAL_CHOSEN")


def counterpart(said: Said) -> str:
    """The peer of the IKE_SA that a line is about, "" where it does not say."""
    found = BEGINNINGS.search(said.text) if said.ike_sa and said.group == "IKE" else None
    return _address(found[found.lastindex or 0]) if found else ""


def _peer(group: str, message: str) -> str:
    """The first address on the peer's side; the kernel's lines have source and destination."""
    if group == "KNL":
        return ""
    words = ADDRESS.findall(SIDES.split(NAME.sub("", message))[-1])
    return next(filter(None, map(_address, words)), "")


def _address(word: str) -> str:
    try:
        return str(ip_address(word))
    except ValueError:
        return ""
