"""Whatever the kernel, charon or a program says, a decoder raises its documented error at the most.

Random bytes, and real messages with a few bytes or values changed.
"""

import asyncio
import contextlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vici.protocol import Message, Packet

from ipsec_agent.core.charon_log import Said, counterpart, explain
from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import CharonError, CharonStartError, KernelError
from ipsec_agent.host import link_events, nft_wire, peers, rtnetlink
from ipsec_agent.host.charon import CharonClient, said_by
from ipsec_agent.host.decoded import Decoded
from ipsec_agent.host.essential_addresses import read_essential_addresses
from ipsec_agent.host.ike_ports import IkePortsReader
from ipsec_agent.host.link_events import RTM_NEWNSID
from ipsec_agent.host.link_records import link_of, read_links, read_numbers
from ipsec_agent.host.loaded import LoadedRecord
from ipsec_agent.host.nft_events import Transactions
from ipsec_agent.host.nft_image import GET_CHAIN, GET_RULE, GET_SET
from ipsec_agent.host.nft_tables import GET_FLOWTABLES, _tables, _told
from ipsec_agent.host.route_records import matters as may_change_addresses
from ipsec_agent.host.route_records import read_addresses, read_default_hops
from ipsec_agent.host.systemd import UnitState, state_of
from ipsec_agent.host.vici_wire import ViciConnection
from ipsec_agent.host.xfrm_messages import Kind
from ipsec_agent.host.xfrm_records import default_blocks, matters, policy_of, records
from ipsec_agent.host.xfrm_records import state_of as sa_of
from ipsec_agent.host.xfrm_stat import stats
from tests.examples import examples
from tests.host import xfrm_dumps
from tests.host.mutate import messages, texts
from tests.host.nft_tables_made import guard, packed
from tests.host.test_ike_ports import WELL, lay
from tests.host.test_link_records import answer, attribute, info

quick = settings(max_examples=examples(120), deadline=None)

# --- charon -----------------------------------------------------------------------------------

SA = {
    "ipsec": {
        "uniqueid": "2", "state": "ESTABLISHED", "established": "9", "initiator": "yes",
        "local-host": "10.7.0.1", "remote-host": "10.7.0.2",
        "child-sas": {
            "c-3": {
                "name": "c", "uniqueid": "3", "reqid": "1", "spi-in": "c319875e", "bytes-in": "84",
                "mode": "TRANSPORT", "local-ts": ["10.7.0.1/32"],
                "remote-ts": ["10.7.0.0..10.7.0.9[tcp/80]"],
            }
        },
    }
}  # fmt: skip
ANSWERS = (
    SA,
    {"version": "5.9.8", "plugins": ["vici", "x509"]},
    {"authorities": ["ca"], "keys": ["a0b1"]},
    {"ipsec": {"children": {"c": {"mode": "TRANSPORT"}}}},
    {"success": "no", "errmsg": "no such thing"},
    {"version": {"a": "b"}, "plugins": "x", "authorities": "x", "keys": {"a": "b"}},
    {"success": {"a": "b"}, "errmsg": ["x"], "group": ["IKE"], "level": "one", "msg": {"a": "b"}},
    {"ipsec": {"uniqueid": "two", "children": "x", "child-sas": "x"}},
    {"ipsec": {"child-sas": {"c": {"spi-in": "xyz", "local-ts": "10.0.0.1", "reqid": ["1"]}}}},
    {"ipsec": "x", "success": "yes"},
)  # fmt: skip
BODIES = messages(*(Message.serialize(one) for one in ANSWERS))


class Nowhere(asyncio.WriteTransport):
    """A transport with nothing in it."""

    def abort(self) -> None:
        """Have nothing to drop."""


NOWHERE = Nowhere()


class Deaf(asyncio.StreamWriter):
    """A writer whose words nobody hears."""

    def __init__(self) -> None:
        """Have a transport that leads nowhere."""

    @property
    def transport(self) -> asyncio.WriteTransport:
        """What can be aborted."""
        return NOWHERE

    def write(self, data: Any) -> None:
        """Say nothing."""

    async def drain(self) -> None:
        """Have nothing to wait for."""

    def close(self) -> None:
        """Have nothing to close."""

    def __del__(self) -> None:
        """Leave nothing behind."""


def framed(content: bytes) -> bytes:
    """A frame with its length."""
    return struct.pack("!I", len(content)) + content


