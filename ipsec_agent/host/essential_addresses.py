"""What this VM cannot do without, read from the files and the environment that tell of it.

Best effort: what is missing, unreadable, too large or malformed tells nothing, and no secret of
these files goes any further than this module.
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.model import Address
from ipsec_agent.host.names import resolve
from ipsec_agent.host.ssh_sessions import SERVERS, ssh_clients

LARGEST = 1024 * 1024
"""Bytes that are read of any file."""

MOST_FILES = 64
ANCESTORS = 16

Resolve = Callable[[Iterable[str]], Mapping[str, tuple[str, ...]]]


def read_essential_addresses(
    environment: Mapping[str, str],
    *,
    root: Path = Path("/"),
    process: int | None = None,
    resolve: Resolve = resolve,
) -> EssentialAddresses:
    """Name servers, DHCP servers, the BOSH director and the SSH client, as far as they are known.

    Args:
        environment: of the calling command; `SSH_CONNECTION` in it names the client (ssh(1)).
        root: the directory below which the files are.
        process: process id from which the ancestors are asked for SSH_CONNECTION where the
            environment lacks it, as sudo removes it; None asks no process, nor which connections
            SSH servers have.
        resolve: gives the addresses of names; it may take some seconds (host/names.py).
    """
    directors = tuple(_directors(root / "var/vcap/bosh/settings.json"))
    named = resolve([host for host in directors if host and not _is_address(host)])
    return EssentialAddresses(
        name_servers=_addresses(_name_servers(root)),
        dhcp_servers=_addresses(_dhcp_servers(root)),
        directors=_addresses(one for host in directors for one in (named.get(host) or (host,))),
        ssh_clients=_addresses(
            (*_ssh_clients(environment, root, process), *_connected(root, process))
        ),
        unresolved=tuple(host for host, addresses in named.items() if not addresses),
    )


def read_own_essential_addresses() -> EssentialAddresses:
    """Those of this process; the SSH client counts where a person runs it."""
    process = os.getpid()
    hand = by_hand(process=process)
    return read_essential_addresses(os.environ if hand else {}, process=process if hand else None)


def by_hand(*, root: Path = Path("/"), process: int | None = None) -> bool:
    """Whether a person runs this: on a terminal, or within an SSH session that still lives.

    A daemon that was once started from a session may still bear its SSH_CONNECTION, but descends
    from it no more.

    Args:
        root: the directory below which /proc is.
        process: process id whose ancestors are looked at; None looks at none.
    """
    if any(os.isatty(descriptor) for descriptor in (0, 1, 2)):
        return True
    return any(
        name.startswith(SERVERS)
        for name, _ in itertools.islice(_ancestry(root, process), ANCESTORS)
    )


def _addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    """The usable ones, without duplicates, in the order found."""
    found: dict[Address, None] = {}
    for text in texts:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            continue
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        if not (address.is_loopback or address.is_unspecified):
            found[address] = None
    return tuple(found)


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError:
        return ""
    return raw.decode(errors="replace") if len(raw) <= LARGEST else ""


def _files(directory: Path, pattern: str) -> list[Path]:
    try:
        return sorted(directory.glob(pattern))[:MOST_FILES]
    except OSError:
        return []


def _name_servers(root: Path) -> Iterator[str]:
    """resolv.conf(5); the second is what systemd-resolved asks behind its own 127.0.0.53."""
    for name in ("etc/resolv.conf", "run/systemd/resolve/resolv.conf"):
        for line in _text(root / name).splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                yield words[1]


def _dhcp_servers(root: Path) -> Iterator[str]:
    for path in _files(root / "run/systemd/netif/leases", "*"):
        for line in _text(path).splitlines():
            key, _, value = line.partition("=")
            if key == "SERVER_ADDRESS":
                yield value.strip()
    for directory in ("var/lib/dhcp", "var/lib/dhclient"):
        for path in _files(root / directory, "dhclient*.lease*"):
            # Leases are appended (dhclient.leases(5)): the last one counts.
            yield from re.findall(r"option dhcp-server-identifier ([^\s;]+);", _text(path))[-1:]


def _directors(path: Path) -> Iterator[str]:
    """Hosts of the message bus and the blobstores (bosh-agent: settings/settings.go)."""
    try:
        settings = json.loads(_text(path))
    except (ValueError, RecursionError):
        return
    bosh = _within(settings, "env", "bosh")
    blobstores = _within(bosh, "blobstores")
    urls = [
        _within(settings, "mbus"),
        *_listed(_within(bosh, "mbus", "urls")),
        _within(settings, "blobstore", "options", "endpoint"),
        *(_within(store, "options", "endpoint") for store in _listed(blobstores)),
    ]
    for url in urls:
        if isinstance(url, str):
            try:
                yield urlsplit(url).hostname or ""
            except ValueError:
                continue


def _within(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _ssh_clients(environment: Mapping[str, str], root: Path, process: int | None) -> Iterator[str]:
    connection = environment.get("SSH_CONNECTION", "")
    ancestry = itertools.islice(_ancestry(root, process), ANCESTORS)
    while not connection and (found := next(ancestry, None)):
        for entry in _text(root / f"proc/{found[1]}/environ").split("\0"):
            key, _, value = entry.partition("=")
            if key == "SSH_CONNECTION":
                connection = value
    yield from connection.split()[:1]


def _connected(root: Path, process: int | None) -> tuple[str, ...]:
    """Who has an SSH session here, whether or not it is known to be the caller's."""
    return tuple(map(str, ssh_clients(root / "proc"))) if process else ()


def _ancestry(root: Path, process: int | None) -> Iterator[tuple[str, int]]:
    """Name and process id of a process and of its ancestors (proc_pid_status(5))."""
    while process:
        fields = {
            key: value.strip()
            for key, _, value in (
                line.partition(":") for line in _text(root / f"proc/{process}/status").splitlines()
            )
        }
        yield fields.get("Name", ""), process
        parent = fields.get("PPid", "")
        process = int(parent) if parent.isdecimal() else None
