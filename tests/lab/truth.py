"""What the kernel and charon of a VM say, read past the agent: own netlink, `nft`, VICI."""

import contextlib
import re
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import vici

from tests.charon.nodes import DEADLINE, SCALE, Node, connected
from tests.lab.namespaces import inside

NETLINK_XFRM = 6
GET_SA, NEW_SA, GET_POLICY, NEW_POLICY = 0x12, 0x10, 0x15, 0x13
DELETE_POLICY, UPDATE_POLICY = 0x14, 0x19
POLICY_GROUP = 1 << 3
"""XFRMNLGRP_POLICY, as a bit of the address (linux/xfrm.h)."""

DONE, DUMP = 3, 0x301
HEADER = struct.Struct("=IHHII")
SELECTOR = 56
POLICY, POLICY_ID = 168, 64
"""Sizes of xfrm_userpolicy_info and xfrm_userpolicy_id (linux/xfrm.h)."""

WHOLE, TEMPLATES, TEMPLATE = 7, 5, struct.Struct("=16s4sB3xHxx16sIBBBx12x")
SO_RCVBUFFORCE = 33
NETLINK_NETFILTER, SOL_NETLINK, ADD_MEMBERSHIP, TABLES_GROUP = 12, 270, 1, 7
"""NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h)."""

EVERY = 0.01 * SCALE
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy, without what may differ when it is installed anew.

    Attributes:
        selector: as the kernel has it, with both addresses and prefixes.
        direction: 0 in, 1 out, 2 forward.
        blocks: its action.
        templates: (protocol, mode, optional) of each.
    """

    selector: bytes
    direction: int
    priority: int
    blocks: bool
    templates: tuple[tuple[int, int, bool], ...]

    @property
    def of_hosts(self) -> bool:
        """Whether it is about two single addresses, as those of an SA are (xfrm_selector)."""
        family, remote, local = struct.unpack_from("=HBB", self.selector, 40)
        return bool(remote == local == (32 if family == socket.AF_INET else 128))


class Kernel:
    """The kernel's XFRM in a namespace, by a socket of its own: a look takes a millisecond."""

    def __init__(self, netns: str) -> None:
        with inside(netns):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)
        self._socket.settimeout(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def policies(self) -> frozenset[Entry]:
        """Every policy but those of single sockets."""
        return frozenset(
            entry
            for body in self._dump(GET_POLICY, NEW_POLICY)
            if (entry := _policy(body)).direction < 3
        )

    def traps(self) -> frozenset[Entry]:
        """The policies that stand by the config: without those of an SA, which come and go."""
        return frozenset(entry for entry in self.policies() if not entry.of_hosts)

    def spis(self) -> frozenset[int]:
        """The SPIs of all SAs but larval ones."""
        at = SELECTOR + 16
        found = {int.from_bytes(body[at : at + 4], "big") for body in self._dump(GET_SA, NEW_SA)}
        return frozenset(found - {0})

    def _dump(self, ask: int, answer: int) -> list[bytes]:
        self._socket.send(HEADER.pack(HEADER.size, ask, DUMP, 1, 0))
        found: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 17)
            start = 0
            while start < len(data):
                length, kind = HEADER.unpack_from(data, start)[:2]
                if kind == DONE:
                    return found
                assert kind == answer, f"netlink answers {kind}"
                found.append(data[start + HEADER.size : start + length])
                start += (length + 3) & ~3


HANDLE = re.compile(r" # handle (\d+)")


class Events:
    """The kernel's own word of policies that come and go in a namespace."""

    def __init__(self, netns: str) -> None:
        with inside(netns):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._socket.bind((0, POLICY_GROUP))
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def new(self) -> list[tuple[int, Entry]]:
        """What has come since it was last asked: the message's number, and the policy.

        Raises:
            OSError: the kernel could not hand over all (ENOBUFS).
        """
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self._socket.recv(1 << 16)
                length, kind = HEADER.unpack_from(data)[:2]
                body = data[HEADER.size : length]
                if kind in {NEW_POLICY, UPDATE_POLICY}:
                    found.append((kind, _policy(body)))
                elif kind == DELETE_POLICY:
                    size, attribute = struct.unpack_from("=HH", body, POLICY_ID)
                    assert attribute == WHOLE
                    # The templates stand beside the policy, not in it (net/xfrm/xfrm_user.c).
                    beside = body[POLICY_ID + (size + 3 & ~3) :]
                    whole = body[POLICY_ID + 4 : POLICY_ID + size] + beside
                    found.append((kind, _policy(whole)))
        return found


