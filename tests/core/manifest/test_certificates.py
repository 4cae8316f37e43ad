"""Certificates and keys as operators paste them, and what is said of those that cannot serve."""

import base64
import math
from collections import deque
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.manifest import certificates, pem
from ipsec_agent.core.manifest.certificates import (
    credentials,
    der,
    facts,
    load_certificates,
    load_key,
    name,
)
from tests.certificates import ec_key, key_pem, make_ca, make_leaf, rsa_key

CA = make_ca("Root", key=ec_key(1))
LEAF = make_leaf(CA, key=ec_key(9))
PART = "instance_certificate"


def refused(text: str) -> list[str]:
    """What is said of a text that holds no certificate."""
    found, findings = load_certificates(text, PART)
    assert found == ()
    return [item.message for item in findings]


def key_refused(text: str) -> str:
    """What is said of a text that holds no fitting key."""
    key, findings = load_key(text)
    assert key is None
    return findings[0].message


def test_a_chain_is_split() -> None:
    """Each certificate of a text is one of its own: charon would load only the first."""
    found, findings = load_certificates(LEAF.cert_pem + CA.cert_pem, PART)

    assert found == (LEAF.certificate, CA.certificate)
    assert findings == ()


@pytest.mark.parametrize(
    "changed",
    [
        LEAF.cert_pem.replace("\n", "\r\n"),
        LEAF.cert_pem.replace("\n", " "),
        "Subject: CN=VM\n" + LEAF.cert_pem + "trailing words",
        "".join(f"    {line}\n" for line in LEAF.cert_pem.splitlines()),
    ],
    ids=["crlf", "folded", "text around", "indented"],
)
def test_forms_of_pem(changed: str) -> None:
    """Line ends, lost line breaks, text around it and indentation do not matter."""
    assert load_certificates(changed, PART) == ((LEAF.certificate,), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  \n", "is empty"),
        ("MIIB", "is not PEM"),
        (LEAF.key_pem, "contains a private key"),
        (
            LEAF.cert_pem.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
            "contains a CERTIFICATE REQUEST",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMIIEMDCC\n...\n-----END CERTIFICATE-----",
            "is still the guide's placeholder",
        ),
        (
            LEAF.cert_pem.partition("-----END")[0],
            "the -----END CERTIFICATE----- line is missing",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nM,IE\n-----END CERTIFICATE-----",
            "the certificate is damaged",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
            "the certificate cannot be read",
        ),
    ],
)
def test_no_certificate(text: str, said: str) -> None:
    """Each way to paste it wrong has its own words."""
    assert refused(text) == [said]


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        ("\n", "\u00a0\n", "delete what base64 does not have in it (no-break space), or paste"),
        ("\n", "\u200b\n", "delete what base64 does not have in it (zero width space), or paste"),
        ("-\nM", "-\nComment: x\n\nM", "delete the lines with a colon below its BEGIN line"),
        ("-\nM", "-\nM.", "delete what base64 does not have in it (full stop), or paste all"),
        ("-\nM", "-\n", "paste all of it again"),
    ],
)
def test_what_damages_it(old: str, new: str, remedy: str) -> None:
    """A character that cannot be seen is named: to paste it again would bring it again."""
    _, (finding,) = load_certificates(LEAF.cert_pem.replace(old, new, 1), PART)

    assert finding.message == "the certificate is damaged"
    assert finding.remedy.startswith(remedy)


def test_a_lost_end_between_two() -> None:
    """A certificate without END does not swallow the next one."""
    found, findings = load_certificates(LEAF.cert_pem.partition("-----END")[0] + CA.cert_pem, PART)

    assert found == (CA.certificate,)
    assert [item.message for item in findings] == ["the -----END CERTIFICATE----- line is missing"]


def test_unknown_critical_extension() -> None:
    """charon refuses to load a certificate with a critical extension that it does not know."""
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
    odd = make_leaf(CA, key=ec_key(9), extensions=[(strange, True)])
    harmless = make_leaf(CA, key=ec_key(9), extensions=[(strange, False)])

    assert [item.message for item in load_certificates(odd.cert_pem, PART)[1]] == [
        "CN=VM has the critical extension 1.2.3.4.5, which charon does not support"
    ]
    assert load_certificates(harmless.cert_pem, PART)[1] == ()


@pytest.mark.parametrize(
    "kind", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_forms_of_keys(kind: serialization.PrivateFormat) -> None:
    """PKCS#8 and the older forms of RSA and EC keys are read; parameters beside them too."""
    for key in (rsa_key(3072, 200), ec_key()):
        text = key.private_bytes(
            serialization.Encoding.PEM, kind, serialization.NoEncryption()
        ).decode()
        parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----"

        read, findings = load_key(f"{parameters}\n{text}")

        assert findings == ()
        assert read is not None
        assert read.private_numbers() == key.private_numbers()  # type: ignore[union-attr]


def test_ed25519() -> None:
    """charon loads Ed25519 keys (seen), so they are taken."""
    text = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

    key, findings = load_key(text.decode())

    assert isinstance(key, ed25519.Ed25519PrivateKey)
    assert findings == ()


OPENSSH = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----"
LEGACY = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIE\n"
    "-----END RSA PRIVATE KEY-----"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("MIIE", "is not PEM"),
        (LEAF.cert_pem, "contains a CERTIFICATE, not a private key"),
        (LEAF.key_pem * 2, "contains 2 keys"),
        (key_pem(ec_key(), b"secret"), "the key has a passphrase"),
        (LEGACY, "the key has a passphrase"),
        (OPENSSH, "the key is in OpenSSH format"),
        (
            "-----BEGIN EXAMPLE RSA PRIVATE KEY-----\nEX\n-----END EXAMPLE RSA PRIVATE KEY-----",
            "is still the guide's placeholder",
        ),
        (LEAF.key_pem.partition("-----END")[0], "the -----END PRIVATE KEY----- line is missing"),
        (LEAF.key_pem.replace("M", ",", 1), "the key is damaged"),
        (
            "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
            "the key cannot be read",
        ),
        (
            key_pem(ec.generate_private_key(ec.SECP256K1())),
            "ipsec-agent takes no key on the curve secp256k1, though charon does",
        ),
        (
            dsa.generate_private_key(1024)
            .private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            .decode(),
            "IKE cannot use this kind of key",
        ),
    ],
)
def test_no_key(text: str, said: str) -> None:
    """Each way to paste the key wrong has its own words."""
    assert key_refused(text) == said