async def asked(question: str, sent: bytes) -> None:
    """Have a client ask, and charon send these bytes whatever was asked."""
    reader = asyncio.StreamReader()
    reader.feed_data(sent)
    reader.feed_eof()
    vici = ViciConnection(reader, Deaf(), 5.0)
    with contextlib.suppress(CharonError):
        if question == "listen":
            async for _, body in vici.listen(("log",)):
                assert isinstance(said_by(body), Said)
        else:
            assert isinstance(await getattr(CharonClient(vici), question)(), str | tuple)


QUESTIONS = ("version", "plugins", "authorities", "keys", "connections", "sas", "listen")


def said_to(question: str, body: bytes) -> None:
    """Have charon answer a question with this body."""
    confirmed = framed(bytes([Packet.EVENT_CONFIRM]))
    event = framed(bytes([Packet.EVENT, 3]) + b"log" + body)
    if question in {"connections", "sas", "listen"}:
        asyncio.run(asked(question, confirmed + event + framed(bytes([Packet.CMD_RESPONSE]))))
    else:
        asyncio.run(asked(question, event + framed(bytes([Packet.CMD_RESPONSE]) + body)))


@pytest.mark.parametrize("question", QUESTIONS)
def test_vici_answers_to_another_question(question: str) -> None:
    """An answer whose values are of another kind than they should be."""
    for one in ANSWERS:
        said_to(question, Message.serialize(one))


@pytest.mark.parametrize("question", QUESTIONS)
@quick
@given(body=BODIES)
def test_vici_answers(question: str, body: bytes) -> None:
    """An answer that is VICI, or nearly, but says what none of charon's says."""
    said_to(question, body)


@pytest.mark.parametrize("question", QUESTIONS)
@quick
@given(
    sent=messages(
        framed(bytes([Packet.EVENT_CONFIRM]))
        + framed(bytes([Packet.EVENT, 3]) + b"log" + Message.serialize(SA))
        + framed(bytes([Packet.CMD_RESPONSE])),
        framed(bytes([Packet.CMD_RESPONSE]) + Message.serialize(SA)),
    )
)
def test_vici_frames(question: str, sent: bytes) -> None:
    """Bytes that are frames, or nearly."""
    asyncio.run(asked(question, sent))


@quick
@given(st.text(max_size=200), st.sampled_from(("IKE", "KNL", "CFG", "NET", "")))
def test_charon_log(text: str, group: str) -> None:
    """Any line of charon's log."""
    for line in (text, f"received packet: from {text}[500] to {text}", f"peer {text} is silent"):
        said = Said(group=group, level=1, text=line)
        explain(said)
        assert isinstance(counterpart(said), str)


# --- the kernel -------------------------------------------------------------------------------

DUMPS = tuple(
    value[16:]
    for name, value in sorted(vars(xfrm_dumps).items())
    if name.isupper() and isinstance(value, bytes)
)


@settings(max_examples=examples(400), deadline=None)
@given(messages(*DUMPS), st.sampled_from((*Kind, 0, 99)))
def test_xfrm(body: bytes, kind: int) -> None:
    """Policies, SAs, the default and events."""
    for decode in (policy_of, sa_of):
        with contextlib.suppress(KernelError):
            assert isinstance(records(Decoded[Any](decode), [body]), tuple)
    with contextlib.suppress(KernelError):
        default_blocks(body)
    with contextlib.suppress(KernelError):
        assert isinstance(matters(kind, body), bool)


class Kernel:
    """A netlink socket on which these datagrams come, and then nothing until the deadline."""

    def __init__(self, *datagrams: bytes) -> None:
        self._datagrams = list(datagrams)

    def send(self, _request: bytes) -> None:
        """Ask."""

    def recv(self, _size: int) -> bytes:
        """Hear, or raise TimeoutError."""
        if not self._datagrams:
            raise TimeoutError
        return self._datagrams.pop(0)


