"""`ipsec-agent bundle`: one archive for support. It needs no agent, and no part of it is needed."""

import argparse
import json
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from msgspec import Struct

from ipsec_agent import __version__
from ipsec_agent.config_file import accepted, agent_of, load
from ipsec_agent.core.config import AgentConfig, Config
from ipsec_agent.core.model import GUARD_TABLE
from ipsec_agent.core.status_view import peers
from ipsec_agent.core.support import outline, scrubbed, shown_config
from ipsec_agent.core.words import several
from ipsec_agent.errors import AgentError, ConfigError
from ipsec_agent.host.charon_start import log_file
from ipsec_agent.host.control_client import ask
from ipsec_agent.host.evidence import Outcome, said, tail, write_archive
from ipsec_agent.host.files import read_config
from ipsec_agent.host.own_process import say
from ipsec_agent.verbs import status_events, status_peers
from ipsec_agent.verbs.status_text import text as status_text

DEADLINE, IN_ALL = 10.0, 90.0
"""Seconds for each part, and for all of them."""

HOME = Path(__file__).parents[2]
"""Where the agent is installed; with Debian's package its libraries are there, too."""

PROGRAM = (
    *(sys.executable, "-IS", "-c"),
    f"import sys; sys.path[:] = {sys.path!r}; from ipsec_agent.cli import main; sys.exit(main())",
)
"""Itself, with this process's own modules: `-m` would take any that are in the directory where root
calls it, and would find none of the Debian package's."""

UNITS = ("ipsec-agent", "ipsec-agent-charon", "ipsec-agent-guard", "ipsec-agent-drain")
AGENT_LOG = Path("/var/log/ipsec-agent/agent.log")
"""Under monit; with systemd the journal has it."""

BOSH_LOGS = Path("/var/vcap/sys/log/ipsec")
"""With the BOSH release neither has it."""

LIBRARIES = (
    *("PyYAML", "cryptography", "msgspec", "prometheus-client", "psutil", "pyroute2"),
    *("structlog", "vici"),
)
PACKAGES = (
    *("ipsec-agent", "*strongswan*", "*charon*", "iproute2", "nftables", "systemd", "monit"),
    "linux-image-*",
)


class Part(Struct, frozen=True):
    """A file of the archive.

    Attributes:
        make: makes its text, within so many seconds.
    """

    name: str
    make: Callable[[float], Outcome]


