"""Says why the instance certificate has no chain to a listed CA."""

from collections.abc import Iterator

from cryptography import x509

from ipsec_agent.core.manifest.bundle import LEAF, Bundle
from ipsec_agent.core.manifest.certificates import Finding, name
from ipsec_agent.core.manifest.issuers import (
    Verdict,
    authority_key_id,
    compared,
    is_ca,
    issued,
    key_id,
    signed,
)


def why_no_chain(bundle: Bundle) -> Finding:
    """The reason, at the certificate where the chain ends."""
    top, path = bundle.leaf, [bundle.leaf]
    while above := next(
        (one for one in bundle.listed if one not in path and issued(top, one)), None
    ):
        top = above
        path.append(above)
        if not is_ca(above):
            return Finding(
                bundle.part(above),
                f"{name(above.subject)} signed {_called(bundle, path[-2])}, but is not a CA",
                "use a certificate that a CA signed",
            )
    if issued(top, top):
        return _self_signed(bundle, top)
    return next(_near(bundle, top), None) or _nothing_near(bundle, top)


def _self_signed(bundle: Bundle, top: x509.Certificate) -> Finding:
    if top == bundle.leaf:
        return Finding(
            LEAF,
            "it is self-signed, so no CA vouches for it",
            "create a CA, sign the certificate with it, and list the CA in ca_certificates",
        )
    return Finding(
        LEAF,
        f"its chain ends at {name(top.subject)}, which is not a CA of ca_certificates",
        "list the CA itself in ca_certificates",
    )


def _near(bundle: Bundle, top: x509.Certificate) -> Iterator[Finding]:
    """What looks like its issuer, and why charon does not take it for that, the truest first."""
    listed = [(one, compared(top, one)) for one in bundle.listed if one != top]
    part, subject = bundle.part(top), _called(bundle, top)
    for one, verdict in listed:
        if verdict is Verdict.OTHER_KEY_ID and signed(top, one):
            yield Finding(
                part,
                f"{subject} has the authority key id {_hex(authority_key_id(top))}, but the key id"
                f" of {name(one.subject)}, which signed it, is {_hex(key_id(one))}; charon takes"
                " them for two",
                "issue it with the key id of its CA, or without one",
            )
        elif verdict is Verdict.OTHER_NAME and signed(top, one):
            yield Finding(
                part,
                f"{subject} names its issuer {name(top.issuer)}, but the CA that signed it is"
                f" {name(one.subject)}; charon compares names byte by byte",
                "issue it with the name of its CA as the CA's own certificate has it",
            )
    if top != bundle.leaf and (own := compared(top, top)) is not Verdict.OTHER_NAME:
        what = (
            "has an authority key id that is not its own"
            if own is Verdict.OTHER_KEY_ID
            else "is damaged or not self-signed: its signature is not of its own key"
        )
        yield Finding(part, f"{subject} {what}", "paste it again, or list the CA that signed it")
    for one, verdict in listed:
        if verdict is Verdict.OTHER_SIGNATURE:
            yield Finding(
                part,
                f"{name(one.subject)} in {_place(bundle, one)} has another key than the CA that"
                " signed it",
                "list the CA that signed it",
            )


def _nothing_near(bundle: Bundle, top: x509.Certificate) -> Finding:
    issuer = name(top.issuer)
    if top != bundle.leaf:
        return Finding(
            LEAF,
            f"its chain ends at {name(top.subject)}: the CA above it, {issuer}, is not in"
            " ca_certificates",
            f"add {issuer}: charon trusts a chain only up to a self-signed CA",
        )
    return Finding(
        LEAF,
        f"no CA in ca_certificates signed it (its issuer is {issuer})",
        "add that CA to ca_certificates, or use a certificate that one of them signed",
    )


def _called(bundle: Bundle, certificate: x509.Certificate) -> str:
    return "it" if certificate == bundle.leaf else name(certificate.subject)


def _place(bundle: Bundle, certificate: x509.Certificate) -> str:
    return bundle.part(certificate).partition("[")[0]


def _hex(key: bytes | None) -> str:
    return (key or b"").hex(":")
