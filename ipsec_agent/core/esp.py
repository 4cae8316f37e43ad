"""What the kernel must be able to do for a config's ESP: dummy SAs to try, and what came of them.

The kernel's names of algorithms, and the bits of their keys, are those that charon asks for
(strongSwan: kernel_netlink_ipsec.c, encryption_algs and integrity_algs; keymat_v2.c for the salts
that count as part of a key).
"""

import enum
import re
from collections.abc import Iterable, Iterator
from itertools import product

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.config import DEFAULT_ESP, Config, Outside
from ipsec_agent.core.model import Address
from ipsec_agent.core.promise import Promise


class Use(enum.Enum):
    """What an algorithm does in an SA."""

    AEAD = enum.auto()
    CIPHER = enum.auto()
    INTEGRITY = enum.auto()


class Algorithm(Struct, frozen=True):
    """An algorithm of an SA.

    Attributes:
        name: in the kernel; "" where charon knows none, so that it cannot install such an SA.
        key: bits of the key, with the salt where there is one.
        icv: bits of the ICV; 0 for a cipher, which has none.
    """

    use: Use
    name: str
    key: int
    icv: int = 0


class DummySa(Struct, frozen=True):
    """An SA to try.

    Attributes:
        version: of IP, 4 or 6.
        words: of the proposal, such as aes128gcm16 or aes128-sha256.
        encapsulated: ESP in UDP.
        extended: with extended sequence numbers.
    """

    version: int
    words: str
    algorithms: tuple[Algorithm, ...]
    encapsulated: bool = False
    extended: bool = False


class Trial(Struct, frozen=True):
    """What the kernel said to a dummy SA.

    Attributes:
        error: its errno, 0 where it added the SA.
        said: the same in words.
    """

    sa: DummySa
    error: int = 0
    said: str = ""


class KernelEvidence(Struct, frozen=True):
    """What tells why a kernel has no ESP, or lacks an algorithm.

    Attributes:
        release: of the running kernel, as `uname -r` says it.
        modprobe: path and text of each file that modprobe reads.
        command_line: of the kernel.
        loaded: names of the modules that are loaded.
        builtin: names of those that the kernel has built in.
        loadable: names of those that it can load; empty where there are no modules for this
            kernel, None where it is not known.
        options: the kernel's configuration, such as CONFIG_INET_ESP and "m"; an option that is
            not set is "n". None where it is not known.
        locked: it loads no modules any more (kernel.modules_disabled).
        loader: the program that loads modules for it, "" for none.
    """

    release: str = ""
    modprobe: tuple[tuple[str, str], ...] = ()
    command_line: str = ""
    loaded: frozenset[str] = frozenset()
    builtin: frozenset[str] = frozenset()
    loadable: frozenset[str] | None = None
    options: tuple[tuple[str, str], ...] | None = None
    locked: bool = False
    loader: str = "/sbin/modprobe"


