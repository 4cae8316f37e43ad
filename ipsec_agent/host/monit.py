"""monit's own word for which processes run, where BOSH has one that tells it to root.

monit is asked only where root listens: any user may take its port while it does not run, and would
be told its password.
"""

import base64
import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from ipsec_agent.core.drain import Claim
from ipsec_agent.host.proc_net import LISTENING, rows
from ipsec_agent.host.understood import NOT_UNDERSTOOD

ADDRESS, PORT = "127.0.0.1", 2822
LOCAL = "0100007F"
"""The address as /proc/net/tcp has it."""

ROOT = 0
"""The user that may listen there."""

DEADLINE = 2.0
"""Seconds for each wait."""

LARGEST = 1 << 20
"""Bytes of its answer."""

PROCESS = "3"
"""The type of a service that is a process."""


def monit_claims(user_file: Path, port: int = PORT) -> tuple[Claim, ...]:
    """The processes that monit watches; nothing where it cannot be asked.

    Args:
        user_file: has a line USER:PASSWORD.
    """
    try:
        lines = user_file.read_text().split()
        if not lines or not _listens(port):
            return ()
        return tuple(_claims(ET.fromstring(_asked(lines[0], port))))  # noqa: S314 - root's
    except (OSError, http.client.HTTPException, ET.ParseError, *NOT_UNDERSTOOD):
        return ()


def _listens(port: int, table: Path = Path("/proc/net/tcp")) -> bool:
    """Whether a program of root's listens there."""
    listening = (
        row for row in rows(table) if (row.address, row.port, row.state) == (LOCAL, port, LISTENING)
    )
    return any(row.user == ROOT for row in listening)


def _asked(user: str, port: int) -> bytes:
    word = base64.b64encode(user.encode()).decode()
    channel = http.client.HTTPConnection(ADDRESS, port, timeout=DEADLINE)
    with contextlib.closing(channel):
        channel.request("GET", "/_status?format=xml", headers={"Authorization": f"Basic {word}"})
        answer = channel.getresponse()
        return answer.read(LARGEST) if answer.status == http.HTTPStatus.OK else b""


def _claims(status: ET.Element) -> Iterator[Claim]:
    """5.2.5 and newer ones differ in what is an attribute, and what an element."""
    for service in status.iter("service"):
        told = {child.tag: child.text or "" for child in service} | service.attrib
        if told.get("type") == PROCESS and told.get("pid", "").isdecimal():
            pid, seen = int(told["pid"]), float(told["collected_sec"])
            if pid:
                yield Claim(told["name"], pid, seen)
