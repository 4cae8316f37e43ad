"""Whether the certificates of a config fit into what carries them to charon and to the peers."""

from collections.abc import Iterator

from cryptography import x509

from ipsec_agent.core.manifest.bundle import LEAF, Bundle, Ways
from ipsec_agent.core.manifest.certificates import Finding, der, name

MOST_OF_ONE = 0xFFFF
"""Bytes of a value of VICI (README.md of vici)."""

MOST_LISTED = 500_000
"""Bytes of the instance's certificate and the CAs, which each connection has: a message of VICI has
512 KiB, keys and names among them."""

MOST_SENT, ENOUGH = 10_000, 9_000
"""Bytes of a message of IKE that charon takes, however many fragments it comes in (`max_packet` in
strongswan.conf(5)), and of certificates beside which there is room for all else in it."""


def oversized(bundle: Bundle, found: Ways) -> Iterator[Finding]:
    """What is too large.

    Args:
        found: the ways to a root.
    """
    large = [one for one in (bundle.leaf, *bundle.listed) if len(der(one)) > MOST_OF_ONE]
    for one in large:
        yield Finding(
            bundle.part(one),
            f"{name(one.subject)} has {len(der(one)):,} bytes, and charon takes none of more than"
            f" {MOST_OF_ONE:,}",
            "reissue it with fewer names",
        )
    if large:
        return
    listed = {ca for _, ca in bundle.authorities}
    if (total := _bytes((bundle.leaf, *listed))) > MOST_LISTED:
        yield Finding(
            "ca_certificates",
            f"the CAs and the instance's certificate have {total:,} bytes, and charon takes"
            f" {MOST_LISTED:,} at once",
            "list only the CAs that signed certificates of these VMs",
        )
    # charon sends all but the root.
    sent = min((_bytes(path[:-1]) for path in found.good), default=0)
    if sent > ENOUGH:
        yield Finding(
            LEAF,
            f"it and the CAs between it and its root have {sent:,} bytes, and charon takes messages"
            f" of {MOST_SENT:,} bytes from a peer: "
            + ("no peer can be reached" if sent > MOST_SENT else "peers may not be reached"),
            "reissue it with fewer names, or by a CA that is nearer to the root",
            "error" if sent > MOST_SENT else "warning",
        )


def _bytes(certificates: tuple[x509.Certificate, ...]) -> int:
    return sum(len(der(one)) for one in certificates)
