"""The table of verdicts: one certificate or chain in each row, by what is special about it."""

import functools
from ipaddress import ip_address, ip_network

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.certificates import ec_key, rsa_key
from tests.forge import (
    BMP,
    BOOLEAN,
    COMMON_NAME,
    EC_SIGNED,
    EMAIL,
    IA5,
    INTEGER,
    NULL,
    OCTETS,
    PRINTABLE,
    SEQUENCE,
    SET,
    TELETEX,
    dn,
    oid,
    tlv,
)
from tests.verdicts import (
    CA,
    CA_0,
    CA_1,
    NEW,
    NO_CA,
    OLD,
    Case,
    Chain,
    alone,
    astray,
    both,
    domain,
    exclude,
    exts,
    issuer_id,
    keyed,
    leaf,
    many,
    may,
    named,
    permit,
    raw,
    renewed,
    root,
    rsa_signed,
    san,
    shortened,
    three,
    two,
)

HERE = domain("vm.a.example")
VM_NAME = san(HERE)
AT = x509.UniformResourceIdentifier("http://a.example/x")
POINT = x509.DistributionPoint([AT], None, None, None)
CRLS = x509.CRLDistributionPoints([POINT])
ANY_POLICY = x509.CertificatePolicies(
    [x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), None)]
)
REGISTERED = x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4.5"))
ADDRESSES = tlv(
    SEQUENCE,
    tlv(SEQUENCE, tlv(OCTETS, b"\0\1"), tlv(SEQUENCE, tlv(3, b"\0\x0a"))),
)
KEY_ID, ALTERNATIVE, LIMITS, AUTHORITY_ID = "2.5.29.14", "2.5.29.17", "2.5.29.30", "2.5.29.35"
COUNTRY, RSASSA_PSS = "2.5.4.6", "1.2.840.113549.1.1.10"
LATIN = tlv(TELETEX, "Müller".encode("latin-1"))
OTHER_TRAILER = tlv(SEQUENCE, tlv(0xA3, tlv(INTEGER, b"\2")))
UNKNOWN = "which charon does not support"
BYTES = "charon compares names byte by byte"
TWO_IDS = "charon takes them for two"

CURVES: tuple[ec.EllipticCurve, ...] = (ec.SECP224R1(), ec.SECP256K1(), ec.BrainpoolP256R1())
UNKNOWN_TO_CHARON: tuple[tuple[str, str, bytes, bool], ...] = (
    ("freshestCRL", "2.5.29.46", x509.FreshestCRL([POINT]).public_bytes(), False),
    ("subjectInfoAccess", "1.3.6.1.5.5.7.1.11", tlv(SEQUENCE, tlv(SEQUENCE,
        tlv(6, b"\x2b\x06\x01\x05\x05\x07\x30\x05"), tlv(0x86, b"http://a.example/"))), False),
    ("TLS feature", "1.3.6.1.5.5.7.1.24", tlv(SEQUENCE, tlv(INTEGER, b"\5")), False),
    ("OCSP no check", "1.3.6.1.5.5.7.48.1.5", tlv(NULL), True),
    ("precertificate poison", "1.3.6.1.4.1.11129.2.4.3", tlv(NULL), False),
    ("Microsoft's certificate template", "1.3.6.1.4.1.311.21.7",
        tlv(SEQUENCE, tlv(6, b"\x2b\x06\x01"), tlv(INTEGER, b"\1")), False),
    ("privateKeyUsagePeriod", "2.5.29.16", tlv(SEQUENCE, tlv(0x80, b"20200101000000Z")), False),
    ("admissions", "1.3.36.8.3.3", tlv(SEQUENCE, tlv(SEQUENCE)), False),
    ("qcStatements", "1.3.6.1.5.5.7.1.3", tlv(SEQUENCE), False),
    ("subjectDirectoryAttributes", "2.5.29.9", tlv(SEQUENCE), False),
    ("Netscape's certificate type", "2.16.840.1.113730.1.1", tlv(3, b"\5\xa0"), True),
    ("1.2.3.4.5", "1.2.3.4.5", tlv(NULL), False),
)  # fmt: skip
"""Extensions: our name, their number, a value, whether openssl knows them as critical ones."""

