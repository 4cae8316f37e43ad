"""Certificates and chains of every kind, each with charon's verdict, openssl's and ours."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography import x509

from tests.certificates import ec_key, rsa_key
from tests.forge import (
    INTEGER,
    NULL,
    SEQUENCE,
    Extension,
    Forged,
    dn,
    extension,
    issue,
    tlv,
)

TRUE = tlv(1, b"\xff")
CA, CA_0, CA_1, NO_CA = (
    tlv(SEQUENCE, TRUE),
    tlv(SEQUENCE, TRUE, tlv(INTEGER, b"\0")),
    tlv(SEQUENCE, TRUE, tlv(INTEGER, b"\1")),
    tlv(SEQUENCE),
)
"""Basic constraints: a CA, one with a path length, none."""

OLD, NEW = {"days": 0.5}, {"start": timedelta(days=1)}
"""Expired, and not valid yet."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What an operator pastes.

    Attributes:
        behind: the certificates after the leaf in instance_certificate.
    """

    leaf: Forged
    cas: tuple[Forged, ...]
    behind: tuple[Forged, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table.

    Attributes:
        says: what `check` says where it refuses; empty where it accepts.
        charon: whether 5.9.8 trusts a peer with it, where that is not what `check` says.
        since: the same of 5.9.14 and newer, where that is not what 5.9.8 says.
        pki: whether `pki --verify` can tell: it does not judge the use of a key, nor what CAs
            charon is told to trust.
        openssl: whether `openssl verify` (3.0) accepts it, where it differs from charon.
    """

    name: str
    make: Callable[[], Chain]
    says: str = ""
    charon: bool | None = None
    since: bool | None = None
    pki: bool = True
    openssl: bool | None = None

    @property
    def trusted(self) -> bool:
        """Whether charon 5.9.8 trusts it."""
        return not self.says if self.charon is None else self.charon

    def trusted_by(self, version: str) -> bool:
        """Whether a version of charon trusts it."""
        parts = tuple(int(part) for part in version.split("."))
        return self.since if self.since is not None and parts >= (5, 9, 14) else self.trusted

    @property
    def trusted_by_openssl(self) -> bool:
        """Whether openssl trusts it."""
        return self.trusted if self.openssl is None else self.openssl


def root(name: str | bytes = "Root", **more: Any) -> Forged:
    """A self-signed CA."""
    return _issued(name, 1, None, {"basic": CA, **more})


def middle(above: Forged, name: str | bytes = "Middle", **more: Any) -> Forged:
    """A CA below another."""
    return _issued(name, 2, above, {"basic": CA, **more})


def leaf(above: Forged | None, name: str | bytes = "VM", **more: Any) -> Forged:
    """An instance certificate."""
    return _issued(name, 9, above, {"basic": NO_CA, **more})


def _issued(name: str | bytes, number: int, above: Forged | None, more: dict[str, Any]) -> Forged:
    subject = name if isinstance(name, bytes) else dn(name)
    key = more.pop("key", ec_key(number))
    return issue(subject, key() if callable(key) else key, above, **more)


Parts = dict[str, Any]
"""What is special about one certificate of a chain."""


def two(ca: Parts | None = None, vm: Parts | None = None) -> Callable[[], Chain]:
    """A root and a leaf."""

    def make() -> Chain:
        above = root(**(ca or {}))
        return Chain(leaf(above, **(vm or {})), (above,))

    return make


def three(
    ca: Parts | None = None,
    mid: Parts | None = None,
    vm: Parts | None = None,
    *,
    listed: str = "root",
) -> Callable[[], Chain]:
    """A root, an intermediate behind the leaf, and the leaf; listed says which are the CAs."""

    def make() -> Chain:
        above = root(**(ca or {}))
        between = middle(above, **(mid or {}))
        below = leaf(between, **(vm or {}))
        return {
            "root": Chain(below, (above,), (between,)),
            "both": Chain(below, (between, above)),
            "middle": Chain(below, (between,)),
            "only root": Chain(below, (above,)),
            "root behind": Chain(below, (between,), (above,)),
        }[listed]

    return make


def exts(*values: x509.ExtensionType, critical: bool = False) -> Parts:
    """The extensions of a certificate."""
    return {"extensions": [extension(value, critical=critical) for value in values]}


def both(one: Parts, other: Parts) -> Parts:
    """The extensions of two."""
    return {"extensions": [*one["extensions"], *other["extensions"]]}


def raw(oid: str, value: bytes = tlv(NULL), *, critical: bool = True) -> Parts:
    """One extension, given as DER."""
    only: Sequence[Extension] = [(oid, critical, value)]
    return {"extensions": only}


def keyed(make: Callable[[], Any]) -> Parts:
    """A key of its own, made once."""
    return {"key": functools.cache(make)}


def san(*names: x509.GeneralName) -> Parts:
    """Subject alternative names."""
    return exts(x509.SubjectAlternativeName(names))


def domain(text: str) -> x509.DNSName:
    """A DNS name."""
    return x509.DNSName(text)


def named(text: str) -> x509.DirectoryName:
    """A directory name with only a common name."""
    return x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]))


def permit(*names: x509.GeneralName, critical: bool = True) -> Parts:
    """Name constraints that permit names."""
    return exts(x509.NameConstraints(names, None), critical=critical)


def exclude(*names: x509.GeneralName, critical: bool = True) -> Parts:
    """Name constraints that exclude names."""
    return exts(x509.NameConstraints(None, names), critical=critical)


def may(**allowed: bool) -> Parts:
    """A key usage that allows only these."""
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    usage = x509.KeyUsage(**{name: allowed.get(name, False) for name in names})
    return exts(usage, critical=True)


def issuer_id(key: bytes | None, serial: int | None = None) -> x509.AuthorityKeyIdentifier:
    """The id of an issuer's key, or its name and the serial of its certificate."""
    return x509.AuthorityKeyIdentifier(key, [named("Root")] if serial else None, serial)


def many(count: int) -> Callable[[], Chain]:
    """A chain with so many intermediates."""

    def make() -> Chain:
        chain = [root()]
        for number in range(count):
            chain.append(middle(chain[-1], f"Middle {number}", key=ec_key(20 + number)))
        return Chain(leaf(chain[-1]), (chain[0],), tuple(chain[1:]))

    return make


def astray() -> Chain:
    """Two intermediates of one key, of which one leads to a CA that is not listed."""
    other = root("Other", key=ec_key(3))
    good, bad = middle(root()), middle(other)
    return Chain(leaf(good), (root(),), (good, bad))


def alone() -> Chain:
    """A self-signed leaf that is listed as its own CA."""
    only = leaf(None)
    return Chain(only, (only,))


def renewed(**old: Any) -> Callable[[], Chain]:
    """Two certificates of one CA and key."""
    return lambda: Chain(leaf(root()), (root(serial=b"\x52"), root(**old)))


def shortened() -> Chain:
    """An intermediate below two certificates of one root, of which one allows none."""
    between = middle(root())
    return Chain(leaf(between), (root(), root(basic=CA_0)), (between,))


def rsa_signed(
    ca: str = "sha256", vm: str = "sha256", *, pss: bool = False, algorithm: bytes | None = None
) -> Callable[[], Chain]:
    """A CA with an RSA key, and what the two signatures are made with; algorithm: of the leaf's."""

    def make() -> Chain:
        above = root(key=rsa_key(2048, 1), hashed=ca, pss=pss)
        return Chain(leaf(above, hashed=vm, pss=pss, algorithm=algorithm), (above,))

    return make
