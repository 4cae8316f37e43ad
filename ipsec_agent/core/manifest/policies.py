"""The one constraint on certificate policies that charon enforces: no anyPolicy below a CA.

Peers ask for no policies, charon expects another encoding of requireExplicitPolicy than RFC 5280's,
and OpenSSL's reader sees none at all (constraints_validator.c, x509_cert.c of 5.9.8 and 6.0).
"""

from collections.abc import Iterator, Sequence

from cryptography import x509

from ipsec_agent.core.manifest.loadable import own_reader

ANY_POLICY = x509.ObjectIdentifier("2.5.29.32.0")


def forbidden(
    path: Sequence[x509.Certificate],
) -> Iterator[tuple[x509.Certificate, x509.Certificate]]:
    """Each CA that forbids anyPolicy with each certificate below it that has it, the leaf first.

    A CA may allow it to as many certificates as it skips, those just below itself.
    """
    for position, ca in enumerate(path):
        skipped = _skipped(ca)
        if skipped is not None:
            for below in path[: max(0, position - skipped)]:
                if _has_any_policy(below):
                    yield ca, below


def _skipped(ca: x509.Certificate) -> int | None:
    if not own_reader(ca):
        return None
    try:
        return ca.extensions.get_extension_for_class(x509.InhibitAnyPolicy).value.skip_certs
    except x509.ExtensionNotFound:
        return None


def _has_any_policy(certificate: x509.Certificate) -> bool:
    if not own_reader(certificate):
        return False
    try:
        found = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    except x509.ExtensionNotFound:
        return False
    return any(policy.policy_identifier == ANY_POLICY for policy in found)
