"""What a VM needs is read from its files, as systemd, dhclient and the BOSH agent write them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.host.essential_addresses import (
    LARGEST,
    by_hand,
    read_essential_addresses,
    read_own_essential_addresses,
)


def write(root: Path, name: str, text: str) -> None:
    """A file below the root."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_nothing_there(tmp_path: Path) -> None:
    """An empty machine needs nothing, and no error is raised."""
    assert read_essential_addresses({}, root=tmp_path) == EssentialAddresses()


def test_name_servers(tmp_path: Path) -> None:
    """Both files, no loopback, no duplicates, comments and scopes understood."""
    write(
        tmp_path,
        "etc/resolv.conf",
        "# nameserver 10.0.0.9\nnameserver 127.0.0.53\nnameserver 10.0.0.2\n"
        "nameserver fe80::1%eth0\nsearch example\nnameserver\nnameserver nonsense\n",
    )
    write(tmp_path, "run/systemd/resolve/resolv.conf", "nameserver 10.0.0.2\nnameserver 10.0.0.3\n")

    found = read_essential_addresses({}, root=tmp_path).name_servers

    assert found == tuple(map(ip_address, ("10.0.0.2", "fe80::1", "10.0.0.3")))


def test_dhcp_servers(tmp_path: Path) -> None:
    """systemd-networkd's leases, and the last lease of each of dhclient's files."""
    write(tmp_path, "run/systemd/netif/leases/2", "ADDRESS=10.0.0.5\nSERVER_ADDRESS=10.0.0.1\n")
    write(
        tmp_path,
        "var/lib/dhcp/dhclient.eth0.leases",
        "lease {\n  option dhcp-server-identifier 10.0.0.7;\n}\n"
        "lease {\n  option dhcp-server-identifier 10.0.0.8;\n}\n",
    )

    found = read_essential_addresses({}, root=tmp_path).dhcp_servers

    assert found == (ip_address("10.0.0.1"), ip_address("10.0.0.8"))


def test_directors(tmp_path: Path) -> None:
    """Message bus and blobstore, in the old and the new place; 0.0.0.0 tells nothing.

    A name is asked for and its addresses count; one without an address is said to be so.
    """
    settings = {
        "mbus": "nats://nats:secret@10.0.0.6:4222",
        "blobstore": {"provider": "dav", "options": {"endpoint": "https://10.0.0.6:25250"}},
        "env": {
            "bosh": {
                "mbus": {"urls": ["nats://10.0.0.7:4222", "https://mbus:pw@0.0.0.0:6868", 7]},
                "blobstores": [
                    {"options": {"endpoint": "https://[fd00::8]:25250"}},
                    {"options": {"endpoint": "https://blob.example:25250"}},
                    {"options": {"endpoint": "https://lost.example:25250"}},
                    "odd",
                ],
            }
        },
    }
    write(tmp_path, "var/vcap/bosh/settings.json", json.dumps(settings))

    asked: list[str] = []

    def resolve(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        asked.extend(names)
        return {"blob.example": ("10.0.0.9", "fd00::9"), "lost.example": ()}

    found = read_essential_addresses({}, root=tmp_path, resolve=resolve)

    assert asked == ["blob.example", "lost.example"]
    assert found.directors == tuple(
        map(ip_address, ("10.0.0.6", "10.0.0.7", "fd00::8", "10.0.0.9", "fd00::9"))
    )
    assert found.unresolved == ("lost.example",)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"mbus": 7}', '{"mbus": "nats://[::1"}', '{"env": []}', "[" * 100_000],
)
def test_malformed_settings(tmp_path: Path, text: str) -> None:
    """They tell nothing, and break nothing."""
    write(tmp_path, "var/vcap/bosh/settings.json", text)

    assert read_essential_addresses({}, root=tmp_path).directors == ()


def test_too_large(tmp_path: Path) -> None:
    """A file beyond the limit is not read."""
    write(tmp_path, "etc/resolv.conf", "nameserver 10.0.0.2\n" + "#" * LARGEST)

    assert read_essential_addresses({}, root=tmp_path).name_servers == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.0.0.99 50000 10.0.0.5 22", ("10.0.0.99",)),
        ("::ffff:10.0.0.99 50000 ::ffff:10.0.0.5 22", ("10.0.0.99",)),
        ("fd00::99 50000 fd00::5 22", ("fd00::99",)),
        ("", ()),
        ("UNKNOWN", ()),
    ],
)
def test_ssh_client(tmp_path: Path, value: str, expected: tuple[str, ...]) -> None:
    """The first word of SSH_CONNECTION."""
    found = read_essential_addresses({"SSH_CONNECTION": value}, root=tmp_path).ssh_clients

    assert found == tuple(map(ip_address, expected))


def test_ssh_client_behind_sudo() -> None:
    """sudo clears the environment; the shell above it still has it."""
    code = (
        "import os;"
        "from ipsec_agent.host.essential_addresses import read_essential_addresses as read;"
        "print(read(dict(os.environ), process=os.getpid()).ssh_clients)"
    )
    shell = f"env -i PYTHONPATH={Path.cwd()} {sys.executable} -c '{code}'; true"

    done = subprocess.run(
        ["sh", "-c", shell],
        env={**os.environ, "SSH_CONNECTION": "192.0.2.44 50000 10.0.0.5 22"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout == "(IPv4Address('192.0.2.44'),)\n"


def processes(root: Path, *names: str) -> int:
    """A chain of processes, the youngest first; gives its process id."""
    for number, name in enumerate(names, 100):
        parent = number + 1 if number - 100 < len(names) - 1 else 0
        write(root, f"proc/{number}/status", f"Name:\t{name}\nPid:\t{number}\nPPid:\t{parent}\n")
    return 100


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("python3", "sudo", "bash", "sshd", "systemd"), True),
        (("python3", "bash", "sshd-session", "sshd", "systemd"), True),
        (("python3", "sh", "dropbear", "init"), True),
        (("python3", "sh", "monit", "systemd"), False),
        (("python3", "systemd"), False),
        (("python3",), False),
    ],
)
def test_by_hand_within_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], expected: bool
) -> None:
    """Without a terminal the SSH server among the ancestors tells; a daemon has none."""
    monkeypatch.setattr("os.isatty", lambda _descriptor: False)

    assert by_hand(root=tmp_path, process=processes(tmp_path, *names)) is expected


def test_by_hand_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on any of the three is a person's."""
    monkeypatch.setattr("os.isatty", lambda descriptor: descriptor == 2)

    assert by_hand(root=tmp_path)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_daemon_has_no_session(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """What is left of a session in a daemon's environment counts for nothing."""
    monkeypatch.setattr(
        "ipsec_agent.host.essential_addresses.by_hand", lambda *, process: process and terminal
    )
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.44 50000 10.0.0.5 22")

    found = read_own_essential_addresses().ssh_clients

    assert found == ((ip_address("192.0.2.44"),) if terminal else ())
