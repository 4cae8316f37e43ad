"""Requests to the kernel's XFRM as pyroute2 message classes, and its answers as raw bytes.

pyroute2 0.9 has none of these. Layouts: linux/xfrm.h. pyroute2 packs fields without alignment, so
each pad is written out. What the kernel sends is not decoded here: a VM with 1,000 peers has 3,000
policies, and to read their fields one by one took pyroute2 140 ms (xfrm_records.py).
"""

import enum
import struct
from typing import Any, ClassVar, NamedTuple

from ipsec_agent.host.pyroute2_parts import nla, nlmsg


class Kind(enum.IntEnum):
    """Message types (linux/xfrm.h: XFRM_MSG_*)."""

    NEW_SA = 0x10
    DELETE_SA = 0x11
    GET_SA = 0x12
    NEW_POLICY = 0x13
    DELETE_POLICY = 0x14
    GET_POLICY = 0x15
    ACQUIRE = 0x17
    EXPIRE = 0x18
    UPDATE_POLICY = 0x19
    UPDATE_SA = 0x1A
    POLICY_EXPIRE = 0x1B
    FLUSH_SA = 0x1C
    FLUSH_POLICY = 0x1D
    GET_DEFAULT = 0x28


class Group(enum.IntEnum):
    """Multicast groups (linux/xfrm.h: XFRMNLGRP_*)."""

    EXPIRE = 2
    SA = 3
    POLICY = 4


NETLINK_XFRM = 6
INFINITE = 2**64 - 1
NO_ADDRESS = bytes(16)

Fields = tuple[tuple[str, str], ...]

# Addresses are 16 bytes in both families; IPv4 uses the first four.
SELECTOR: Fields = (
    ("sel_daddr", "16s"),
    ("sel_saddr", "16s"),
    ("sel_dport", ">H"),
    ("sel_dport_mask", ">H"),
    ("sel_sport", ">H"),
    ("sel_sport_mask", ">H"),
    ("sel_family", "H"),
    ("sel_prefixlen_d", "B"),
    ("sel_prefixlen_s", "B"),
    ("sel_proto", "B"),
    ("__pad_selector", "3x"),
    ("sel_ifindex", "i"),
    ("sel_user", "I"),
)
LIFETIME_LIMITS: Fields = (
    ("soft_byte_limit", "Q"),
    ("hard_byte_limit", "Q"),
    ("soft_packet_limit", "Q"),
    ("hard_packet_limit", "Q"),
    ("soft_add_expires_seconds", "Q"),
    ("hard_add_expires_seconds", "Q"),
    ("soft_use_expires_seconds", "Q"),
    ("hard_use_expires_seconds", "Q"),
)
LIFETIME_NOW: Fields = (("bytes", "Q"), ("packets", "Q"), ("add_time", "Q"), ("use_time", "Q"))
POLICY_ID: Fields = (*SELECTOR, ("index", "I"), ("dir", "B"), ("__pad", "3x"))
SA_INFO: Fields = (
    *SELECTOR,
    ("daddr", "16s"),
    ("spi", ">I"),
    ("proto", "B"),
    ("__pad_id", "3x"),
    ("saddr", "16s"),
    *LIFETIME_LIMITS,
    *LIFETIME_NOW,
    ("replay_window_errors", "I"),
    ("replay_errors", "I"),
    ("integrity_failed", "I"),
    ("seq", "I"),
    ("reqid", "I"),
    ("family", "H"),
    ("mode", "B"),
    ("replay_window", "B"),
    ("flags", "B"),
    ("__pad", "7x"),
)
SA_ID: Fields = (
    ("daddr", "16s"),
    ("spi", ">I"),
    ("family", "H"),
    ("proto", "B"),
    ("__pad", "1x"),
)

_DEFAULTS: dict[str, bytes | int] = {
    "sel_daddr": NO_ADDRESS,
    "sel_saddr": NO_ADDRESS,
    "daddr": NO_ADDRESS,
    "saddr": NO_ADDRESS,
    # A limit of 0 would be over at once; all ones means none.
    **{name: INFINITE for name, _ in LIFETIME_LIMITS},
}

_SECONDS = [name for name, _ in LIFETIME_LIMITS if name.endswith("seconds")]


def size(fields: Fields) -> int:
    """Bytes that a structure takes on the wire."""
    return sum(struct.calcsize(form) for _, form in fields)


HEADER = struct.calcsize("=IHHII")
"""Bytes of netlink's own before a body (linux/netlink.h)."""


