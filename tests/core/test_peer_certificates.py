"""Which peer a certificate belongs to, as far as charon's list tells."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ipsec_agent.core.peer_certificates import listed, name_of
from tests.certificates import ec_key, make_ca, make_leaf

OID = x509.NameOID


def test_read() -> None:
    """Name and end of each; what is no certificate is left out."""
    leaf = make_leaf(make_ca(key=ec_key(1)), "peer", key=ec_key(2)).certificate
    (found,) = listed([b"junk", leaf.public_bytes(serialization.Encoding.DER)])

    assert found.name == ("peer",)
    assert (found.facts.subject, found.facts.role) == ("CN=peer", "peer")
    assert found.facts.not_after == leaf.not_valid_after_utc


def test_names_as_charon_writes_them() -> None:
    """In the certificate's order, with strongSwan's types; a value may have a comma."""
    values = (
        (OID.COUNTRY_NAME, "CH"),
        (OID.ORGANIZATION_NAME, "Cells, Inc."),
        (OID.EMAIL_ADDRESS, "a=b@example.com"),
        (OID.COMMON_NAME, "diego-cell-0"),
    )
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in values])
    signed = make_ca(key=ec_key(1))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signed.certificate.subject)
        .public_key(ec_key(2).public_key())
        .serial_number(7)
        .not_valid_before(signed.certificate.not_valid_before_utc)
        .not_valid_after(signed.certificate.not_valid_after_utc)
        .sign(signed.key, hashes.SHA256())
    )
    (found,) = listed([certificate.public_bytes(serialization.Encoding.DER)])

    assert found.name == name_of("C=CH, O=Cells, Inc., E=a=b@example.com, CN=diego-cell-0")


def test_no_name() -> None:
    """An identity of another kind, or none yet, is nobody's certificate."""
    assert name_of("") == name_of("10.0.0.9") == name_of("vm.example.com") == ()