def netlink(kind: int, body: bytes, flags: int = 0) -> bytes:
    """A message with its header."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


LINK = answer(
    info("vxlan", attribute(4, b"\x0a\0\0\1"), attribute(15, b"\x12\xb5")),
    attribute(1, b"\2\0\0\0\0\1"),
    attribute(5, struct.pack("=i", 2)),
)
DONE = netlink(rtnetlink.NLMSG_DONE, struct.pack("=i", 0))
DATAGRAMS = (
    netlink(rtnetlink.RTM_NEWLINK, LINK) + DONE,
    netlink(RTM_NEWNSID, bytes(4) + attribute(1, struct.pack("=i", 3))) + DONE,
    netlink(rtnetlink.NLMSG_ERROR, struct.pack("=i", -95) + bytes(16)),
    netlink(rtnetlink.NLMSG_ERROR, struct.pack("=i", -(2**31)) + bytes(16)),
    netlink(rtnetlink.NLMSG_DONE, b""),
)


@settings(max_examples=examples(400), deadline=None)
@given(messages(*DATAGRAMS), st.sampled_from((None, 5)))
def test_links(datagram: bytes, namespace: int | None) -> None:
    """Links and namespaces as rtnetlink tells them."""
    for read in (lambda channel: read_links(channel, namespace), read_numbers):
        with contextlib.suppress(OSError):
            read(cast("Any", Kernel(datagram, datagram, DONE)))
    with contextlib.suppress(OSError):
        rtnetlink.ask(cast("Any", Kernel(datagram)), rtnetlink.RTM_GETLINK, b"")
    assert sum(16 + len(body) for *_, body in rtnetlink.messages(datagram)) <= len(datagram) + 3
    with contextlib.suppress(OSError):
        set(link_events._renumbered(datagram))
    with contextlib.suppress(OSError):
        nft_wire._judge(datagram, 1)


ADDRESS = netlink(
    20, struct.pack("=BBBBI", 2, 24, 128, 0, 2) + attribute(1, bytes(4)) + attribute(2, bytes(4))
)
ROUTE = netlink(
    24,
    struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
    + attribute(5, bytes(4))
    + attribute(4, struct.pack("=I", 2))
    + attribute(9, struct.pack("=HBBi", 16, 0, 0, 2) + attribute(5, bytes(4))),
)


@settings(max_examples=examples(400), deadline=None)
@given(messages(ADDRESS + DONE, ROUTE + DONE), st.sampled_from((20, 21, 24, 25, 32)))
def test_addresses_and_routes(datagram: bytes, kind: int) -> None:
    """Addresses and routes as rtnetlink tells them."""
    kernel = cast("Any", Kernel(datagram, DONE))
    with contextlib.suppress(OSError):
        assert all(isinstance(one.prefix, int) for one in read_addresses(kernel))
    kernel = cast("Any", Kernel(datagram, DONE, datagram, DONE))
    with contextlib.suppress(OSError):
        assert all(isinstance(one.link, int) for one in read_default_hops(kernel))
    with contextlib.suppress(OSError):
        assert isinstance(may_change_addresses(kind, datagram[16:]), bool)


@quick
@given(messages(LINK), st.sampled_from((None, 5)))
def test_a_link(payload: bytes, namespace: int | None) -> None:
    """One link."""
    with contextlib.suppress(OSError):
        assert link_of(payload, namespace).index is not None


@quick
@given(st.binary(max_size=8))
def test_origin_of_link_events(data: bytes) -> None:
    """The namespace of an event."""
    ancillary = [(rtnetlink.SOL_NETLINK, rtnetlink.NETLINK_LISTEN_ALL_NSID, data)]
    with contextlib.suppress(OSError):
        assert all(isinstance(one, int) for one in link_events._origin(ancillary))


NFT_EVENT = struct.pack("=IHHIIBBH", 32, 10 << 8 | 15, 0, 0, 0, 1, 0, 0) + attribute(2, bytes(4))


@quick
@given(st.lists(messages(NFT_EVENT), max_size=3))
def test_nft_events(datagrams: list[bytes]) -> None:
    """Changes of nftables."""
    transactions = Transactions("ipsec_agent")
    for datagram in datagrams:
        assert all(isinstance(one, int) for one in transactions.feed(datagram))


# --- programs and files -----------------------------------------------------------------------


FLOWTABLE = packed({1: b"fast\0", 2: b"f\0", 3: packed({3: packed({1: b"eth0\0"})})})
LISTED = {
    **{kind: guard().dumps[kind] for kind in (GET_CHAIN, GET_RULE, GET_SET)},
    GET_FLOWTABLES: [(1, FLOWTABLE)],
}
COUNTING = guard().elements["clear_in4"][0]


@settings(max_examples=examples(400), deadline=None)
@given(st.sampled_from(sorted(LISTED)), st.data())
def test_nft_tables(kind: int, data: st.DataObject) -> None:
    """What the kernel lists of nftables; what was read has the types that it should."""
    kernel = guard(flowtables=LISTED[GET_FLOWTABLES])
    _, payload = data.draw(st.sampled_from(LISTED[kind]))
    kernel.dumps[kind] = [*LISTED[kind], (1, data.draw(messages(payload)))]
    kernel.elements = {**kernel.elements, "clear_in4": (data.draw(messages(COUNTING)),)}
    with contextlib.suppress(KernelError), _told("reading"):
        found = _tables(cast("Any", kernel), None)
        assert found is not None
        table = found.guard
        counted: tuple[Any, ...] = (
            *table.clear_in,
            *table.clear_out,
            *table.tunnelled,
            *table.unguarded,
        )
        numbers = [number for one in counted for number in (one.packets, one.bytes, one.idle)]
        numbers += [table.dropped_in, table.dropped_out, *table.overlay_ports]
        assert all(isinstance(number, int) for number in numbers)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory in memory or on disk, for a module's examples."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@quick
@given(table=messages(WELL.encode()), link=st.sampled_from(("socket:[x]", "socket:[", "socket:")))
def test_udp_sockets(place: Path, table: bytes, link: str) -> None:
    """Who has IKE's ports, as /proc tells it."""
    lay(place, WELL, "", {77: ("charon", [1, 2]), 78: ("thief", [3])})
    for name in ("udp", "udp6"):
        (place / "thread-self/net" / name).write_bytes(b"head\n" + table)
    fd = place / "78/fd/9"
    fd.unlink(missing_ok=True)
    fd.symlink_to(link)
    charon = CharonProcess(pid=77, started=5.0, memory=0, ours=True)
    with contextlib.suppress(KernelError):
        for holder in IkePortsReader(lambda: 0.0, place).get(charon).others:
            assert isinstance(holder.address, IPv4Address | IPv6Address)
    thief = CharonProcess(pid=78, started=5.0, memory=0, ours=True)
    with contextlib.suppress(KernelError):
        IkePortsReader(lambda: 0.0, place).get(thief)