KNOWN_TO_CHARON: tuple[tuple[str, str, bytes, bool], ...] = (
    ("issuerAltName", "2.5.29.18", x509.IssuerAlternativeName([HERE]).public_bytes(), False),
    ("cRLDistributionPoints", "2.5.29.31", CRLS.public_bytes(), True),
    ("authorityKeyIdentifier", "2.5.29.35", tlv(SEQUENCE), False),
    ("subjectKeyIdentifier", "2.5.29.14", tlv(OCTETS, b"abc"), False),
    ("Netscape's comment", "2.16.840.1.113730.1.13", tlv(IA5, b"made by hand"), False),
    ("certificatePolicies", "2.5.29.32", ANY_POLICY.public_bytes(), True),
)  # fmt: skip

CHAINS = (
    Case("a root", two()),
    Case("an intermediate behind the leaf", three()),
    Case("an intermediate in ca_certificates", three(listed="both")),
    Case("no intermediate", three(listed="only root"), "no CA in ca_certificates signed it"),
    Case("no root", three(listed="middle"), "the CA above it, CN=Root, is not in ca_certificates"),
    Case(
        "a root behind the leaf only",
        three(listed="root behind"),
        "its chain ends at CN=Root, which is not a CA of ca_certificates",
        pki=False,
    ),
    Case(
        "another CA",
        lambda: Chain(leaf(root()), (root("Other", key=ec_key(3)),)),
        "no CA in ca_certificates signed it (its issuer is CN=Root)",
    ),
    Case(
        "another CA of that name",
        lambda: Chain(leaf(root()), (root(key=ec_key(3)),)),
        "CN=Root in ca_certificates has another key than the CA that signed it",
    ),
    Case("a damaged leaf", two(vm={"broken": True}), "has another key than the CA that signed it"),
    Case(
        "a damaged root",
        two({"broken": True}),
        "CN=Root is damaged or not self-signed: its signature is not of its own key",
        openssl=True,
    ),
    Case("a root without CA:TRUE", two({"basic": NO_CA}), "CN=Root is not a CA certificate"),
    Case("a root without constraints", two({"basic": None}), "CN=Root is not a CA certificate"),
    Case(
        "a root of version 1",
        two({"basic": None, "version": 0}),
        "CN=Root is not a CA certificate",
        openssl=True,
    ),
    Case(
        "an intermediate without CA:TRUE",
        three(mid={"basic": NO_CA}),
        "CN=Middle signed it, but is not a CA",
    ),
    Case("a leaf of version 1", two(vm={"basic": None, "version": 0})),
    Case(
        "a leaf of version 4",
        two(vm={"version": 3}),
        "the certificate has a version, 4, that is not as RFC 5280 asks",
        openssl=True,
    ),
    Case("a leaf that is a CA", two(vm={"basic": CA})),
    Case("an expired leaf", two(vm=OLD), "the certificate CN=VM expired on"),
    Case("a leaf of tomorrow", two(vm=NEW), "the certificate CN=VM is not valid before"),
    Case("an expired root", two(OLD), "the certificate CN=Root expired on"),
    Case("a root of tomorrow", two(NEW), "the certificate CN=Root is not valid before"),
    Case("an expired intermediate", three(mid=OLD), "the certificate CN=Middle expired on"),
    Case("a root twice, the newer first", renewed(**OLD), "CN=Root expired on", openssl=True),
    Case("path length 0, no intermediate", two({"basic": CA_0})),
    Case("path length 0, one intermediate", three({"basic": CA_0}), "longer than the path length"),
    Case(
        "two path lengths of one root",
        shortened,
        "longer than the path length",
        openssl=True,
    ),
    Case("path length 1, one intermediate", three({"basic": CA_1})),
    Case("7 intermediates", many(7)),
    Case("9 intermediates", many(9), "has more than 7 intermediates", openssl=True),
    Case(
        "8 intermediates",
        many(8),
        "its chain has more than 7 intermediates, and charon follows no more",
        openssl=True,
    ),
    Case(
        "an intermediate that leads elsewhere",
        astray,
        "one of them (its issuer is CN=Other) leads to no CA of ca_certificates",
        openssl=True,
    ),
    Case(
        "its own CA",
        alone,
        "it is self-signed, so no CA vouches for it",
        pki=False,
        openssl=True,
    ),
)

