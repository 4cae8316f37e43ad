"""The XFRM structures: their sizes, and messages there and back."""

import struct

import pytest

from ipsec_agent.host.xfrm_messages import (
    INFINITE,
    POLICY_ID,
    POLICY_INFO,
    SA_ID,
    SA_INFO,
    SELECTOR,
    TEMPLATE_SIZE,
    Fields,
    Kind,
    PolicyId,
    PolicyInfo,
    SaExpire,
    SaId,
    SaInfo,
    Template,
    XfrmMarshal,
    pack_templates,
    size,
    unpack_templates,
)
from tests.host import xfrm_dumps

NETLINK_HEADER = 16
ATTRIBUTE_HEADER = 4


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (SELECTOR, 56),
        (POLICY_INFO, 168),
        (POLICY_ID, 64),
        (SA_INFO, 224),
        (SA_ID, 24),
        (SaExpire.fields, 232),
    ],
)
def test_sizes(fields: Fields, expected: int) -> None:
    """Each structure is as long as the kernel's, pads included."""
    assert expected == size(fields)


def test_template_size() -> None:
    """A template is as long as the kernel's."""
    assert TEMPLATE_SIZE == 64


def test_policy_there_and_back() -> None:
    """What is written into a policy is read from its bytes."""
    message = PolicyInfo()
    message["header"]["type"] = int(Kind.NEW_POLICY)
    values = {
        "sel_daddr": bytes(range(16)),
        "sel_saddr": bytes(range(16, 32)),
        "sel_dport": 0x0102,
        "sel_dport_mask": 0xFFFF,
        "sel_sport": 0x0304,
        "sel_sport_mask": 0xFF00,
        "sel_family": 10,
        "sel_prefixlen_d": 64,
        "sel_prefixlen_s": 128,
        "sel_proto": 58,
        "sel_ifindex": -1,
        "sel_user": 9,
        "soft_byte_limit": 11,
        "priority": 0x01020304,
        "index": 5,
        "dir": 2,
        "action": 1,
        "flags": 3,
        "share": 4,
    }
    message.update(values)
    message["attrs"] = [("XFRMA_TMPL", pack_templates((Template(reqid=7), Template(optional=1))))]
    message.encode()

    back = PolicyInfo(bytes(message.data))
    back.decode()

    assert values == {name: back[name] for name in values}
    assert (Template(reqid=7), Template(optional=1)) == unpack_templates(
        back.get_attr("XFRMA_TMPL")
    )
    assert len(message.data) == NETLINK_HEADER + 168 + ATTRIBUTE_HEADER + 2 * 64


def test_limits_default_to_none() -> None:
    """A policy whose limits nobody set never expires: each limit is all ones."""
    message = PolicyInfo()
    message.encode()

    limits = struct.unpack_from("=8Q", message.data, NETLINK_HEADER + 56)

    assert limits == (INFINITE,) * 8


@pytest.mark.parametrize("kind", [PolicyInfo, PolicyId, SaInfo, SaId, SaExpire])
def test_empty_messages_encode(kind: type[PolicyInfo]) -> None:
    """Every message has a default for every field."""
    message = kind()
    message.encode()

    assert NETLINK_HEADER + size(kind.fields) == len(message.data)


def test_wire_order() -> None:
    """Ports and SPI travel in network order, the family in the machine's."""
    policy = PolicyId()
    policy["sel_dport"], policy["sel_family"] = 0x0102, 10
    policy.encode()
    sa = SaId()
    sa["spi"] = 0x01020304
    sa.encode()

    assert policy.data[NETLINK_HEADER + 32 : NETLINK_HEADER + 34] == b"\x01\x02"
    assert policy.data[NETLINK_HEADER + 40 : NETLINK_HEADER + 42] == struct.pack("=H", 10)
    assert sa.data[NETLINK_HEADER + 16 : NETLINK_HEADER + 20] == b"\x01\x02\x03\x04"


def test_template_fields() -> None:
    """A template is read field by field; the rest of a torn one is ignored."""
    template = Template(
        destination=bytes(range(16)),
        spi=0x01020304,
        protocol=51,
        family=2,
        source=bytes(range(16, 32)),
        reqid=9,
        mode=1,
        share=2,
        optional=1,
        authentication=3,
        encryption=4,
        compression=5,
    )

    data = pack_templates((template,))

    assert (template,) == unpack_templates(data + b"torn")
    assert data[16:21] == b"\x01\x02\x03\x04\x33"
    assert data[28:44] == bytes(range(16, 32))
    assert data[50] == 1


@pytest.mark.parametrize(
    "recorded",
    [
        xfrm_dumps.TRAP_OUT,
        xfrm_dumps.TRAP_IN_V6,
        xfrm_dumps.DISCOVERY_IN,
        xfrm_dumps.BLOCK_OUT,
        xfrm_dumps.OPTIONAL_OUT,
    ],
)
def test_recorded_policy_body_there_and_back(recorded: bytes) -> None:
    """Reading a kernel's policy and writing it again gives the kernel's bytes."""
    message = PolicyInfo(recorded)
    message.decode()
    again = PolicyInfo()
    again.update({name: message[name] for name, form in POLICY_INFO if "x" not in form})
    again.encode()

    body = slice(NETLINK_HEADER, NETLINK_HEADER + 168)
    assert recorded[body] == bytes(again.data)[body]


def test_recorded_sa_body_there_and_back() -> None:
    """Reading a kernel's SA and writing it again gives the kernel's bytes."""
    message = SaInfo(xfrm_dumps.LARVAL_SA)
    message.decode()
    again = SaInfo()
    again.update({name: message[name] for name, form in SA_INFO if "x" not in form})
    again.encode()

    # Up to the flags: the seven bytes of the pad are the kernel's own.
    body = slice(NETLINK_HEADER, NETLINK_HEADER + 217)
    assert xfrm_dumps.LARVAL_SA[body] == bytes(again.data)[body]


def test_keys_are_never_decoded() -> None:
    """A message with keys shows none: pyroute2 logs whole messages at debug level."""
    key = b"SECRETKEY-SECRETKEY!"
    message = SaInfo()
    message.encode()
    for number in (1, 2, 3, 18, 20):
        message.data += struct.pack("=HH", ATTRIBUTE_HEADER + len(key), number) + key
    struct.pack_into("=I", message.data, 0, len(message.data))

    read = SaInfo(bytes(message.data))
    read.decode()

    shown = repr(read) + str([read.get_attr(name) for name, _ in read["attrs"]])
    assert len(read["attrs"]) == 5
    assert "SECRET" not in shown
    assert key.hex() not in shown.replace(":", "")


def test_unknown_kinds_are_bare_headers() -> None:
    """A message type that nobody reads is no error."""
    found = list(XfrmMarshal().parse(xfrm_dumps.POLICIES_FLUSHED))

    assert [message["header"]["type"] for message in found] == [Kind.FLUSH_POLICY]
    assert found[0]["header"]["error"] is None
