"""The XFRM structures: their sizes, and messages there and back."""

import struct

import pytest

from ipsec_agent.host.xfrm_messages import (
    INFINITE,
    POLICY_ID,
    SA_ID,
    SA_INFO,
    SELECTOR,
    TEMPLATE_SIZE,
    Fields,
    Kind,
    NewSa,
    PolicyId,
    SaId,
    Template,
    packed,
    size,
    unpack_templates,
)
from ipsec_agent.host.xfrm_records import state_of
from tests.host.xfrm_made import SaInfo, pack_templates, read

NETLINK_HEADER = 16
ATTRIBUTE_HEADER = 4


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (SELECTOR, 56),
        (POLICY_ID, 64),
        (SA_INFO, 224),
        (SA_ID, 24),
    ],
)
def test_sizes(fields: Fields, expected: int) -> None:
    """Each structure is as long as the kernel's, pads included."""
    assert expected == size(fields)


def test_template_size() -> None:
    """A template is as long as the kernel's."""
    assert TEMPLATE_SIZE == 64


def test_limits_default_to_none() -> None:
    """An SA whose limits nobody set never expires: each limit is all ones."""
    message = NewSa()
    message.encode()

    limits = struct.unpack_from("=8Q", message.data, NETLINK_HEADER + 96)

    assert limits == (INFINITE,) * 8


@pytest.mark.parametrize("kind", [PolicyId, SaId, NewSa])
def test_empty_messages_encode(kind: type[PolicyId]) -> None:
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


def test_keys_are_never_decoded() -> None:
    """The record of a message with keys has none."""
    key = b"SECRETKEY-SECRETKEY!"
    message = SaInfo()
    message.update(proto=50, family=2)
    message["header"]["type"] = int(Kind.NEW_SA)
    message.encode()
    for number in (1, 2, 3, 18, 20):
        message.data += struct.pack("=HH", ATTRIBUTE_HEADER + len(key), number) + key
    struct.pack_into("=I", message.data, 0, len(message.data))

    shown = repr(state_of(read(bytes(message.data)).body))

    assert "SECRET" not in shown
    assert key.hex() not in shown


def test_what_is_sent_has_no_header() -> None:
    """The wire puts its own before it."""
    message = PolicyId()
    message["index"] = 7

    body = packed(message)

    assert len(body) == size(POLICY_ID)
    assert bytes(message.data)[NETLINK_HEADER:] == body