@pytest.mark.parametrize("number", ["n", "d", "p", "q", "dmp1", "dmq1", "iqmp"])
def test_a_damaged_rsa_key(number: str) -> None:
    """One bit of one of its numbers is enough to be told, before charon would sign with it."""
    numbers = rsa_key(2048).private_numbers()
    value = getattr(numbers.public_numbers if number == "n" else numbers, number)
    right = value.to_bytes((value.bit_length() + 7) // 8, "big")
    # The last but one bit: what must be odd stays so.
    wrong = right[:-1] + bytes([right[-1] ^ 2])
    whole = pem.blocks(key_pem(rsa_key(2048)))[0].der()
    assert whole is not None
    assert whole.count(right) == 1
    encoded = base64.encodebytes(whole.replace(right, wrong)).decode()
    text = f"-----BEGIN PRIVATE KEY-----\n{encoded}-----END PRIVATE KEY-----\n"

    assert key_refused(text) == "the key cannot be read"


def integer(value: int) -> bytes:
    """A number as DER."""
    return tagged(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def tagged(tag: int, content: bytes) -> bytes:
    """Content of less than 64 kB as DER, its length in two bytes."""
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


def composite_key() -> str:
    """An RSA key whose numbers belong together, but one factor is no prime."""
    p, q, e = (
        rsa_key(1024).public_key().public_numbers().n,
        rsa_key(2048).private_numbers().p,
        65537,
    )
    d = pow(e, -1, math.lcm(p - 1, q - 1))
    numbers = (p * q, e, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    der = tagged(0x30, b"\x02\x01\x00" + b"".join(integer(number) for number in numbers))
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\n"


def test_a_factor_that_is_no_prime() -> None:
    """The library's check refuses it, each time that it is read, by the name of its field."""
    for _ in range(2):
        key, (finding,) = load_key(composite_key())
        assert key is None
        assert (finding.part, finding.message) == ("instance_private_key", "the key cannot be read")


def test_an_unchanged_key_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check takes 0.2 s: a process that reads the same key again leaves it out."""
    skipped: list[bool] = []
    load = serialization.load_der_private_key

    def recorded(encoded: bytes, **options: Any) -> object:
        skipped.append(options["unsafe_skip_rsa_key_validation"])
        return load(encoded, **options)

    monkeypatch.setattr(serialization, "load_der_private_key", recorded)
    monkeypatch.setattr(certificates, "_SOUND", deque(maxlen=4))
    for number in (0, 0, 1, 0):
        assert load_key(key_pem(rsa_key(2048, number)))[0] is not None

    assert skipped == [False, True, False, True]


@pytest.mark.parametrize(("bits", "severity"), [(1024, "error"), (2048, "warning")])
def test_small_rsa(bits: int, severity: str) -> None:
    """RSA below 2048 bits is an error, below 3072 a warning; the key is read all the same."""
    key, findings = load_key(key_pem(rsa_key(bits)))

    assert key is not None
    assert [(item.message.partition(":")[0], item.severity) for item in findings] == [
        (f"an RSA key of {bits} bits is too small", severity)
    ]


def test_credentials() -> None:
    """charon's name for a key is the SHA-1 of its public bits; a CA's is of its certificate."""
    made = credentials(LEAF.key, (CA.certificate,), (CA.certificate,))

    digest = x509.SubjectKeyIdentifier.from_public_key(LEAF.key.public_key()).digest
    assert made.key_id == digest.hex()
    assert serialization.load_der_private_key(made.private_key, None) is not None
    assert [(len(item.name), item.certificate) for item in made.authorities] == [
        (19, der(CA.certificate))
    ]
    assert made.intermediates == (der(CA.certificate),)
    assert "Secret(...)" in repr(made)


def test_facts() -> None:
    """What is shown of a certificate, and in what form."""
    shown = facts(LEAF.certificate, "instance")

    assert (shown.subject, shown.issuer, shown.role) == ("CN=VM", "CN=Root", "instance")
    assert int(shown.serial, 16) == LEAF.certificate.serial_number
    assert shown.not_before < datetime.now(UTC) < shown.not_after


def test_a_name_cannot_play_with_the_terminal() -> None:
    """Control characters of a name are not passed on; an empty name is said to be none."""
    odd = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a\x1b[2Jb\nc")])

    assert name(odd) == "CN=a?[2Jb?c"
    assert name(x509.Name([])) == "without a name"


@given(st.text(st.sampled_from("-BEGINDCRTAX \n=/+ab."), max_size=400))
def test_any_text_is_split(text: str) -> None:
    """No text makes the splitter raise, and no body shows in a repr."""
    for block in pem.blocks(f"-----BEGIN CERTIFICATE-----{text}-----END CERTIFICATE-----"):
        assert block.der() is None or block.ended or block.body
        assert "body" not in repr(block)


def test_an_end_without_begin() -> None:
    """Only blocks count; a stray END is text around them."""
    assert pem.blocks("-----END CERTIFICATE-----") == ()
