"""An SSH session is found by the real kernel's list of connections."""

import subprocess
import sys
from ipaddress import ip_address

import pytest

from ipsec_agent.host.ssh_sessions import ssh_clients
from tests.kernel.conftest import Run

pytestmark = pytest.mark.kernel

SERVER = """
import pathlib, socket, sys
pathlib.Path("/proc/self/comm").write_text(sys.argv[1])
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
with socket.create_server((sys.argv[2], 2222), family=family) as server, \\
     socket.create_connection(server.getsockname()[:2], source_address=(sys.argv[3], 0)) as client:
    session, _ = server.accept()
    with session:
        print("ready", flush=True)
        sys.stdin.read()
"""
"""Serves, and is its own client."""


@pytest.mark.parametrize(
    ("name", "server", "client", "found"),
    [
        ("sshd-session", "127.0.0.1", "127.0.0.9", True),
        ("dropbear", "fd00::1", "fd00::9", True),
        ("nginx", "127.0.0.1", "127.0.0.9", False),
    ],
)
def test_found(namespace: Run, name: str, server: str, client: str, *, found: bool) -> None:
    """Whoever is connected to a program that is called as an SSH server is; nobody else is."""
    for address in ("fd00::1/128", "fd00::9/128"):
        namespace("ip", "addr", "add", address, "dev", "lo", "nodad")
    assert ssh_clients() == ()
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, name, server, client],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout
            assert program.stdout.readline() == "ready\n"
            assert ssh_clients() == ((ip_address(client),) if found else ())
        finally:
            program.communicate(timeout=30)
    assert ssh_clients() == ()
