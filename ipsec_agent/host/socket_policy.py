"""What one socket has of its own: a policy, and the route that it keeps.

Such a policy comes before all others (xfrm_policy.c, xfrm_lookup), and needs CAP_NET_ADMIN as they
do. Without an SA the kernel asks charon for one all the same, and refuses the packet (EAGAIN).
"""

import socket
import struct

from ipsec_agent.errors import KernelError
from ipsec_agent.host.xfrm_messages import INFINITE, LIFETIME_LIMITS, Template, pack_template

IP_XFRM_POLICY, IPV6_XFRM_POLICY = 17, 35
"""linux/in.h, linux/in6.h."""

OUT = 1

_POLICY = struct.Struct("=40xHBBB3xiI8Q4QIIBBBB4x")
"""`struct xfrm_userpolicy_info` of a selector that takes all addresses of a family."""


def require_esp(channel: socket.socket, reqid: int) -> None:
    """Have a socket send by the SAs with this reqid, in transport mode, and not at all without.

    Raises:
        KernelError: the kernel refuses it.
    """
    limits = (INFINITE,) * 4 + (0,) * (len(LIFETIME_LIMITS) - 4)
    policy = _POLICY.pack(
        *(channel.family, 0, 0, 0, 0, 0), *limits, *(0, 0, 0, 0), *(0, 0), *(OUT, 0, 0, 0)
    )
    template = pack_template(Template(family=channel.family, reqid=reqid))
    _set(channel, policy + template)


def forget_route(channel: socket.socket) -> None:
    """Have a connected socket keep no route, and no policy of its own (xfrm_user_policy).

    The kernel looks for a new one where the SA of the kept one has ended, even when the socket is
    closed, and asks charon for an SA (ip4_datagram_release_cb).

    Raises:
        KernelError: the kernel refuses it.
    """
    _set(channel, None)


def _set(channel: socket.socket, policy: bytes | None) -> None:
    four = channel.family == socket.AF_INET
    level = socket.IPPROTO_IP if four else socket.IPPROTO_IPV6
    option = IP_XFRM_POLICY if four else IPV6_XFRM_POLICY
    try:
        if policy is None:
            channel.setsockopt(level, option, None, 0)
        else:
            channel.setsockopt(level, option, policy)
    except OSError as error:
        raise KernelError(
            f"cannot bind a socket to an SA: {error.strerror or error}",
            code=error.errno or 0,
            hint="run as root, or with the capability CAP_NET_ADMIN",
        ) from error
