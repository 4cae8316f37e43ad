"""Whether the kernel can do ESP: dummy SAs are added and deleted, and what explains a failure read.

A dummy SA is on loopback, with an SPI that is reserved and that charon never takes (RFC 4303, 2.1),
and ends by itself, so that a process which is killed in between leaves nothing. Our own reading of
SAs and their events leaves it out (xfrm_records.py).

All of it blocks: the kernel may load modules while it adds an SA.
"""

import contextlib
import errno
import gzip
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ipsec_agent.core.esp import DummySa, EspAbility, KernelEvidence, Trial
from ipsec_agent.errors import KernelError
from ipsec_agent.host.understood import as_told
from ipsec_agent.host.xfrm_messages import NETLINK_XFRM, Kind
from ipsec_agent.host.xfrm_records import dummy_deletion, dummy_sa

DEADLINE = 10.0
"""Seconds for one answer of the kernel, which comes at once when the request has been sent."""

ACKNOWLEDGED = 0x5
"""NLM_F_REQUEST | NLM_F_ACK."""

ERROR = struct.Struct("=IHHIIi")
"""`struct nlmsghdr`, and the errno of `struct nlmsgerr`, negative."""

MODPROBE_PLACES = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
"""Where modprobe.d is, the strongest first (modprobe.d(5))."""

OPTIONS = ("CONFIG_INET", "CONFIG_CRYPTO", "CONFIG_XFRM")
"""How the options begin that matter here."""

LARGEST = 16 * 1024 * 1024
"""Bytes that are read of a file."""


def esp_ability(wanted: tuple[DummySa, ...]) -> EspAbility:
    """Try each SA; where one fails, read what may explain it.

    Raises:
        KernelError: not root, or no answer in time.
    """
    if not wanted:
        return EspAbility()
    try:
        with _opened() as channel:
            trials = tuple(_try(channel, sa) for sa in wanted)
    except KernelError as error:
        if error.code != errno.EPROTONOSUPPORT:
            raise
        return EspAbility(evidence=read_evidence(), no_xfrm=True)
    failed = EspAbility(trials).failed
    return EspAbility(trials, read_evidence() if failed else None)


def _try(channel: socket.socket, sa: DummySa) -> Trial:
    if not sa.algorithms:
        return Trial(sa)
    error = _asked(channel, dummy_sa(sa, os.urandom), Kind.NEW_SA)
    if error == 0:
        _asked(channel, dummy_deletion(sa.version), Kind.DELETE_SA)
    # It is made whole before the kernel looks whether there is one already: another process's.
    if error in {0, errno.EEXIST}:
        return Trial(sa)
    if error == errno.EPERM:
        raise KernelError("adding an SA is not permitted", code=error, hint="run as root")
    return Trial(sa, error, os.strerror(error))


@contextlib.contextmanager
def _opened() -> Iterator[socket.socket]:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as channel:
            channel.settimeout(DEADLINE)
            channel.bind((0, 0))
            yield channel
    except OSError as error:
        raise KernelError(
            f"cannot test the kernel's ESP: {error.strerror or 'no answer in time'}",
            code=error.errno or errno.ETIMEDOUT,
            hint="the agent tries again",
        ) from error


def _asked(channel: socket.socket, message: Any, kind: int) -> int:
    """The errno with which the kernel acknowledges a request."""
    message["header"].update(type=kind, flags=ACKNOWLEDGED, sequence_number=kind)
    message.encode()
    channel.send(bytes(message.data))
    answer = channel.recv(65536)
    with as_told():
        return -int(ERROR.unpack_from(answer)[-1])


# --- evidence ---------------------------------------------------------------------------------


def read_evidence(root: Path = Path("/")) -> KernelEvidence:
    """What tells why the running kernel lacks something; what cannot be read tells nothing."""
    release = os.uname().release
    tree = root / "lib/modules" / release
    return KernelEvidence(
        release=release,
        modprobe=tuple(_modprobe_files(root)),
        command_line=_text(root / "proc/cmdline") or "",
        loaded=frozenset(
            line.split()[0] for line in (_text(root / "proc/modules") or "").splitlines()
        ),
        builtin=frozenset(_modules(_text(tree / "modules.builtin") or "")),
        loadable=_loadable(tree),
        options=_options(root, release),
        locked=(_text(root / "proc/sys/kernel/modules_disabled") or "").strip() == "1",
        loader=(_text(root / "proc/sys/kernel/modprobe") or "").strip(),
    )


def _modprobe_files(root: Path) -> Iterator[tuple[str, str]]:
    """A file hides those of its name in weaker directories."""
    seen: set[str] = set()
    for place in MODPROBE_PLACES:
        directory = root / place / "modprobe.d"
        with contextlib.suppress(OSError):
            for path in sorted(directory.glob("*.conf")):
                if path.name not in seen:
                    seen.add(path.name)
                    # A link to /dev/null only hides others; a FIFO would never end.
                    yield str(path), (_text(path) if path.is_file() else None) or ""


def _loadable(tree: Path) -> frozenset[str] | None:
    """What the kernel can load; None where that is hidden.

    ProtectKernelModules= of systemd.exec(5) puts an empty directory in the place of all modules.
    """
    listing = _text(tree / "modules.dep")
    if listing is not None:
        return frozenset(_modules(listing))
    with contextlib.suppress(OSError):
        if tree.exists() or not tree.parent.stat().st_mode & 0o777:
            return None
    return frozenset()


def _modules(listing: str) -> Iterator[str]:
    """Names by their paths, `kernel/net/ipv4/esp4.ko.xz: …`; with _ as the kernel shows them."""
    for line in listing.splitlines():
        name = line.partition(":")[0].rpartition("/")[2].partition(".ko")[0]
        yield name.replace("-", "_")


def _options(root: Path, release: str) -> tuple[tuple[str, str], ...] | None:
    """What is set of the kernel's configuration."""
    text = _text(root / "boot" / f"config-{release}")
    if text is None:
        with (
            contextlib.suppress(OSError, EOFError, UnicodeDecodeError),
            gzip.open(root / "proc/config.gz", "rt", encoding="utf-8") as file,
        ):
            text = file.read(LARGEST)
    if text is None:
        return None
    lines = (line for line in text.splitlines() if line.startswith(OPTIONS))
    return tuple((name, value) for name, _, value in (line.partition("=") for line in lines))


def _text(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST)
    except OSError:
        return None
