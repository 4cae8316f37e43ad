"""Who is connected to this VM's SSH servers, by what the kernel lists."""

import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipsec_agent.host.essential_addresses import read_essential_addresses
from ipsec_agent.host.ssh_sessions import ssh_clients

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  inode\n"


def written(text: str) -> str:
    """An address as the kernel's table has it."""
    packed = ip_address(text).packed
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def line(local: tuple[str, int], remote: tuple[str, int], state: str, inode: int) -> str:
    """A socket."""
    ends = " ".join(f"{written(address)}:{port:04X}" for address, port in (local, remote))
    return f"   0: {ends} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with an SSH server on a port of its own, its session, and other programs."""
    for pid, name, inodes in (
        (1, "systemd", (10,)),
        (7, "sshd-session: x", (21, 22, 23, 24)),
        (8, "sshd", (20,)),
        (9, "nginx", (30, 31)),
    ):
        (tmp_path / f"proc/{pid}/fd").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/comm").write_text(f"{name}\n")
        for number, inode in enumerate(inodes):
            (tmp_path / f"proc/{pid}/fd/{number}").symlink_to(f"socket:[{inode}]")
    nobody, here = ("0.0.0.0", 0), ("10.0.0.5", 2222)
    tables = tmp_path / "proc/thread-self/net"
    tables.mkdir(parents=True)
    (tables / "tcp").write_text(
        HEAD
        + line(here, ("10.0.0.99", 50000), "01", 21)
        + line(("0.0.0.0", 2222), nobody, "0A", 20)
        + line(here, ("10.0.0.98", 50000), "06", 22)
        # What the session forwards, and what another program serves.
        + line(("10.0.0.5", 40000), ("10.0.0.97", 5432), "01", 23)
        + line(("10.0.0.5", 2222), ("10.0.0.96", 50000), "01", 31)
        + "   9: odd\n"
    )
    (tables / "tcp6").write_text(
        HEAD
        + line(("fd00::5", 22), ("fd00::99", 50000), "01", 24)
        + line(("::ffff:10.0.0.5", 2222), ("::ffff:10.0.0.99", 50001), "01", 24)
    )
    return tmp_path


def test_clients(root: Path) -> None:
    """Those of established connections to what an SSH server listens on, each once."""
    expected = (ip_address("10.0.0.99"), ip_address("fd00::99"))

    assert ssh_clients(root / "proc") == expected
    # Beside the caller's own session; a daemon looks for none.
    own = {"SSH_CONNECTION": "192.0.2.44 50000 10.0.0.5 22"}
    found = read_essential_addresses(own, root=root, process=9)
    assert found.ssh_clients == (ip_address("192.0.2.44"), *expected)
    assert read_essential_addresses({}, root=root).ssh_clients == ()


def test_what_cannot_be_read(root: Path) -> None:
    """It tells nothing."""
    (root / "proc/thread-self/net/tcp").unlink()
    assert ssh_clients(root / "proc") == (ip_address("fd00::99"),)
    (root / "proc/7/comm").unlink()
    assert ssh_clients(root / "proc") == ()
    assert ssh_clients(root / "nothing") == ()
