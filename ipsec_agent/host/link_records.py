"""What the kernel says of links, of this namespace or of another one on this VM, as records.

Another namespace is asked about by its number (IFLA_TARGET_NETNSID), without entering it: that
needs CAP_NET_ADMIN, where entering needs CAP_SYS_ADMIN. Formats: linux/if_link.h.
"""

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from msgspec.structs import replace

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import Link, Tunnel
from ipsec_agent.host.rtnetlink import (
    AF_BRIDGE,
    IFINFO,
    NDMSG,
    NETNSA_FD,
    NETNSA_NSID,
    RTGEN,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETNSID,
    ask,
    attribute,
    attributes,
    dump,
    number,
)
from ipsec_agent.host.understood import as_told
from ipsec_agent.host.veth import namespace_files

IFF_UP, IFF_LOOPBACK = 0x1, 0x8
IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 3, 4, 5, 10
IFLA_LINKINFO, IFLA_EXT_MASK, IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 18, 29, 37, 46
IFLA_PROP_LIST, IFLA_ALT_IFNAME = 52, 53
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
SKIP_STATS = 1 << 3
NDA_DST = 1
PORTS = {"vxlan": 15, "geneve": 5}
"""IFLA_VXLAN_PORT and IFLA_GENEVE_PORT, in the order of the network."""

VXLAN = "vxlan"

# By kind: attributes with the source, with the far end, and the one that leaves both to each
# packet (linux/if_link.h, linux/if_tunnel.h). A wireguard link tells nothing here.
_VXLAN = ((4, 17), (2, 16), 25)
_GENEVE = ((), (2, 7), 6)
_GRE = ((6,), (7,), 18)
_IPTUN = ((2,), (3,), 19)
_TUNNELS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    VXLAN: _VXLAN,
    "geneve": _GENEVE,
    **dict.fromkeys(("gre", "gretap", "ip6gre", "ip6gretap"), _GRE),
    **dict.fromkeys(("ipip", "ip6tnl", "sit"), _IPTUN),
    "wireguard": ((), (), 0),
}


def read_links(channel: socket.socket, namespace: int | None = None) -> tuple[Link, ...]:
    """The links of this namespace, or of another one by its number.

    Whichever is asked about, numbers of namespaces in the answer are those of this one (seen, Linux
    6.1 and 6.18).

    Raises:
        OSError: refused, too late, or there is no such namespace.
    """
    body = IFINFO.pack(0, 0, 0, 0, 0) + attribute(IFLA_EXT_MASK, SKIP_STATS)
    if namespace is not None:
        body += attribute(IFLA_TARGET_NETNSID, namespace)
    links = tuple(link_of(payload, namespace) for payload in dump(channel, RTM_GETLINK, body))
    if namespace is not None or not any(link.kind == VXLAN for link in links):
        return links
    return tuple(
        replace(link, tunnel=_with_peers(link.tunnel, _far_ends(channel, link.index)))
        if link.kind == VXLAN and link.tunnel is not None
        else link
        for link in links
    )


def read_numbers(channel: socket.socket) -> frozenset[int]:
    """The numbers that this namespace has for others, and perhaps for itself.

    Args:
        channel: has been read from, or the kernel's list ends after some 130 (seen, Linux 6.18: it
            fills one buffer, whose size it takes from the last reading).

    Raises:
        OSError: refused, or too late.
    """
    listed = (
        dict(attributes(payload[RTGEN.size :]))
        for payload in dump(channel, RTM_GETNSID, RTGEN.pack(0))
    )
    return frozenset(number(found[NETNSA_NSID]) for found in listed if NETNSA_NSID in found)


def read_own_number(channel: socket.socket) -> int | None:
    """The number by which this namespace counts itself, None where it has none.

    Raises:
        OSError: refused, or too late.
    """
    found = _number_of(channel, Path("/proc/thread-self/ns/net"))
    return found if found >= 0 else None