NAMES = (
    Case(
        "UTF8String in the CA, PrintableString in the leaf",
        two({"name": dn("lab-ca")}, {"issuer_name": dn("lab-ca", tag=PRINTABLE)}),
    ),
    Case(
        "PrintableString in the CA, UTF8String in the leaf",
        two({"name": dn("lab-ca", tag=PRINTABLE)}, {"issuer_name": dn("lab-ca")}),
    ),
    Case(
        "two string types in a root",
        two({"name": dn("lab-ca"), "issuer_name": dn("lab-ca", tag=PRINTABLE)}),
    ),
    Case(
        "the case of a PrintableString",
        two({"name": dn("lab", tag=PRINTABLE)}, {"issuer_name": dn("LAB", tag=PRINTABLE)}),
    ),
    Case(
        "the case of an e-mail address",
        two(
            {"name": dn("lab", (EMAIL, IA5, "a@b.c"))},
            {"issuer_name": dn("lab", (EMAIL, IA5, "A@B.C"))},
        ),
    ),
    Case(
        "the case of a UTF8String",
        two({"name": dn("lab")}, {"issuer_name": dn("LAB")}),
        BYTES,
        openssl=True,
    ),
    Case(
        "two string types and the case",
        two({"name": dn("lab")}, {"issuer_name": dn("LAB", tag=PRINTABLE)}),
        BYTES,
        openssl=True,
    ),
    Case(
        "two spaces",
        two({"name": dn("lab ca")}, {"issuer_name": dn("lab  ca")}),
        BYTES,
        openssl=True,
    ),
    Case(
        "BMPString in the leaf",
        two({"name": dn("lab")}, {"issuer_name": dn("lab", tag=BMP)}),
        BYTES,
        openssl=True,
    ),
    Case("another name, the same key", two(vm={"issuer_name": dn("Elsewhere")}), BYTES),
    Case("a country of three letters", two({"name": dn("lab", (COUNTRY, PRINTABLE, "USA"))})),
    Case("an empty name", two(vm={"name": dn("")})),
    Case("a name of 300 letters", two(vm={"name": dn("x" * 300)})),
    Case(
        "a sign that PrintableString has not",
        two(vm={"name": dn("vm@lab", tag=PRINTABLE)}),
        "the certificate has a part (AttributeValue PrintableString) that is not as RFC",
        charon=True,
    ),
    Case(
        "a TeletexString of Latin-1",
        two(vm={"name": tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, oid(COMMON_NAME), LATIN)))}),
        "the certificate has a subject or an issuer (subject) that cannot be read; charon may take",
        charon=True,
    ),
    Case("no subject", two(vm={"name": tlv(SEQUENCE)})),
    Case("the name of its CA", two(vm={"name": dn("Root")}), openssl=False),
)

KEY_IDS = (
    Case("the id of the CA", two(exts(x509.SubjectKeyIdentifier(b"ca")), exts(issuer_id(b"ca")))),
    Case(
        "the id of another CA",
        two(exts(x509.SubjectKeyIdentifier(b"ca")), exts(issuer_id(b"cb"))),
        "it has the authority key id 63:62, but the key id of CN=Root, which signed it, is 63:61",
    ),
    Case(
        "an id of no CA, and the CA has none", two(vm=exts(issuer_id(b"cb"))), TWO_IDS, openssl=True
    ),
    Case(
        "a root with another's id",
        two(exts(issuer_id(b"cb"))),
        "CN=Root has an authority key id that is not its own",
        openssl=True,
    ),
    Case(
        "an empty id of a CA", two(vm=raw(AUTHORITY_ID, tlv(SEQUENCE, tlv(0x80)), critical=False))
    ),
    Case(
        "a CA whose id is empty",
        two(raw(KEY_ID, tlv(OCTETS), critical=False), exts(issuer_id(b"cb"))),
        openssl=False,
    ),
    Case("the serial of another certificate", two(vm=exts(issuer_id(None, 0x59))), openssl=False),
    Case("serial 0", two(vm={"serial": b"\0"})),
    Case("serial 0 of the root", two({"serial": b"\0"})),
    Case("a negative serial", two(vm={"serial": b"\x80"})),
    Case("a serial of 40 octets", two(vm={"serial": b"\1" * 40})),
)

