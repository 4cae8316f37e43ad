"""A policy of one socket's own: what it sends is ESP by an SA that is there, or is not sent.

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
    four = channel.family == socket.AF_INET
    limits = (INFINITE,) * 4 + (0,) * (len(LIFETIME_LIMITS) - 4)
    policy = _POLICY.pack(
        *(channel.family, 0, 0, 0, 0, 0), *limits, *(0, 0, 0, 0), *(0, 0), *(OUT, 0, 0, 0)
    )
    template = pack_template(Template(family=channel.family, reqid=reqid))
    level = socket.IPPROTO_IP if four else socket.IPPROTO_IPV6
    option = IP_XFRM_POLICY if four else IPV6_XFRM_POLICY
    try:
        channel.setsockopt(level, option, policy + template)
    except OSError as error:
        raise KernelError(
            f"cannot bind a socket to an SA: {error.strerror or error}",
            code=error.errno or 0,
            hint="run as root, or with the capability CAP_NET_ADMIN",
        ) from error
