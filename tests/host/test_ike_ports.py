"""Who has IKE's ports, read from a directory like /proc; tests/charon/test_ike_ports.py is real."""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.core.observed import CharonProcess, PortHolder
from ipsec_agent.errors import KernelError
from ipsec_agent.host.ike_ports import IkePortsReader

HEAD = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  inode\n"
CHARON = CharonProcess(pid=77, started=5.0, memory=0, ours=True)
ANY, ANY6 = "00000000", "0" * 32


def line(address: str, port: int, inode: int, user: int = 0) -> str:
    """A socket as the kernel shows it."""
    rest = f"{'0' * len(address)}:0000 07 00000000:00000000 00:00000000 00000000 {user:5}        0"
    return f"  123: {address}:{port:04X} {rest} {inode} 2 0000000000000000 0\n"


def lay(
    proc: Path, v4: str, v6: str | None, processes: Mapping[int, tuple[str, list[int]]]
) -> None:
    """Write the tables, and each process with its sockets."""
    net = proc / "thread-self" / "net"
    net.mkdir(parents=True, exist_ok=True)
    (net / "udp").write_text(HEAD + v4)
    if v6 is not None:
        (net / "udp6").write_text(HEAD + v6)
    for pid, (name, inodes) in processes.items():
        (proc / str(pid) / "fd").mkdir(parents=True, exist_ok=True)
        (proc / str(pid) / "comm").write_text(f"{name}\n")
        for old in (proc / str(pid) / "fd").iterdir():
            old.unlink()
        (proc / str(pid) / "fd" / "0").symlink_to("/dev/null")
        for number, inode in enumerate(inodes, 1):
            (proc / str(pid) / "fd" / str(number)).symlink_to(f"socket:[{inode}]")


WELL = line(ANY, 500, 1) + line(ANY, 4500, 2) + line("0100007F", 53, 9)


def test_all_is_well(tmp_path: Path) -> None:
    """charon has its ports; other ports and processes do not matter; a second look needs none."""
    lay(tmp_path, WELL, None, {77: ("charon", [1, 2]), 53: ("named", [9])})
    reader = IkePortsReader(lambda: 60.0, tmp_path)

    found = reader.get(CHARON)
    assert found.owned == {(4, 500), (4, 4500)}
    assert (found.others, found.versions) == ((), (4,))
    anywhere = ip_address("0.0.0.0")
    assert found.addresses == ((4, 500, anywhere), (4, 4500, anywhere))
    assert found.well
    (tmp_path / "thread-self/net/udp").write_text(HEAD)
    assert reader.get(CHARON) is found
    assert not reader.changed()
    with reader.starting():
        pass
    assert reader.get(CHARON).owned == frozenset()


def test_taken(tmp_path: Path) -> None:
    """Holders are named with address and family; that they are gone is seen at the next glance."""
    taken = line("0500000A", 500, 3) + line(ANY, 4500, 4, user=1000)
    lay(tmp_path, taken, line(ANY6, 500, 5), {77: ("charon", []), 812: ("racoon", [3, 4])})
    reader = IkePortsReader(lambda: 60.0, tmp_path)

    found = reader.get(CHARON)
    assert found.owned == frozenset()
    assert found.others == (
        PortHolder(4, 500, ip_address("10.0.0.5"), 812, "racoon"),
        PortHolder(4, 4500, ip_address("0.0.0.0"), 812, "racoon", user=1000),
        PortHolder(6, 500, ip_address("::"), 0, ""),
    )
    assert not reader.changed()
    lay(tmp_path, line(ANY, 4500, 4), "", {})
    assert reader.changed()
    assert not reader.changed()


def test_ipv4s_port_of_an_ipv6_socket(tmp_path: Path) -> None:
    """The kernel lists a socket on ::ffff:10.0.0.5 with those of IPv6; it takes IPv4's port."""
    lay(tmp_path, "", line("0" * 16 + "FFFF0000" + "0500000A", 4500, 3), {812: ("racoon", [3])})

    found = IkePortsReader(lambda: 60.0, tmp_path).get(CHARON)

    assert found.others == (PortHolder(4, 4500, ip_address("10.0.0.5"), 812, "racoon"),)


def test_a_charon_that_comes_and_goes(tmp_path: Path) -> None:
    """Its sockets are its own, though seen before it was found; one that has ended has none."""
    lay(tmp_path, WELL, None, {77: ("charon", [1, 2]), 53: ("named", [9])})
    reader = IkePortsReader(lambda: 60.0, tmp_path)
    assert len(reader.get(None).others) == 2
    assert not reader.changed()
    assert reader.get(CHARON).well

    gone = replace(CHARON, pid=78, started=6.0)
    assert len(reader.get(gone).others) == 2
    assert not reader.changed()


def test_contested(tmp_path: Path) -> None:
    """Somebody had a port before charon was started, or since; whoever came later cannot know."""
    lay(tmp_path, "", None, {77: ("charon", [])})
    reader = IkePortsReader(lambda: 60.0, tmp_path)
    assert reader.get(CHARON).contested
    with reader.starting():
        pass
    assert not reader.get(CHARON).contested

    lay(tmp_path, line(ANY, 500, 3), None, {812: ("racoon", [3])})
    with reader.starting():
        lay(tmp_path, "", None, {})
    assert reader.get(CHARON).contested
    with reader.starting():
        pass
    assert not reader.get(CHARON).contested
    lay(tmp_path, line(ANY, 500, 3), None, {})
    assert reader.get(CHARON).contested


def test_unreadable(tmp_path: Path) -> None:
    """Where the kernel does not tell, that is an error with a way out."""
    lay(tmp_path, WELL, None, {})
    (tmp_path / "thread-self/net/udp").unlink()
    (tmp_path / "thread-self/net/udp").mkdir()

    with pytest.raises(KernelError, match="UDP sockets"):
        IkePortsReader(lambda: 60.0, tmp_path).get(None)
