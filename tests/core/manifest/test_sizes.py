"""Certificates that are larger than what carries them. What a size does was seen with charon 5.9.8:
a value of 65,536 bytes is none of VICI, and of a message of 10,462 bytes no peer answered."""

import pytest
from cryptography import x509

from tests.certificates import Issued, ec_key, make_ca, make_leaf
from tests.core.manifest.test_trust import judged, said

ROOT = make_ca("Root", key=ec_key(1))


def names(number: int) -> list[tuple[x509.ExtensionType, bool]]:
    """So many names, of 30 bytes each."""
    found = [x509.DNSName(f"host-{one:06}.example.internal") for one in range(number)]
    return [(x509.SubjectAlternativeName(found), False)]


def leaf(number: int, ca: Issued = ROOT) -> Issued:
    """An instance certificate with so many names."""
    return make_leaf(ca, key=ec_key(9), extensions=names(number))


@pytest.mark.parametrize(
    ("number", "severity", "says"),
    [
        (250, "", ""),
        (295, "warning", "peers may not be reached"),
        (330, "error", "no peer can be reached"),
        (2500, "error", "charon takes none of more than 65,535"),
    ],
)
def test_an_instance(number: int, severity: str, says: str) -> None:
    """One that no peer can take, or not even charon, is refused."""
    found = judged(leaf(number), [ROOT])

    assert [one.severity for one in found] == [severity][: len(found)] * bool(severity)
    assert bool(found) is bool(severity)
    assert all(says in one for one in said(found))


def test_what_is_sent_beside_it() -> None:
    """The CA between it and the root counts, wherever it is listed; the root does not."""
    middle = make_ca("Middle", key=ec_key(2), issuer=ROOT, extensions=names(200))
    for cas, behind in (([middle, ROOT], []), ([ROOT], [middle])):
        (one,) = judged(leaf(200, middle), cas, behind=behind)
        assert (one.part, one.severity) == ("instance_certificate", "error")
    root = make_ca("Root", key=ec_key(1), extensions=names(400))
    assert judged(leaf(200, root), [root]) == ()


def test_all_that_a_connection_has() -> None:
    """The CAs together."""
    large = [make_ca(f"CA {one}", key=ec_key(20), extensions=names(2000)) for one in range(9)]

    found = [one for one in judged(leaf(1), [ROOT, *large]) if one.severity == "error"]

    assert [one.part for one in found] == ["ca_certificates"]
    assert "and charon takes 500,000 at once" in found[0].message
