"""The file of peers."""

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.core.observed_peers import RememberedPeer
from ipsec_agent.host.peers import Knock, PeerMemory, probe

CHARON = CharonProcess(pid=1, started=10.0, memory=0, ours=True)
PEERS = (
    RememberedPeer(ip_address("127.0.0.9"), 1000.0),
    RememberedPeer(ip_address("::1"), 900.0),
)


def test_written_and_read(tmp_path: Path) -> None:
    """The next agent knows them; nobody else reads the file."""
    PeerMemory(tmp_path / "peers.json").write(PEERS)

    assert PeerMemory(tmp_path / "peers.json").peers(CHARON) == PEERS
    assert (tmp_path / "peers.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '{"x": 1}', '{"10.0.0.1": "y"}', '{"10.0.0.1": []}'),
        *(f'{{"10.0.0.1": {seen}}}' for seen in ("Infinity", "NaN", "-1", "1e300", "9" * 5000)),
    ],
)
def test_damaged(tmp_path: Path, text: str) -> None:
    """A file that cannot be read is one without peers, and is written again."""
    (tmp_path / "peers.json").write_text(text)
    memory = PeerMemory(tmp_path / "peers.json")

    assert memory.peers(CHARON) == ()
    memory.write(memory.peers(CHARON))


def test_poked_once_for_each_charon(tmp_path: Path) -> None:
    """A poke is remembered until another charon runs."""
    memory = PeerMemory(tmp_path / "peers.json")
    memory.write(PEERS)
    memory.peers(CHARON)
    memory.poke([PEERS[0].address])

    assert [peer.poked for peer in memory.peers(CHARON)] == [True, False]
    later = CharonProcess(pid=2, started=20.0, memory=0, ours=True)
    assert [peer.poked for peer in memory.peers(later)] == [False, False]


def test_a_disk_that_is_full_stops_nothing(tmp_path: Path) -> None:
    """What cannot be written is still known."""
    memory = PeerMemory(tmp_path / "nowhere" / "peers.json")

    memory.write(PEERS)

    assert memory.peers(CHARON) == PEERS


@contextlib.contextmanager
def one_port(
    family: socket.AddressFamily, address: str
) -> Iterator[tuple[int, socket.socket, socket.socket]]:
    """A port with a socket for datagrams and one for connections.

    One that is free for datagrams may be taken for connections by whoever runs beside.
    """
    while True:
        with (
            socket.socket(family, socket.SOCK_DGRAM) as datagrams,
            socket.socket(family, socket.SOCK_STREAM) as connections,
        ):
            datagrams.bind((address, 0))
            port = datagrams.getsockname()[1]
            try:
                connections.bind((address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            yield port, datagrams, connections
            return


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_probe(
    family: socket.AddressFamily, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A datagram and a connection, for neither of which it waits; nobody need be there."""
    with one_port(family, address) as (port, datagrams, connections):
        connections.listen()
        for socket_ in (datagrams, connections):
            socket_.settimeout(5)
        monkeypatch.setattr("ipsec_agent.host.peers.DISCARD", port)

        probe([ip_address(address)])

        assert datagrams.recv(1) == b""
        connections.accept()[0].close()
    probe([ip_address(address), ip_address("192.0.2.1")])


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("listens", [False, True])
def test_a_knock_is_answered(
    address: str, monkeypatch: pytest.MonkeyPatch, *, listens: bool
) -> None:
    """By the kernel that a port is closed, or by who listens; nobody need listen for datagrams."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with one_port(family, address) as (port, _, connections):
        if listens:
            connections.listen()
        monkeypatch.setattr("ipsec_agent.host.peers.DISCARD", port)
        with Knock(ip_address(address)) as knock:
            assert until(lambda: knock.answered)
    with Knock(ip_address(address)) as knock:
        assert until(lambda: knock.answered)


def until(true: Callable[[], bool]) -> bool:
    """Whether it is true within some seconds."""
    for _ in range(500):
        if true():
            return True
        time.sleep(0.01)
    return False