USES = (
    Case("may sign", two(vm=may(digital_signature=True))),
    Case("may commit", two(vm=may(content_commitment=True))),
    Case(
        "may only encipher",
        two(vm=may(key_encipherment=True)),
        "its key usage does not allow signatures, so every peer would refuse it",
        pki=False,
        openssl=True,
    ),
    Case(
        "may do nothing",
        two(vm=may()),
        "its key usage does not allow signatures, so every peer would refuse it",
        pki=False,
    ),
    Case(
        "may only sign certificates",
        two(vm=may(key_cert_sign=True)),
        "its key usage does not allow signatures, so every peer would refuse it",
        pki=False,
        openssl=True,
    ),
    Case("a CA that may not sign certificates", two(may(crl_sign=True)), openssl=False),
    Case("for code", two(vm=exts(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])))),
)

KEYS = (
    Case("a root signed with SHA-1", rsa_signed("sha1")),
    Case("a root signed with MD5", rsa_signed("md5")),
    Case("a leaf signed with SHA-1", rsa_signed(vm="sha1")),
    Case("ECDSA with SHA-1", two({"hashed": "sha1"}, {"hashed": "sha1"})),
    Case("RSA with SHA-512", rsa_signed("sha512", "sha512")),
    Case("RSA with SHA3-256", rsa_signed("sha3-256", "sha3-256")),
    Case("RSASSA-PSS", rsa_signed(pss=True)),
    Case(
        "ECDSA with SHA3-256",
        two(vm={"hashed": "sha3-256"}),
        "CN=VM is signed with 2.16.840.1.101.3.4.3.10 (ECDSA with SHA3-256), which charon does not",
    ),
    Case(
        "a root signed with ECDSA and SHA-224",
        two({"hashed": "sha224"}),
        "CN=Root is signed with 1.2.840.10045.4.3.1 (ECDSA with SHA-224), which charon does not",
        openssl=True,
    ),
    Case(
        "Ed25519",
        two(keyed(ed25519.Ed25519PrivateKey.generate), keyed(ed25519.Ed25519PrivateKey.generate)),
    ),
    Case(
        "RSASSA-PSS without parameters",
        rsa_signed(pss=True, algorithm=tlv(SEQUENCE, oid(RSASSA_PSS))),
        "CN=VM has a signature algorithm that cannot be read",
    ),
    Case(
        "RSASSA-PSS with another trailer",
        rsa_signed(pss=True, algorithm=tlv(SEQUENCE, oid(RSASSA_PSS), OTHER_TRAILER)),
        "CN=VM is signed with RSASSA-PSS and a trailer that charon does not know",
    ),
    Case(
        "two algorithms of one signature",
        two(vm={"outer": tlv(SEQUENCE, oid(EC_SIGNED["sha384"]))}),
        "CN=VM names two different algorithms of its signature",
    ),
    Case(
        "an algorithm with parameters that it has not",
        two(vm={"algorithm": tlv(SEQUENCE, oid(EC_SIGNED["sha256"]), tlv(NULL))}),
        "the certificate has a part (TbsCertificate signature alg) that is not as RFC 5280",
        charon=True,
    ),
    Case("Ed448", two(keyed(ed448.Ed448PrivateKey.generate))),
    Case(
        "a DSA key in a root",
        two(keyed(lambda: dsa.generate_private_key(1024))),
        "CN=Root has a key of a kind that charon does not support",
        openssl=True,
    ),
    Case(
        "RSA with 1024 bits",
        two(vm={"key": lambda: rsa_key(1024, 1)}),
        "charon takes it, ipsec-agent takes none below 2048",
        charon=True,
    ),
    Case("a CA with RSA of 1024 bits", two({"key": lambda: rsa_key(1024, 1)})),
    *(
        Case(
            f"a key on {curve.name}",
            two(vm=keyed(functools.partial(ec.generate_private_key, curve))),
            f"ipsec-agent takes no key on the curve {curve.name}, though charon does",
            charon=True,
        )
        for curve in CURVES
    ),
)

