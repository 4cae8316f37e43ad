"""What is told of a certificate without the library is what the library tells."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsec_agent.core.der import certificate_facts
from ipsec_agent.core.manifest.certificates import facts
from tests.certificates import ec_key, make_ca, make_leaf
from tests.examples import examples

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=20)
# 1951 to 2200.
MOMENTS = st.integers(-599_616_000, 7_258_118_400).map(
    lambda when: datetime.fromtimestamp(when, UTC)
)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    NameOID.COMMON_NAME,
                    NameOID.ORGANIZATION_NAME,
                    NameOID.ORGANIZATIONAL_UNIT_NAME,
                    NameOID.LOCALITY_NAME,
                    NameOID.STATE_OR_PROVINCE_NAME,
                    NameOID.PSEUDONYM,
                    x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"),
                ]
            ),
            TEXT,
        ),
        max_size=4,
    ),
    MOMENTS,
    st.integers(1, 2**159 - 1),
)
def test_as_the_library(
    name: list[tuple[x509.ObjectIdentifier, str]], start: datetime, serial: int
) -> None:
    """Names, serial and both times, of either century."""
    subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in name])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(ec_key(1).public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=9))
        .sign(ec_key(1), hashes.SHA256())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)

    told = certificate_facts(der, "peer")

    assert told.facts == facts(certificate, "peer")
    assert told.name == tuple(text for _, text in name)


def test_damaged() -> None:
    """What is no certificate is refused with an error that is expected, wherever it is cut."""
    leaf = make_leaf(make_ca(key=ec_key(1)), key=ec_key(2)).certificate
    der = leaf.public_bytes(serialization.Encoding.DER)

    for cut in range(0, 60, 3):
        with pytest.raises((IndexError, StopIteration, ValueError)):
            certificate_facts(der[:cut], "peer")