class EspAbility(Struct, frozen=True):
    """Whether the kernel can do the ESP that is wanted.

    Attributes:
        trials: one for each dummy SA.
        evidence: None where all of them succeeded.
        pending: not known yet, since they take their time.
        no_xfrm: nothing could be tried, since the kernel has no interface for SAs.
    """

    trials: tuple[Trial, ...] = ()
    evidence: KernelEvidence | None = None
    pending: bool = False
    no_xfrm: bool = False

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials that failed."""
        return tuple(trial for trial in self.trials if trial.error or not trial.sa.algorithms)

    @property
    def good(self) -> bool:
        """Whether nothing is known to be amiss."""
        return not (self.failed or self.no_xfrm)


def dummy_sas(config: Config, own: Iterable[Address]) -> tuple[DummySa, ...]:
    """One SA for each family in which this VM encrypts, and each algorithm of its proposals.

    Args:
        own: this VM's addresses.
    """
    proposals = config.esp_proposals or DEFAULT_ESP
    return tuple(
        dict.fromkeys(
            replace(sa, version=version)
            for version in _versions(config, tuple(own))
            for proposal in proposals
            for sa in _combinations(proposal, encapsulated=config.force_udp_encapsulation)
        )
    )


def _versions(config: Config, own: tuple[Address, ...]) -> tuple[int, ...]:
    """The families of the own addresses that encrypt; of all subnets where none is known yet.

    A VM that speaks clear with everyone needs no ESP, which may be disabled for a reason.
    """
    promise = Promise.of(config)
    encrypted = {address.version for address in own if promise.encrypted(address)}
    clear = config.agent.outside is Outside.CLEAR or any(map(promise.no_ipsec_subnet, own))
    if not encrypted and not clear:
        encrypted = {network.version for network in promise.ipsec}
    return tuple(sorted(encrypted))


def _combinations(proposal: str, *, encapsulated: bool) -> Iterator[DummySa]:
    """Each encryption of a proposal, with each of its integrity algorithms where it needs one."""
    words = proposal.split("-")
    known = [(word, found) for word in words if (found := algorithm(word)) is not None]
    integrity = [one for one in known if one[1].use is Use.INTEGRITY]
    for encryption in (one for one in known if one[1].use is not Use.INTEGRITY):
        others = [()] if encryption[1].use is Use.AEAD else [(one,) for one in integrity]
        for first, other in product((encryption,), others):
            parts = (first, *other)
            usable = all(part.name for _, part in parts)
            yield DummySa(
                4,
                "-".join(word for word, _ in parts),
                tuple(part for _, part in parts) if usable else (),
                encapsulated,
                extended="esn" in words,
            )


# --- words ------------------------------------------------------------------------------------

AEAD = re.compile(r"aes(\d+)(gcm|ccm)(\d*)")
CLASSIC = re.compile(r"(aes|camellia)(\d*)(ctr)?")
SALT = {"gcm": 32, "ccm": 24}
NAMES = {"gcm": "rfc4106(gcm(aes))", "ccm": "rfc4309(ccm(aes))"}
CHACHA = Algorithm(Use.AEAD, "rfc7539esp(chacha20,poly1305)", 256 + 32, 128)
TRIPLE_DES = Algorithm(Use.CIPHER, "cbc(des3_ede)", 192)
INTEGRITY = {
    "md5": ("hmac(md5)", 128, 96),
    "md5_128": ("hmac(md5)", 128, 128),
    "sha": ("hmac(sha1)", 160, 96),
    "sha1": ("hmac(sha1)", 160, 96),
    "sha1_160": ("hmac(sha1)", 160, 160),
    "sha256": ("hmac(sha256)", 256, 128),
    "sha256_96": ("hmac(sha256)", 256, 96),
    "sha384": ("hmac(sha384)", 384, 192),
    "sha512": ("hmac(sha512)", 512, 256),
    "aesxcbc": ("xcbc(aes)", 128, 96),
    "aescmac": ("cmac(aes)", 128, 96),
    "camelliaxcbc": ("", 128, 96),
}
"""Name in the kernel, bits of the key and of the ICV, by the word of a proposal."""


def algorithm(word: str) -> Algorithm | None:
    """What a word of a proposal names; None for a key exchange or the sequence numbers."""
    if found := AEAD.fullmatch(word):
        icv = int(found[3] or 16)
        bits = icv * 8 if icv <= 16 else icv  # noqa: PLR2004 - bytes or bits, as strongSwan has it
        return Algorithm(Use.AEAD, NAMES[found[2]], int(found[1]) + SALT[found[2]], bits)
    if word.startswith("chacha20poly1305"):
        return CHACHA
    if word == "3des":
        return TRIPLE_DES
    if re.fullmatch(r"camellia\d+ccm\d+", word):
        return Algorithm(Use.AEAD, "", 0)
    if found := CLASSIC.fullmatch(word):
        return _classic(found[1], int(found[2] or 128), counter=bool(found[3]))
    name, key, icv = INTEGRITY.get(word.replace("sha2_", "sha"), ("", 0, 0))
    return Algorithm(Use.INTEGRITY, name, key, icv) if key else None


def _classic(name: str, key: int, *, counter: bool) -> Algorithm:
    if not counter:
        return Algorithm(Use.CIPHER, f"cbc({name})", key)
    return Algorithm(Use.CIPHER, "rfc3686(ctr(aes))" if name == "aes" else "", key + 32)