@quick
@given(table=messages(b"XfrmInError 0\nXfrmInNoPols 3\n"))
def test_xfrm_stat(place: Path, table: bytes) -> None:
    """The kernel's counters."""
    path = place / "xfrm_stat"
    path.write_bytes(table)
    with contextlib.suppress(KernelError):
        assert all(isinstance(count, int) for count in stats(path).values())


SHOWN = b"LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=77\nExecMainStatus=0\n"


@quick
@given(messages(SHOWN).map(lambda raw: raw.decode(errors="replace")))
def test_systemctl(shown: str) -> None:
    """What systemd says of a unit."""
    with contextlib.suppress(CharonStartError):
        assert isinstance(state_of("x.service", shown), UnitState)


SETTINGS = {
    "mbus": "nats://user:secret@10.0.0.6:4222",
    "blobstore": {"options": {"endpoint": "http://[fd00::6]:25250"}},
    "env": {"bosh": {"mbus": {"urls": ["nats://10.0.0.7"]}, "blobstores": [{"options": {}}]}},
}


def no_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """No name has an address, and nobody is asked."""
    return dict.fromkeys(names, ())


@quick
@given(
    text=texts(SETTINGS),
    other=messages(b"nameserver 10.0.0.2\nSERVER_ADDRESS=10.0.0.3\nPPid:\t1\n"),
)
def test_essential_addresses(place: Path, text: str, other: bytes) -> None:
    """BOSH's settings, resolv.conf and leases tell nothing where they are odd."""
    for name in ("var/vcap/bosh/settings.json", "etc/resolv.conf", "proc/9/status"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(other if "json" not in name else text.encode(errors="replace"))
    found = read_essential_addresses(
        {"SSH_CONNECTION": text[:40]}, root=place, process=9, resolve=no_names
    )
    assert all(isinstance(one, IPv4Address | IPv6Address) for one in found.directors)


RECORD = {"pid": 7, "started": 1.5, "connections": {"a": "b"}, "inherited": [[1], [2]]}


@quick
@given(text=texts(RECORD), more=texts(["a", "b"]))
def test_own_records(place: Path, text: str, more: str) -> None:
    """Our own files, damaged: nothing is known then."""
    charon = CharonProcess(pid=7, started=1.5, memory=0, ours=True)
    path = place / "record.json"
    path.write_text(f"{text}\n{more}\n", encoding="utf-8", errors="replace")
    record = LoadedRecord(path)
    assert isinstance(record.fingerprints(charon), dict)
    assert isinstance(record.inherited(charon).spis, frozenset)
    assert isinstance(peers._read(path), tuple)
    os.truncate(path, 0)
