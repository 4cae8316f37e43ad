"""XFRM messages to and from records: what recorded kernel messages mean."""

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from msgspec.structs import replace

from ipsec_agent.core.model import Direction, PolicySelector
from ipsec_agent.core.observed import Policy, SecurityAssociation
from ipsec_agent.core.sa_details import Sequence
from ipsec_agent.host.xfrm_messages import PolicyId, SaId, Template
from ipsec_agent.host.xfrm_records import (
    POLICY_USED,
    default_blocks,
    matters,
    policy_deletion,
    policy_of,
    state_deletion,
    state_of,
)
from tests.host import xfrm_dumps
from tests.host.xfrm_made import PolicyInfo, SaInfo, pack_templates, read, sent

OUT = PolicySelector(
    Direction.OUT, IPv4Network("10.0.0.1/32"), IPv4Network("10.0.0.0/24"), 17, 53, 99
)


def made_policy(*templates: Template, **fields: int) -> Policy | None:
    """A policy out of fields, as it would come from the kernel."""
    message = PolicyInfo()
    message.update({"sel_family": 2, **fields})
    message["attrs"] = [("XFRMA_TMPL", pack_templates(templates))] if templates else []
    return policy_of(sent(message, 0x13).body)


def test_trap_of_charon() -> None:
    """charon's trap requires ESP, and names the VM's own address and the peers' network."""
    expected = Policy(
        selector=PolicySelector(
            Direction.OUT, IPv4Network("10.9.0.5/32"), IPv4Network("10.9.0.0/24")
        ),
        priority=371328,
        esp=True,
        blocks=False,
        reqid=1,
    )

    found = policy_of(read(xfrm_dumps.TRAP_OUT).body)

    assert found is not None
    assert found.index > 0
    assert found.added > 0
    assert expected == replace(found, index=0, added=0)


def test_trap_of_charon_ipv6() -> None:
    """An IPv6 trap has the peers' network as source, and the VM as destination, on its way in."""
    found = policy_of(read(xfrm_dumps.TRAP_IN_V6).body)

    assert found is not None
    assert found.esp
    assert found.selector == PolicySelector(
        Direction.IN, IPv6Network("fd00:9::/64"), IPv6Network("fd00:9::5/128")
    )


def test_discovery_shunt() -> None:
    """A shunt for an ICMPv6 type has the type as source port, and no template."""
    found = policy_of(read(xfrm_dumps.DISCOVERY_IN).body)

    everything = IPv6Network("::/0")
    assert found is not None
    assert not found.esp
    assert not found.blocks
    assert found.selector == PolicySelector(Direction.IN, everything, everything, 58, 135, 0)


def test_a_sockets_policy_is_left_out() -> None:
    """It holds for what that socket sends only."""
    assert policy_of(read(xfrm_dumps.SOCKET_POLICY).body) is None


@pytest.mark.parametrize(
    ("recorded", "narrowed"),
    [
        (xfrm_dumps.MARKED_OUT, "mark 0x7/0xf, if_id 9"),
        (xfrm_dumps.LINK_BOUND_OUT, "link 3"),
        (xfrm_dumps.BLOCK_OUT, ""),
    ],
)
def test_what_narrows_a_policy(recorded: bytes, narrowed: str) -> None:
    """It says what else packets must have."""
    found = policy_of(read(recorded).body)

    assert found is not None
    assert str(found.narrowed or "") == narrowed


def test_block() -> None:
    """A block policy blocks and requires nothing."""
    found = policy_of(read(xfrm_dumps.BLOCK_OUT).body)

    assert found is not None
    assert (found.blocks, found.esp, found.optional, found.priority) == (True, False, False, 5)


def test_optional() -> None:
    """A policy of level use requires no ESP."""
    found = policy_of(read(xfrm_dumps.OPTIONAL_OUT).body)

    assert found is not None
    assert (found.esp, found.optional, found.reqid) == (False, True, 4)


@pytest.mark.parametrize(
    ("templates", "esp"),
    [
        ((Template(),), True),
        ((Template(protocol=51),), False),
        ((Template(mode=1),), False),
        ((Template(optional=1),), False),
        ((Template(protocol=108, optional=1), Template()), True),
        ((), False),
    ],
)
def test_only_a_required_transport_template_is_esp(
    templates: tuple[Template, ...], *, esp: bool
) -> None:
    """ESP counts where it is ESP, in transport mode, and required."""
    found = made_policy(*templates)

    assert found is not None
    assert esp is found.esp


