"""The certificates that charon lists: asked for seldom, since they change with handshakes only."""

import time

from ipsec_agent.core.config import ListedCertificate
from ipsec_agent.core.observed import CharonProcess, IkeSa
from ipsec_agent.core.peer_certificates import listed
from ipsec_agent.host.charon import CharonClient

EACH = 10.0
"""Seconds between two questions at the least: in a large fleet some handshake is always just over,
and a certificate ends in days."""

MOST = 256
"""Certificates that are looked at: what charon was given, and the 64 that its cache can hold."""


class ListedCertificates:
    """What one charon listed, and with which IKE_SAs it had then."""

    def __init__(self) -> None:
        self._of: tuple[str, frozenset[int]] = ("", frozenset())
        self._asked = 0.0
        self._kept: tuple[ListedCertificate, ...] = ()

    async def get(
        self, process: CharonProcess, client: CharonClient, sas: tuple[IkeSa, ...]
    ) -> tuple[ListedCertificate, ...]:
        """The certificates, as of 10 s ago at the most; of another charon, as of now.

        Raises:
            CharonError: it does not answer.
        """
        of = process.identity, frozenset(sa.unique_id for sa in sas if sa.age)
        now = time.monotonic()
        another = of[0] != self._of[0]
        if another or (of != self._of and now - self._asked >= EACH):
            self._kept = listed((await client.certificates())[:MOST])
            self._of, self._asked = of, now
        return self._kept
