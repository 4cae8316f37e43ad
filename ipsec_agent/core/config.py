"""The operator's config as frozen records: what was asked for, read once, never changed.

manifest/parser.py makes it from text; desired.py makes of it what should be.
"""

import enum
from datetime import datetime

from msgspec import Struct, field

from ipsec_agent.core.model import Address, Credentials, Network
from ipsec_agent.core.terse import Terse

DEFAULT_ESP = ("aes128gcm16",)
DEFAULT_IKE = (
    "aes128gcm16-prfsha256-ecp256",
    "aes128-sha256-modp3072",
    "aes128-sha256-modp2048",
)
"""AES-GCM and SHA-256 as in the guide; the last one is what the add-on itself proposes."""


PROOF_SHORTEST, PROOF_LONGEST = 10, 86_400
"""Seconds in which each peer may be proved once."""


class Outside(enum.StrEnum):
    """What to do on a VM whose address is in neither list."""

    ERROR = "error"
    CLEAR = "clear"


class GuardMode(enum.StrEnum):
    """Whether the guard's nftables table backs the traps."""

    ENFORCE = "enforce"
    NONE = "none"


class MtuMode(enum.StrEnum):
    """What to do about a link whose packets do not fit."""

    WARN = "warn"
    FIX = "fix"


class Baseline(enum.StrEnum):
    """Whose rules `check` judges by, beside those that it always has."""

    DEFAULT = "default"
    CNSA2 = "cnsa2"


class Subnet(Struct, frozen=True):
    """A subnet of one of the lists.

    Attributes:
        written: as the operator wrote it, perhaps with host bits.
        network: normalised.
    """

    written: str
    network: Network


class CertificateFacts(Struct, frozen=True):
    """What is checked and shown of a certificate; `role` is instance, intermediate or authority.

    Attributes:
        not_before: start of validity, UTC.
        not_after: end of validity, UTC.
        serial: as lower-case hex.
    """

    subject: str
    issuer: str
    role: str
    serial: str
    not_before: datetime
    not_after: datetime


class ListedCertificate(Struct, frozen=True):
    """A certificate that charon lists: its own, a CA's, or one that a peer has shown.

    Attributes:
        name: the values of its subject, in their order.
    """

    name: tuple[str, ...]
    facts: CertificateFacts


class ExpiryPeriods(Struct, frozen=True):
    """Days before the end of a certificate at which the complaint grows louder."""

    info: int = 30
    warn: int = 14
    error: int = 7
    critical: int = 3


class CharonConfig(Struct, frozen=True):
    """Where charon is and how it is set up.

    Attributes:
        program: path of charon; "" looks for Debian's.
        plugins: the pinned plugin list; empty for the default one.
        library_path: added as LD_LIBRARY_PATH, for BOSH packages; "" for none.
        log: "journal", or the path of a file.
        settings: further strongswan.conf settings below charon's section, (dotted key, value).
    """

    program: str = ""
    plugins: tuple[str, ...] = ()
    library_path: str = ""
    log: str = "journal"
    settings: tuple[tuple[str, str], ...] = ()


class Endpoint(Struct, frozen=True):
    """Where to listen: an address and a TCP port."""

    address: Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)  # noqa: PLR2004
        return f"{host}:{self.port}"


class AgentConfig(Struct, frozen=True):
    """The node section `agent:`.

    Attributes:
        address: this VM's address, None to find it.
        interface: the link whose address it is, "" to find it.
        uplinks: names of links that are guarded whatever they look like.
        inside: names of links that lead to this VM's own containers only, besides those found.
        vici_socket: path of charon's socket, "" for `run_dir`/charon.vici.
        interval: seconds between passes when nothing happens.
        metrics: where they are served over HTTP, None for nowhere.
        proof: seconds in which each peer with an SA is proved once, 0 for never.
    """

    address: Address | None = None
    interface: str = ""
    uplinks: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    outside: Outside = Outside.ERROR
    guard: GuardMode = GuardMode.ENFORCE
    mtu: MtuMode = MtuMode.WARN
    run_dir: str = "/run/ipsec-agent"
    state_dir: str = "/var/lib/ipsec-agent"
    charon: CharonConfig = field(default_factory=CharonConfig)
    vici_socket: str = ""
    interval: float = 10.0
    metrics: Endpoint | None = None
    proof: float = 0.0


class Config(Terse, frozen=True, dict=True):
    """Everything that the operator said.

    Attributes:
        certificate: DER of the instance certificate (the leaf).
        credentials: the key, the authorities and the intermediates.
        certificates: facts of every certificate, the instance certificate first.
        prestart_timeout: seconds within which IPsec must have started.
        stop_timeout: seconds to wait for other jobs at a shutdown.
        optional_warn_interval: hours.
        ike_proposals: without `!`; empty for the default.
        log_level: of charon, -1 to 4 (strongSwan's loglevel).
    """

    unshown = ("certificate",)

    ipsec_subnets: tuple[Subnet, ...]
    no_ipsec_subnets: tuple[Subnet, ...]
    certificate: bytes
    credentials: Credentials
    certificates: tuple[CertificateFacts, ...]
    prestart_timeout: float = 30.0
    stop_timeout: float = 30.0
    optional: bool = False
    optional_warn_interval: float = 1.0
    esp_proposals: tuple[str, ...] = ()
    ike_proposals: tuple[str, ...] = ()
    force_udp_encapsulation: bool = False
    log_level: int = 1
    expiry: ExpiryPeriods = field(default_factory=ExpiryPeriods)
    agent: AgentConfig = field(default_factory=AgentConfig)