def test_port_mask() -> None:
    """A port whose mask is 0 is any port."""
    found = made_policy(sel_sport=53, sel_sport_mask=0xFFFF, sel_dport=99, sel_dport_mask=0)

    assert found is not None
    assert (found.selector.source_port, found.selector.destination_port) == (53, 0)


def test_larval_sa() -> None:
    """An SA that waits for IKE has SPI 0."""
    found = state_of(read(xfrm_dumps.LARVAL_SA).body)

    assert found is not None
    assert found.added > 0
    assert found == SecurityAssociation(
        IPv4Address("10.5.0.1"), IPv4Address("10.6.0.3"), spi=0, reqid=1, added=found.added
    )


def test_sa_with_counters() -> None:
    """Counters, times and encapsulation are the kernel's; the SPI reads as charon writes it."""
    message = SaInfo()
    message.update(
        daddr=IPv6Address("fd00::2").packed,
        saddr=IPv6Address("fd00::1").packed,
        spi=0xC1234567,
        proto=50,
        family=10,
        reqid=3,
        bytes=1000,
        packets=10,
        add_time=100,
        use_time=101,
    )
    message["attrs"] = [
        ("XFRMA_ENCAP", {"type": 2, "sport": 4500, "dport": 4500}),
        ("XFRMA_LASTUSED", 200),
    ]

    assert state_of(sent(message).body) == SecurityAssociation(
        source=IPv6Address("fd00::1"),
        destination=IPv6Address("fd00::2"),
        spi=0xC1234567,
        reqid=3,
        bytes=1000,
        packets=10,
        added=100,
        first_used=101,
        last_used=200,
        encapsulated=True,
        between_hosts=False,  # It has no selector.
    )


def attribute(kind: int, *numbers: int) -> bytes:
    """An attribute of 32-bit numbers, as the kernel writes it (struct nlattr)."""
    return struct.pack(f"=HH{len(numbers)}I", 4 + 4 * len(numbers), kind, *numbers)


@pytest.mark.parametrize(
    ("flags", "told", "sequence"),
    [
        (0, b"", Sequence()),
        (0, attribute(10, 7, 0, 0), Sequence(7)),
        (0, attribute(10, 0, 9, 255), Sequence(9)),
        (0, attribute(23, 1, 8, 0, 0, 0, 32, 0), Sequence(8)),
        (128, attribute(23, 1, 8, 0, 2, 0, 32, 0), Sequence((2 << 32) + 8, extended=True)),
        (128, attribute(23, 1, 0, 5, 0, 1, 32, 0), Sequence((1 << 32) + 5, extended=True)),
    ],
)
def test_sequence_numbers(flags: int, told: bytes, sequence: Sequence) -> None:
    """The highest of the direction that the SA has, in both forms that the kernel tells it in."""
    message = SaInfo()
    message.update(spi=0x1000, proto=50, family=2, flags=flags)

    found = state_of(sent(message).body + told)

    assert found is not None
    assert found.sequence == sequence
    assert sequence.used == sequence.newest / (1 << (64 if flags else 32))


@pytest.mark.parametrize(
    ("recorded", "spi"),
    [
        (xfrm_dumps.RESERVED_SA, 0x1001),
        (xfrm_dumps.MARKED_SA, None),
        (xfrm_dumps.INTERFACE_SA, None),
    ],
)
def test_an_sa_that_a_mark_or_an_interface_narrows(recorded: bytes, spi: int | None) -> None:
    """It is somebody else's: none of charon's, and no orphan of an earlier one's."""
    found = state_of(read(recorded).body)

    assert (found and found.spi) == spi


@pytest.mark.parametrize(
    ("changes", "between"),
    [
        ({}, True),
        ({"mode": 1}, False),
        ({"sel_prefixlen_s": 24}, False),
        ({"sel_daddr": IPv4Address("10.0.0.3").packed.ljust(16, b"\0")}, False),
        ({"sel_family": 10}, False),
    ],
)
def test_sa_between_its_two_hosts(changes: dict[str, int | bytes], *, between: bool) -> None:
    """In transport mode, with a selector of exactly its own two addresses."""
    one, other = (IPv4Address(text).packed.ljust(16, b"\0") for text in ("10.0.0.1", "10.0.0.2"))
    message = SaInfo()
    message.update(saddr=one, daddr=other, spi=0x1000, proto=50, family=2, mode=0)
    message.update(sel_saddr=one, sel_daddr=other, sel_family=2)
    message.update({"sel_prefixlen_s": 32, "sel_prefixlen_d": 32, **changes})

    found = state_of(sent(message).body)

    assert found is not None
    assert found.between_hosts is between


