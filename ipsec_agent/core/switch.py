"""A setting of the kernel that takes IPsec from packets, as a record."""

import enum

from msgspec import Struct


class SwitchKind(enum.StrEnum):
    """A setting that takes IPsec from packets (the kernel's ip-sysctl.rst).

    With the first no policy is asked for what leaves by a link, with the other none for what
    arrives there.
    """

    DISABLE_XFRM = "disable_xfrm"
    DISABLE_POLICY = "disable_policy"


class Switch(Struct, frozen=True):
    """A setting that is on.

    Attributes:
        family: 4 or 6.
        link: name of the link, or `all`.
        path: as sysctl(8) takes it, such as net/ipv4/conf/eth0/disable_xfrm.
    """

    kind: SwitchKind
    family: int
    link: str
    path: str