class TableEvents:
    """The kernel's own word that nftables changed in a namespace: to list costs a program."""

    def __init__(self, netns: str) -> None:
        with inside(netns):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, TABLES_GROUP)
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def any(self) -> bool:
        """Whether something changed since it was last asked."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(1 << 17):
                found = True
        return found


def _policy(body: bytes) -> Entry:
    priority, _, direction, action = struct.unpack_from("=IIBB", body, SELECTOR + 96)
    templates: list[tuple[int, int, bool]] = []
    start = POLICY
    while start + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, start)
        if kind == TEMPLATES:
            for at in range(start + 4, start + length, TEMPLATE.size):
                _, _, protocol, _, _, _, mode, _, optional = TEMPLATE.unpack_from(body, at)
                templates.append((protocol, mode, bool(optional)))
        start += (length + 3) & ~3
    return Entry(body[:SELECTOR], direction, priority, bool(action), tuple(templates))


def dropped(netns: str) -> Counter[str]:
    """What the kernel counts of packets that IPsec dropped in a namespace, by the counter's name.

    The names are those of Documentation/networking/xfrm_proc.rst.
    """
    with inside(netns):
        text = Path("/proc/thread-self/net/xfrm_stat").read_text()
    return Counter({name: int(count) for name, count in map(str.split, text.splitlines())})


def guard_table(netns: str) -> tuple[str, int]:
    """The guard's table without what packets change in it, and its number; ("", 0) without one.

    The number is the kernel's handle: a table that is made again has another one.
    """
    with inside(netns):
        program = subprocess.Popen(
            ["nft", "-a", "-s", "list", "table", "inet", "ipsec_agent"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    said, _ = program.communicate(timeout=DEADLINE)
    if (handle := HANDLE.search(said)) is None:
        return "", 0
    parts = re.split(r"(?m)^(?=\t(?:set|chain) )", HANDLE.sub("", said))
    text = "".join(part for part in parts if "dynamic" not in part.partition("elements")[0])
    return text, int(handle[1])


@contextlib.contextmanager
def charon_of(node: Node, deadline: float = DEADLINE) -> Iterator[vici.Session]:
    """charon's own interface.

    Raises:
        OSError: nobody listens, or nobody answers in time.
    """
    with connected(node.run_dir / "charon.vici", deadline) as channel:
        yield vici.Session(channel)


def traps(node: Node) -> set[str]:
    """The children whose traps charon says it has; empty where it does not answer at once.

    A trap that charon has may be missing in the kernel: ask that, too.
    """
    with contextlib.suppress(OSError), charon_of(node, 1.0) as session:
        found: set[str] = set()
        for entry in session.list_policies({"trap": "yes"}):
            found |= {str(key) for key in entry}
        return found
    return set()


@dataclass(frozen=True, slots=True)
class Sa:
    """An IKE_SA as charon tells of it.

    Attributes:
        number: charon's own.
        peer: the address of its other end.
        begun_here: this VM is its initiator.
        children: the SPIs of every CHILD_SA that it has installed, by its number.
    """

    number: int
    peer: str
    established: bool
    begun_here: bool
    children: dict[int, set[int]]


def sas(node: Node) -> list[Sa]:
    """charon's IKE_SAs.

    Raises:
        OSError: charon does not answer.
    """
    with charon_of(node) as session:
        return [
            Sa(
                int(sa["uniqueid"]),
                sa["remote-host"].decode(),
                sa["state"] == b"ESTABLISHED",
                sa.get("initiator") == b"yes",
                {
                    int(child["uniqueid"]): {int(child["spi-in"], 16), int(child["spi-out"], 16)}
                    for child in sa.get("child-sas", {}).values()
                    if child["state"] == b"INSTALLED"
                },
            )
            for entry in session.list_sas({"noblock": "yes"})
            for sa in entry.values()
        ]


def child_sas(node: Node) -> set[int]:
    """The numbers of the CHILD_SAs that are in force.

    Raises:
        OSError: charon does not answer.
    """
    return {child for sa in sas(node) if sa.established for child in sa.children}


def stopped(pid: int) -> bool:
    """Whether a signal has stopped a process (proc(5): state T)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"


def alive(pid: int) -> bool:
    """Whether a process lives, and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@dataclass
class Watch:
    """Asks one question again and again beside the test, from before a fault on.

    Attributes:
        whole: the question, whether all is as it should be, perhaps with the moment since when.
        every: seconds between two answers.
        sound: when the last look before that began, whose answer was yes.
        broken: when the answer was no for the first time; 0 where it never was.
        healed: when it was yes again for the last time.
    """

    whole: Callable[[], bool | float]
    every: float = EVERY
    sound: float = 0.0
    broken: float = 0.0
    healed: float = 0.0
    asked: int = 0
    failure: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        assert self.whole(), "it is not whole before the fault"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * DEADLINE)
        assert not self._thread.is_alive(), "a look does not end"

    @property
    def is_whole(self) -> bool:
        """Whether it was broken and is whole again."""
        return 0 < self.broken < self.healed

    def wait(self, seconds: float) -> bool:
        """Wait until it was broken and is whole again; False where that took too long."""
        end = time.monotonic() + seconds
        while not self.is_whole and time.monotonic() < end and not self.failure:
            time.sleep(EVERY)
        return self.is_whole

    def _run(self) -> None:
        whole = True
        while not self._stop.wait(self.every):
            now = time.monotonic()
            try:
                answer = self.whole()
            except BaseException as error:  # noqa: BLE001 - the test's thread raises it
                self.failure.append(error)
                return
            self.asked += 1
            if answer and not self.broken:
                self.sound = now
            if whole and not answer:
                self.broken, self.healed = self.broken or now, 0.0
            elif answer and not whole:
                self.healed = time.monotonic() if answer is True else answer
            whole = bool(answer)