def namespace_names(channel: socket.socket, numbers: Iterable[int]) -> dict[int, str]:
    """What operators call namespaces: as ip-netns(8) does, or by a process in it.

    It looks at every process of the VM, so ask for few, and seldom.
    """
    wanted = set(numbers)
    names: dict[int, str] = {}
    for path in namespace_files() if wanted else ():
        if wanted <= names.keys():
            break
        with suppress(OSError):
            found = _number_of(channel, path)
            if found in wanted:
                names.setdefault(found, _name_of(path))
    return names


def link_of(payload: bytes, namespace: int | None = None) -> Link:
    """A link from an answer's fixed part and attributes.

    Raises:
        OSError: it is not of the namespace that was asked for, or is no link's.
    """
    with as_told():
        return _link_of(payload, namespace)


def _link_of(payload: bytes, namespace: int | None) -> Link:
    _, _, index, flags, _ = IFINFO.unpack_from(payload)
    found = dict(attributes(payload[IFINFO.size :]))
    if namespace is not None and _maybe(found, IFLA_TARGET_NETNSID) != namespace:
        # A kernel before 4.20 does not know the request, and answers for its own.
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))
    kind = _text(info.get(IFLA_INFO_KIND, b""))
    return Link(
        index=index,
        name=_text(found[IFLA_IFNAME]),
        mtu=number(found[IFLA_MTU]),
        up=bool(flags & IFF_UP),
        kind=kind,
        master=_maybe(found, IFLA_MASTER) or 0,
        lower=_maybe(found, IFLA_LINK) or 0,
        namespace=_maybe(found, IFLA_LINK_NETNSID),
        tunnel=_tunnel(kind, info.get(IFLA_INFO_DATA, b"")),
        port=_port(kind, dict(attributes(info.get(IFLA_INFO_DATA, b"")))),
        loopback=bool(flags & IFF_LOOPBACK),
        altnames=tuple(
            _text(value)
            for what, value in attributes(found.get(IFLA_PROP_LIST, b""))
            if what == IFLA_ALT_IFNAME
        ),
    )


def _tunnel(kind: str, data: bytes) -> Tunnel | None:
    if kind not in _TUNNELS:
        return None
    sources, remotes, each_packet = _TUNNELS[kind]
    found = dict(attributes(data))
    # A flag of no bytes, or a byte that says so.
    if found.get(each_packet, b"\0") != b"\0":
        return None
    source = next(_addresses(found, sources), None)
    return Tunnel(source, tuple(_addresses(found, remotes)), _port(kind, found))


def _port(kind: str, found: dict[int, bytes]) -> int:
    return int.from_bytes(found.get(PORTS[kind], b"")) if kind in PORTS else 0


def _addresses(found: dict[int, bytes], kinds: Iterable[int]) -> Iterator[Address]:
    for kind in kinds:
        if len(found.get(kind, b"")) in {4, 16}:
            address = ip_address(found[kind])
            if not address.is_unspecified:
                yield address


def _far_ends(channel: socket.socket, index: int) -> Iterator[Address]:
    """Where a vxlan sends to, by its forwarding database."""
    request = NDMSG.pack(AF_BRIDGE, index, 0, 0, 0)
    for payload in dump(channel, RTM_GETNEIGH, request):
        with as_told():
            of = NDMSG.unpack_from(payload)[1]
        if of == index:
            yield from _addresses(dict(attributes(payload[NDMSG.size :])), (NDA_DST,))


def _with_peers(tunnel: Tunnel, peers: Iterable[Address]) -> Tunnel:
    return replace(tunnel, remotes=tuple(dict.fromkeys((*tunnel.remotes, *peers))))


def _number_of(channel: socket.socket, path: Path) -> int:
    with path.open("rb") as there:
        request = RTGEN.pack(0) + attribute(NETNSA_FD, there.fileno())
        answer = ask(channel, RTM_GETNSID, request)
        with as_told():
            return number(answer[NETNSA_NSID])


def _name_of(path: Path) -> str:
    if path.parts[:2] != ("/", "proc"):
        return path.name
    pid = path.parts[2]
    return f"{Path('/proc', pid, 'comm').read_text(errors='replace').strip()}, pid {pid}"


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _maybe(found: dict[int, bytes], kind: int) -> int | None:
    return number(found[kind]) if kind in found else None