EXTENSIONS = (
    *(
        Case(
            f"critical {ours} in a {where}",
            two(**{where: raw(oid, value)}),
            f"has the critical extension {oid}",
            openssl=openssl,
        )
        for ours, oid, value, openssl in UNKNOWN_TO_CHARON
        for where in ("ca", "vm")
    ),
    *(
        Case(f"{ours}, not critical", two(vm=raw(oid, value, critical=False)))
        for ours, oid, value, _ in UNKNOWN_TO_CHARON[:3]
    ),
    *(
        Case(f"critical {ours}", two(vm=raw(oid, value)), openssl=openssl)
        for ours, oid, value, openssl in KNOWN_TO_CHARON
    ),
    Case(
        "a kind of name that only one of charon's readers knows",
        two(vm=both(exts(ANY_POLICY, critical=True), san(REGISTERED))),
        "has a subject alternative name of the kind registeredID beside a critical extension",
        openssl=True,
    ),
    Case("the same kind of name by itself", two(vm=san(REGISTERED))),
    Case(
        "critical extensions that no reader knows together",
        two(
            both(
                exts(ANY_POLICY, critical=True),
                exts(x509.IssuerAlternativeName([HERE]), critical=True),
            )
        ),
        "does not support together, issuerAltName and 2.5.29.32 (certificatePolicies)",
    ),
    Case(
        "a name of a kind that the library does not know",
        two(vm=raw(ALTERNATIVE, tlv(SEQUENCE, tlv(0xA3, tlv(NULL))), critical=False)),
        "CN=VM has the extension 2.5.29.17 (subjectAltName) that cannot be read; charon may take",
        charon=True,
    ),
    Case(
        "an address of five octets",
        two(vm=raw(ALTERNATIVE, tlv(SEQUENCE, tlv(0x87, b"abcde")), critical=False)),
        "CN=VM has the extension 2.5.29.17 (subjectAltName) that cannot be read; charon may take",
        charon=True,
    ),
    Case(
        "a default that is written out",
        two(vm={"basic": tlv(SEQUENCE, tlv(BOOLEAN, b"\0"))}),
        "CN=VM has the extension 2.5.29.19 (basicConstraints) that cannot be read; charon may take",
        charon=True,
    ),
    Case("critical address blocks", two(raw("1.3.6.1.5.5.7.1.7", ADDRESSES))),
    Case(
        "the same extension twice",
        two(vm={"extensions": may(digital_signature=True)["extensions"] * 2}),
        "CN=VM has the extension 2.5.29.15 (keyUsage) twice; charon may take it, ipsec-agent takes",
        charon=True,
        openssl=False,
    ),
    Case(
        "anyPolicy below a CA that forbids it",
        two(exts(x509.InhibitAnyPolicy(0), critical=True), exts(ANY_POLICY, critical=True)),
        "CN=Root forbids the policy anyPolicy, which CN=VM has",
        openssl=True,
    ),
    Case(
        "anyPolicy where the CA skips one",
        three(exts(x509.InhibitAnyPolicy(2), critical=True), vm=exts(ANY_POLICY, critical=True)),
    ),
)