class Template(NamedTuple):
    """One `struct xfrm_user_tmpl`: what a packet must have gone through.

    Attributes:
        destination, source: 16 bytes, all zero for any.
        spi: 0 for any.
        protocol: 50 is ESP.
        mode: 0 is transport.
        optional: 1 where a packet may come without it (level use).
    """

    destination: bytes = NO_ADDRESS
    spi: int = 0
    protocol: int = 50
    family: int = 0
    source: bytes = NO_ADDRESS
    reqid: int = 0
    mode: int = 0
    share: int = 0
    optional: int = 0
    authentication: int = 2**32 - 1
    encryption: int = 2**32 - 1
    compression: int = 2**32 - 1


# In native order but for the SPI, which Template.spi turns over: struct knows one order per format.
_TEMPLATE = struct.Struct("=16s4sB3xH2x16sIBBBxIII")
TEMPLATE_SIZE = _TEMPLATE.size


def unpack_templates(data: bytes) -> tuple[Template, ...]:
    """The templates of an XFRMA_TMPL, an array without headers."""
    whole = len(data) - len(data) % TEMPLATE_SIZE
    return tuple(
        Template(destination, int.from_bytes(spi, "big"), *rest)
        for destination, spi, *rest in _TEMPLATE.iter_unpack(data[:whole])
    )


def pack_template(template: Template) -> bytes:
    """A template as the kernel has it."""
    destination, spi, *rest = template
    return _TEMPLATE.pack(destination, spi.to_bytes(4, "big"), *rest)


_ALGORITHM = struct.Struct("=64sI")
_ALGORITHM_WITH_ICV = struct.Struct("=64sII")
_EXTENDED_WINDOW = struct.Struct("=7I")


def pack_algorithm(name: str, key: bytes, icv: int | None = None) -> bytes:
    """`struct xfrm_algo`, or `xfrm_algo_aead` and `xfrm_algo_auth`, which tell the ICV's bits."""
    start = name.encode(), len(key) * 8
    packed = _ALGORITHM.pack(*start) if icv is None else _ALGORITHM_WITH_ICV.pack(*start, icv)
    return packed + key


def pack_extended_window() -> bytes:
    """`struct xfrm_replay_state_esn` of a new SA, with the smallest window: 32 packets."""
    return _EXTENDED_WINDOW.pack(1, 0, 0, 0, 0, 32, 0)


class PolicyId(nlmsg):
    """`struct xfrm_userpolicy_id`: which policy to delete."""

    fields = POLICY_ID
    defaults = _DEFAULTS


class NewPolicy(nlmsg):
    """`struct xfrm_userpolicy_info` of a policy to put in place; its action is 0, which allows."""

    fields = (
        *SELECTOR,
        *LIFETIME_LIMITS,
        *LIFETIME_NOW,
        ("priority", "I"),
        ("index", "I"),
        ("dir", "B"),
        ("action", "B"),
        ("flags", "B"),
        ("share", "B"),
        ("__pad", "4x"),
    )
    # Of seconds 0 is without limit; all ones would be over at once (xfrm_policy_timer).
    defaults = _DEFAULTS | dict.fromkeys(_SECONDS, 0)
    prefix = "XFRMA_"
    nla_map = ((5, "XFRMA_TMPL", "cdata"),)


class SaId(nlmsg):
    """`struct xfrm_usersa_id`: which SA to delete."""

    fields = SA_ID
    defaults = _DEFAULTS


class NewSa(nlmsg):
    """`struct xfrm_usersa_info` of an SA to add, with its keys; nothing is read with it."""

    fields = SA_INFO
    defaults = _DEFAULTS
    prefix = "XFRMA_"
    nla_map = (
        (2, "XFRMA_ALG_CRYPT", "cdata"),
        (4, "XFRMA_ENCAP", "encapsulation"),
        (18, "XFRMA_ALG_AEAD", "cdata"),
        (20, "XFRMA_ALG_AUTH_TRUNC", "cdata"),
        (23, "XFRMA_REPLAY_ESN_VAL", "cdata"),
    )

    class encapsulation(nla):  # noqa: N801 - pyroute2 finds it by the name in nla_map
        """`struct xfrm_encap_tmpl`: ESP in UDP."""

        fields = (
            ("type", "H"),
            ("sport", ">H"),
            ("dport", ">H"),
            ("__pad", "2x"),
            ("original", "16s"),
        )
        defaults: ClassVar = {"original": NO_ADDRESS}


DEFAULT_REQUEST = bytes(3)
"""Asks what becomes of a packet that no policy selects; without this body the kernel refuses
(struct xfrm_userpolicy_default)."""


def packed(message: Any) -> bytes:
    """The body of one of these messages, with its attributes, as it is sent."""
    message.encode()
    return bytes(message.data[HEADER:])
