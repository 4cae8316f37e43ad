"""Which links the guard exempts, as nf_tables is told, without the program nft.

A link that comes to lead out must be guarded as soon as the kernel says so, and to start a program
takes longer than all the rest.
"""

import errno
import struct
from collections.abc import Iterable, Iterator

from ipsec_agent.core.model import GUARD_TABLE, LinkId
from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft_image import ELEMENTS_SET, NEW_ELEMENTS, TABLE, element_lists
from ipsec_agent.host.nft_table import LINKS, PORTS
from ipsec_agent.host.nft_wire import CREATE, Channel, Message, attribute, nested, text

DELETE_ELEMENTS = 14
KEY, VALUE = 1, 1
IFNAMSIZ = 16


def set_exempt(links: Iterable[LinkId], ports: Iterable[int] | None = None) -> None:
    """Put these in the place of what is in the guard's sets, in one transaction.

    Args:
        links: the exempt ones.
        ports: UDP ports of the tunnels among them; None leaves those that are there.

    Raises:
        KernelError: the kernel refuses; there may be no guard.
    """
    try:
        with Channel() as channel:
            channel.perform(exemptions(links, ports))
    except OSError as error:
        raise KernelError(
            f"cannot change the guard's exempt links: {error.strerror or error}",
            code=error.errno or 0,
            hint="run as root, or with the capability CAP_NET_ADMIN"
            if error.errno == errno.EPERM
            else "the guard may be gone; the agent loads it again",
        ) from error


def exemptions(links: Iterable[LinkId], ports: Iterable[int] | None) -> list[Message]:
    """The messages that put these in the place of what is in the guard's sets."""
    messages = _replacement(LINKS, map(_link, links))
    if ports is not None:
        messages += _replacement(PORTS, (struct.pack("!H", port) for port in ports))
    return messages


def _replacement(name: str, values: Iterable[bytes]) -> list[Message]:
    table = GUARD_TABLE.encode() + b"\0"
    elements = [nested(KEY, attribute(VALUE, value)) for value in values]
    # Without elements it empties the set.
    emptied = attribute(TABLE, table) + text(ELEMENTS_SET, name)
    return [(DELETE_ELEMENTS, 0, emptied), *_added(table, name, elements)]


def _added(table: bytes, name: str, elements: list[bytes]) -> Iterator[Message]:
    for body in element_lists(table, name, elements):
        yield NEW_ELEMENTS, CREATE, body


def _link(link: LinkId) -> bytes:
    # Each part of a concatenation fills whole registers of 4 bytes.
    return struct.pack("=I", link.index) + link.name.encode().ljust(IFNAMSIZ, b"\0")