SINCE, BEFORE = "charon since 5.9.14 refuses that", "charon before 5.9.14 refuses that"
A, B = domain("a.example"), domain("b.example")
NETWORK = x509.IPAddress(ip_network("10.0.0.0/8"))
MAIL, AT_A = x509.RFC822Name("a.example"), x509.RFC822Name("vm@a.example")
CONSTRAINTS = (
    Case("permitted", two(permit(A), VM_NAME)),
    Case("permitted in other letters", two(permit(domain("A.EXAMPLE")), VM_NAME)),
    Case("no name of that kind", two(permit(A))),
    Case(
        "not permitted",
        two(permit(B), VM_NAME),
        "the name constraints of CN=Root permit b.example, and vm.a.example is not in it",
    ),
    Case(
        "not permitted, half a label",
        two(permit(domain("a.example")), san(domain("vma.example"))),
        "permit a.example, and vma.example is not in it",
    ),
    Case(
        "not permitted, not critical",
        two(permit(B, critical=False), VM_NAME),
        SINCE,
        charon=True,
        since=False,
        openssl=False,
    ),
    Case(
        "two permitted domains",
        two(permit(A, B), VM_NAME),
        "the name constraints of CN=Root permit b.example, and vm.a.example is not in it: "
        + BEFORE,
        since=True,
        openssl=True,
    ),
    Case("two permitted domains, not critical", two(permit(A, B, critical=False), VM_NAME)),
    Case("excluded, another", two(exclude(B), VM_NAME)),
    Case(
        "excluded",
        two(exclude(A), VM_NAME),
        "the name constraints of CN=Root exclude a.example, and vm.a.example is in it",
    ),
    Case(
        "a permitted network",
        two(permit(NETWORK), san(x509.IPAddress(ip_address("10.1.2.3")))),
        "CN=Root has a name constraint of the kind iPAddress, which charon before 5.9.12 does not",
        since=True,
        openssl=True,
    ),
    Case(
        "a permitted network, not critical",
        two(permit(NETWORK, critical=False), san(x509.IPAddress(ip_address("10.1.2.3")))),
    ),
    Case(
        "another network, not critical",
        two(permit(NETWORK, critical=False), san(x509.IPAddress(ip_address("11.1.2.3")))),
        "permit 10.0.0.0/8, and 11.1.2.3 is not in it: " + SINCE,
        charon=True,
        since=False,
        openssl=False,
    ),
    Case(
        "a permitted network of a wrong size",
        two(
            raw(LIMITS, tlv(SEQUENCE, tlv(0xA0, tlv(SEQUENCE, tlv(0x87, b"abcd")))), critical=False)
        ),
        "CN=Root has the extension 2.5.29.30 (nameConstraints) that cannot be read; charon may",
        charon=True,
    ),
    Case("a permitted mail domain", two(permit(MAIL), san(AT_A))),
    Case(
        "another mail domain",
        two(permit(x509.RFC822Name("b.example")), san(AT_A)),
        "permit b.example, and vm@a.example is not in it",
    ),
    Case("a permitted subject", two(permit(named("VM")))),
    Case("another subject", two(permit(named("Other"))), "permit CN=Other, and CN=VM is not in it"),
    Case(
        "an excluded subject",
        two(exclude(named("Other"))),
        "exclude a name of the kind directoryName, which charon does not support",
        openssl=True,
    ),
    Case("a permitted address of a page", two(permit(AT)), SINCE, charon=True, since=False),
    Case("a CA below repeats it", three(permit(A), permit(HERE), VM_NAME)),
    Case(
        "a CA below does not repeat it",
        three(permit(A), vm=VM_NAME),
        "permit a.example, which those of CN=Middle below it do not repeat: " + BEFORE,
        since=True,
        openssl=True,
    ),
    Case(
        "a CA below permits more",
        three(permit(HERE), permit(A), san(domain("x.a.example"))),
        "the name constraints of CN=Root permit",
    ),
    Case(
        "a CA below permits something else, not critical",
        three(permit(A, critical=False), permit(B, critical=False), VM_NAME),
        "permit no name of this kind, and vm.a.example is not in it: " + SINCE,
        charon=True,
        since=False,
        openssl=False,
    ),
    Case(
        "a CA below excludes something else, not critical",
        three(exclude(A, critical=False), exclude(B, critical=False), VM_NAME),
        "exclude a.example or b.example, and vm.a.example is in it: " + SINCE,
        charon=True,
        since=False,
        openssl=False,
    ),
    Case(
        "of the intermediate",
        three(mid=permit(B), vm=VM_NAME),
        "the name constraints of CN=Middle permit b.example",
    ),
)

CASES = (*CHAINS, *NAMES, *KEY_IDS, *USES, *KEYS, *EXTENSIONS, *CONSTRAINTS)
BY_NAME = {case.name: case for case in CASES}