def test_the_far_end_of_a_tunnel() -> None:
    """The template of another mode than transport tells it, by the policy's direction."""
    near, far = (IPv4Address(text).packed.ljust(16, b"\0") for text in ("10.0.0.1", "10.0.0.2"))
    tunnel = Template(source=near, destination=far, family=2, mode=1)

    out, into = (made_policy(Template(), tunnel, dir=way) for way in (1, 0))

    assert out is not None
    assert into is not None
    assert (out.tunnel, into.tunnel) == (IPv4Address("10.0.0.2"), IPv4Address("10.0.0.1"))


@pytest.mark.parametrize(("proto", "seen"), [(50, True), (51, False), (108, False)])
def test_only_esp(proto: int, *, seen: bool) -> None:
    """AH and IPComp are none of ours."""
    message = SaInfo()
    message.update(proto=proto, family=2)

    assert seen is (state_of(sent(message).body) is not None)


def test_policy_deletion_by_selector() -> None:
    """The request carries the selector with full port masks."""
    message = policy_deletion(OUT)
    message.encode()
    back = PolicyId(bytes(message.data))
    back.decode()

    assert back["index"] == 0
    assert back["dir"] == 1
    assert back["sel_family"] == 2
    assert (back["sel_sport"], back["sel_sport_mask"]) == (53, 0xFFFF)
    assert (back["sel_dport"], back["sel_dport_mask"]) == (99, 0xFFFF)
    assert back["sel_saddr"] == bytes((10, 0, 0, 1)) + bytes(12)
    assert (back["sel_prefixlen_s"], back["sel_prefixlen_d"], back["sel_proto"]) == (32, 24, 17)


def test_policy_deletion_by_index() -> None:
    """A policy that was read is deleted by its index."""
    assert policy_deletion(Policy(OUT, 1, esp=False, blocks=False, index=9))["index"] == 9


def test_state_deletion() -> None:
    """The request names destination, SPI, protocol and family."""
    message = state_deletion(IPv6Address("fd00::2"), 0xC1234567)
    message.encode()
    back = SaId(bytes(message.data))
    back.decode()

    assert (back["daddr"], back["spi"]) == (IPv6Address("fd00::2").packed, 0xC1234567)
    assert (back["proto"], back["family"]) == (50, 10)


@pytest.mark.parametrize(
    ("recorded", "wakes"),
    [
        (xfrm_dumps.TRAP_OUT, True),
        (xfrm_dumps.POLICY_DELETED, True),
        (xfrm_dumps.POLICY_DELETED_BY_INDEX, True),
        (xfrm_dumps.POLICIES_FLUSHED, True),
        (xfrm_dumps.RESERVED_SA, False),
        (xfrm_dumps.SA_DELETED, True),
        (xfrm_dumps.RESERVED_SA_EXPIRED, True),
        (xfrm_dumps.LARVAL_EXPIRED, False),
    ],
)
def test_events(recorded: bytes, *, wakes: bool) -> None:
    """Larval and new SAs are no reason to wake."""
    assert wakes is matters(*read(recorded))


def test_default_blocks() -> None:
    """The kernel's order is in, forwarded, out."""
    assert default_blocks(bytes((2, 2, 2))) == ()
    assert default_blocks(bytes((2, 1, 2))) == (Direction.FWD,)
    assert default_blocks(bytes((1, 2, 1))) == (Direction.IN, Direction.OUT)


def test_a_packet_makes_no_other_policy() -> None:
    """Of a policy's times only that of its last packet is passed over."""

    def body_of(last_packet: int) -> bytes:
        message = PolicyInfo()
        message["use_time"] = last_packet
        body: bytes = sent(message, 0x13).body
        return body

    body, used = body_of(0), body_of(2**64 - 1)

    assert [at for at, (one, other) in enumerate(zip(body, used, strict=True)) if one != other] == [
        *range(POLICY_USED.start, POLICY_USED.stop)
    ]