def main(arguments: argparse.Namespace) -> int:
    """Write the archive and tell its name; 0 also where parts are missing, 1 where it is not
    written."""
    now = time.time()
    folder = (
        f"ipsec-agent-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    )
    place = Path(arguments.file or f"{folder}.tar.gz")
    texts = tuple(_texts(_parts(arguments), now))
    write_archive(place, folder, texts, now)
    missing = sum(": missing: " in line for line in texts[-1][1].splitlines())
    lacking = f"{several(missing, 'part')} missing, see parts.txt in it"
    say(f"{place}: {several(len(texts), 'file')}; {lacking}\n")
    return 0


def _texts(parts: Iterable[Part], now: float) -> Iterator[tuple[str, str]]:
    """Each part with its text, and last of all what became of each."""
    lines = [f"ipsec-agent {__version__}, {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now))}"]
    end = time.monotonic() + IN_ALL
    for part in parts:
        began = time.monotonic()
        found = _made(part, end - began)
        text = scrubbed(found.text)
        if text or not found.fault:
            yield part.name, text
        took = f"{time.monotonic() - began:.1f} s"
        fault = scrubbed(" ".join(found.fault.split()))
        lines.append(f"{part.name}: missing: {fault}" if fault else f"{part.name}: {took}")
    yield "parts.txt", "".join(f"{line}\n" for line in lines)


def _made(part: Part, left: float) -> Outcome:
    if left <= 0:
        return Outcome("", "no time was left")
    try:
        return part.make(min(left, DEADLINE))
    except AgentError as error:
        return Outcome("", error.message)


def _parts(arguments: argparse.Namespace) -> Iterator[Part]:
    path = Path(arguments.config)
    config, agent, checked = _checked(path)
    yield Part("versions.txt", _versions)
    yield Part("check.txt", lambda _: Outcome(checked))
    yield Part("config.outline.txt", lambda _: Outcome(outline(read_config(path))))
    if config:
        yield Part("config.json", lambda _: _json(shown_config(config)))
    yield from _agent(arguments.socket or f"{agent.run_dir}/control.sock")
    yield Part("guard.json", _guard_status(path))
    yield from _logs(agent)
    yield from _kernel()
    yield from _charon(agent)


def _words(status: dict[str, Any]) -> str:
    """All that `status` shows a person."""
    parts = status_text(status), status_peers.table(peers(status)), status_events.text(status)
    return "\n".join(parts)


def _agent(control: str) -> Iterator[Part]:
    """What a running agent says."""

    def status(limit: float) -> dict[str, Any]:
        found: dict[str, Any] = ask(control, "status", deadline=limit)["status"]
        return found

    def metrics(limit: float) -> Outcome:
        return Outcome(str(ask(control, "metrics", deadline=limit, peers=True)["metrics"]))

    yield Part("status.json", lambda limit: _json(status(limit)))
    yield Part("status.txt", lambda limit: Outcome(_words(status(limit))))
    yield Part("metrics.txt", metrics)


def _checked(path: Path) -> tuple[Config | None, AgentConfig, str]:
    """The config, None where it is refused; where things are; and what `check` says of it."""
    try:
        loaded = load(path, outdated=accepted)
    except ConfigError as error:
        said = (*error.complaints, error.message, *filter(None, (error.hint,)))
        return None, agent_of(error), "".join(f"{line}\n" for line in said)
    words = "".join(f"{line}\n" for line in (*loaded.warnings, f"{path} is valid"))
    return loaded.config, loaded.config.agent, words


def _json(document: Any) -> Outcome:
    return Outcome(json.dumps(document, indent=1) + "\n")


def _ran(*command: str) -> Callable[[float], Outcome]:
    return lambda limit: said(command, limit)


def _end_of(path: Path) -> Callable[[float], Outcome]:
    return lambda _: Outcome(tail(path))


def _guard_status(path: Path) -> Callable[[float], Outcome]:
    """The verb's document. Its exit code tells of the guard, not of the verb."""

    def run(limit: float) -> Outcome:
        words = ("guard", "status", "--json", "--config", str(path))
        found = said((*PROGRAM, *words), limit)
        return Outcome(found.text) if found.text.startswith("{") else found

    return run


def _logs(agent: AgentConfig) -> Iterator[Part]:
    journal = ("journalctl", "--no-pager", "-o", "short-iso", "-n", "20000", "--since", "-24h")
    for unit in UNITS:
        yield Part(f"log/{unit}.txt", _ran(*journal, "-u", unit))
    if _may_be_there(AGENT_LOG):
        yield Part("log/agent.log", _end_of(AGENT_LOG))
    for path in sorted(BOSH_LOGS.glob("*.log")):
        if str(path) != agent.charon.log:
            yield Part(f"log/{path.name}", _end_of(path))
    if agent.charon.log != AgentConfig().charon.log:
        yield Part("log/charon.log", _end_of(Path(agent.charon.log)))
    else:
        yield Part("log/charon-syslog.txt", _ran(*journal, "-t", "charon-systemd"))
        # Without a journal charon has written here, and so has one of before there was a journal.
        fallback = log_file(Path(agent.run_dir))
        if fallback.exists():
            yield Part("log/charon.log", _end_of(fallback))


def _may_be_there(path: Path) -> bool:
    """Whether a file is there, or where that cannot be seen; then what is told is why not."""
    try:
        return path.exists()
    except OSError:
        return True


def _kernel() -> Iterator[Part]:
    for name, command in (
        ("policies", ("ip", "-s", "xfrm", "policy")),
        # Its word for an answer without keys; what is like one is taken out, too.
        ("states", ("ip", "-s", "xfrm", "state", "list", "nokeys")),
        ("links", ("ip", "-d", "-s", "link")),
        ("addresses", ("ip", "address")),
        ("routes", ("ip", "route", "show", "table", "all")),
        ("rules", ("ip", "rule")),
        ("guard", ("nft", "list", "table", "inet", GUARD_TABLE)),
        ("tables", ("nft", "list", "tables")),
        ("sockets", ("ss", "-lunp")),
    ):
        yield Part(f"kernel/{name}.txt", _ran(*command))
    for path in (Path("/proc/net/xfrm_stat"), Path("/proc/modules")):
        yield Part(f"kernel/{path.name}.txt", _end_of(path))


def _charon(agent: AgentConfig) -> Iterator[Part]:
    uri = f"unix://{agent.vici_socket or f'{agent.run_dir}/charon.vici'}"
    for what in ("stats", "list-sas", "list-conns", "list-certs"):
        yield Part(f"charon/{what}.txt", _ran("swanctl", f"--{what}", "--uri", uri))
    yield Part("units.txt", _ran("systemctl", "--no-pager", "show", *UNITS))


def _versions(limit: float) -> Outcome:
    lines = [
        f"ipsec-agent {__version__}",
        f"Python {platform.python_version()}",
        f"kernel {platform.release()} {platform.version()} {platform.machine()}",
    ]
    for library in LIBRARIES:
        try:
            lines.append(f"{library} {_version(library)}")
        except PackageNotFoundError:
            lines.append(f"{library} is not installed")
    for make in (_end_of(Path("/etc/os-release")), _ran("dpkg-query", "-W", *PACKAGES)):
        try:
            # dpkg-query fails where one of the names is not installed, and tells of the others.
            lines.append(make(limit).text)
        except AgentError as error:
            lines.append(error.message)
    return Outcome("\n".join(lines) + "\n")


def _version(library: str) -> str:
    """Of a library's description Debian's package has the name of its directory alone."""
    for place in HOME.glob(f"{library.lower().replace('-', '_')}-*.dist-info"):
        return place.name.removesuffix(".dist-info").rpartition("-")[2]
    return version(library)
