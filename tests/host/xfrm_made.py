"""Messages as a kernel would send them, out of fields; written with pyroute2, read by nobody."""

import struct
from typing import Any, ClassVar, NamedTuple

from ipsec_agent.host.pyroute2_parts import nla, nlmsg
from ipsec_agent.host.rtnetlink import messages
from ipsec_agent.host.xfrm_messages import (
    LIFETIME_LIMITS,
    LIFETIME_NOW,
    NO_ADDRESS,
    SA_INFO,
    SELECTOR,
    Fields,
    Template,
)

POLICY_INFO: Fields = (
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
DEFAULTS = dict.fromkeys(("sel_daddr", "sel_saddr", "daddr", "saddr"), NO_ADDRESS)


class Message(NamedTuple):
    """A message as the agent has it."""

    kind: int
    body: bytes


class _Attributes:
    prefix = "XFRMA_"
    nla_map = (
        (4, "XFRMA_ENCAP", "encapsulation"),
        (5, "XFRMA_TMPL", "cdata"),
        (15, "XFRMA_LASTUSED", "uint64"),
        (21, "XFRMA_MARK", "mark"),
        (31, "XFRMA_IF_ID", "uint32"),
    )

    class encapsulation(nla):  # noqa: N801 - pyroute2 finds it by the name in nla_map
        """`struct xfrm_encap_tmpl`."""

        fields = (("type", "H"), ("sport", ">H"), ("dport", ">H"), ("__pad", "2x"), ("oa", "16s"))
        defaults: ClassVar = {"oa": NO_ADDRESS}

    class mark(nla):  # noqa: N801 - pyroute2 finds it by the name in nla_map
        """`struct xfrm_mark`."""

        fields = (("mark", "I"), ("mask", "I"))


class PolicyInfo(_Attributes, nlmsg):
    """A policy."""

    fields = POLICY_INFO
    defaults = DEFAULTS


class SaInfo(_Attributes, nlmsg):
    """An SA."""

    fields = SA_INFO
    defaults = DEFAULTS


class SaExpire(_Attributes, nlmsg):
    """An SA that reached a limit."""

    fields = (*SA_INFO, ("hard", "B"), ("__pad_hard", "7x"))
    defaults = DEFAULTS


def read(recorded: bytes) -> Message:
    """The one message in some bytes, as the agent reads it."""
    found = [Message(kind, body) for kind, _, body in messages(recorded)]
    assert len(found) == 1
    return found[0]


def sent(message: Any, kind: int = 0x10) -> Message:
    """A message of that type as the agent reads it."""
    message["header"]["type"] = kind
    message.encode()
    return read(bytes(message.data))


def pack_templates(templates: tuple[Template, ...]) -> bytes:
    """The bytes of an XFRMA_TMPL."""
    form = struct.Struct("=16s4sB3xH2x16sIBBBxIII")
    return b"".join(
        form.pack(template.destination, template.spi.to_bytes(4, "big"), *template[2:])
        for template in templates
    )
