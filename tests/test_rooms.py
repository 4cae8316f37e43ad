"""The arrows: what may import what, read from the source."""

import ast
import functools
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ipsec_agent"
MODULES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN_IN_CORE = {
    "asyncio", "logging", "os", "pathlib", "psutil", "pyroute2", "random", "socket",
    "structlog", "subprocess", "time", "vici",
}  # fmt: skip
WITHIN_HOST = {
    "charon": {"decoded", "vici_message", "vici_wire"},
    "charon_end": {"process", "systemd"},
    "charon_events": {"charon", "own_time", "vici_wire"},
    "charon_session": {"charon"},
    "charon_start": {"charon", "files", "own_time", "process", "systemd"},
    "clock": {"files"},
    "deaths": {"process", "systemd"},
    "outages": {"files"},
    "echo": {"socket_policy"},
    "output_file": {"writers"},
    "peers": {"files", "socket_policy"},
    "drain_file": {"birth", "files", "pidfd"},
    "evidence": {"files", "program"},
    "essential_addresses": {"names", "ssh_sessions"},
    "event_file": {"files"},
    "faults": {"files"},
    "files": {"writers"},
    "link_events": {"rtnetlink"},
    "link_reading": {"link_events", "link_records", "netlink_errors", "rtnetlink"},
    "link_records": {"rtnetlink", "veth"},
    "links": {
        *("link_events", "link_reading", "netlink_errors", "netlink_wire", "route_records"),
        *("rtnetlink", "veth"),
    },
    "listed_certificates": {"charon"},
    "loaded": {"files"},
    "made_with": {"files"},
    "monit": {"proc_net"},
    "neighbours": {"rtnetlink"},
    "netlink_wire": {"netlink_errors", "rtnetlink"},
    "ike_ports": {"proc_net", "socket_holders"},
    "installed": {"program"},
    "jobs": {"files", "monit"},
    "nft": {
        *("nft_events", "nft_exempt", "nft_image", "nft_table", "nft_tables", "nft_trial"),
        *("files", "nft_refusals", "nft_wire", "own_time", "program"),
    },
    "nft_events": {"nft_wire"},
    "nft_exempt": {"nft_image", "nft_table", "nft_wire"},
    "nft_image": {"nft_wire"},
    "nft_table": {"nft_image", "nft_wire"},
    "nft_refusals": {"nft_image", "nft_wire", "socket_holders"},
    "nft_tables": {
        "nft_events",
        "nft_exempt",
        "nft_image",
        "nft_refusals",
        "nft_table",
        "nft_wire",
    },
    "nft_trial": {"nft_image", "nft_tables", "nft_wire"},
    "peer_sas": {
        *("netlink_errors", "rtnetlink", "xfrm_messages", "xfrm_records", "xfrm_wire"),
    },
    "process": {"birth", "files", "own_time", "pidfd", "writers"},
    "program": {"own_time"},
    "preflight": {"xfrm_messages", "xfrm_records"},
    "rehearsals": {"charon"},
    "renewals": {"charon"},
    "route_records": {"netlink_errors", "rtnetlink"},
    "saved_guard": {"files"},
    "silence": {"process"},
    "socket_policy": {"xfrm_messages"},
    "ssh_sessions": {"proc_net", "socket_holders"},
    "systemd": {"program"},
    "veth": {"rtnetlink"},
    "vici_wire": {"own_time", "vici_message", "writers"},
    "xfrm": {
        *("decoded", "netlink_wire", "rtnetlink"),
        *("xfrm_level", "xfrm_messages", "xfrm_records", "xfrm_wire"),
    },
    "xfrm_level": {"xfrm_messages", "xfrm_records"},
    "xfrm_messages": {"pyroute2_parts"},
    "xfrm_records": {"decoded", "rtnetlink", "xfrm_messages"},
    "xfrm_wire": {"netlink_errors", "netlink_wire", "own_time", "rtnetlink", "xfrm_messages"},
}
FOR_EVERY_HOST = {"exhausted", "understood"}

LEVELS: tuple[set[str], ...] = (
    {"__init__", "errors"},
    {"core"},
    {"host", "log"},
    {
        "act",
        "admission",
        "cached",
        "config_file",
        "esp_reading",
        "exemptions",
        "guard_status",
        "observe",
    },
    {"charon_part", "config_watch", "kernel_part", "machine_check", "reporter", "verification"},
    {"drain", "examination", "machine", "reconcile"},
    {"answers", "candidate", "prover", "rehearsal", "renew"},
    {"history"},
    {"agent"},
    {"verbs"},
    {"cli"},
    {"__main__"},
)
"""From the ground up: nobody imports what is on a level above, or another one on his own level."""

TELLING = re.compile(
    r"core\.(problems|health|health_answer|metrics|events|status|status_peers|status_rotation|traffic|verify"
    r"|doctor|outages|proving|report)"
    r"(\.|$)"
)
"""What tells an operator how the VM is; no decision is made of it."""

MAY_IMPORT_PYROUTE2 = {"host.pyroute2_parts"}
MAY_IMPORT_AGENT = {"verbs.run"}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 40


def name_of(path: Path) -> str:
    """`host.xfrm` for ipsec_agent/host/xfrm.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


NAMES = {name_of(path) for path in MODULES}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A file's tree."""
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@functools.cache
def ours(path: Path) -> frozenset[str]:
    """What a file imports of the package, without the package's name."""
    return frozenset(
        name.removeprefix("ipsec_agent.") for name in imports(path) if "ipsec_agent." in name
    )


def check_arrows(path: Path) -> None:
    """core imports only core and errors; host only core, errors and what the table allows."""
    name, wanted = name_of(path), ours(path)
    room = name.partition(".")[0]
    tops = {item.partition(".")[0] for item in wanted}
    if room == "core":
        assert tops <= {"core", "errors"}
        assert not {item.partition(".")[0] for item in imports(path)} & FORBIDDEN_IN_CORE
    elif room == "host":
        assert tops <= {"core", "errors", "host"}
        mine = name.removeprefix("host.")
        within = {item.split(".")[1] for item in wanted if item.startswith("host.")}
        assert within <= WITHIN_HOST.get(mine, set()) | FOR_EVERY_HOST
    elif room == "errors":
        assert tops == set()
    if name not in MAY_IMPORT_PYROUTE2:
        assert "pyroute2" not in {item.partition(".")[0] for item in imports(path)}
    if name not in MAY_IMPORT_AGENT:
        assert "agent" not in tops
    if name != "__main__":
        assert "cli" not in tops


def check_levels(path: Path) -> None:
    """No arrow goes upward; within core none goes from a decision to what tells of it."""
    name = name_of(path)
    level = {top: number for number, tops in enumerate(LEVELS) for top in tops}
    top = name.partition(".")[0]
    for other in ours(path) & NAMES:
        its = other.partition(".")[0]
        assert its == top or level[its] < level[top], other
        if top == "core" and not TELLING.match(name):
            assert not TELLING.match(other), other


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module(path: Path) -> None:
    """Of each: where its arrows lead, on which level, and how long it is."""
    check_arrows(path)
    check_levels(path)
    check_size(path)


def test_no_cycle() -> None:
    """Each module can be understood after those that it imports."""
    arrows = {name_of(path): ours(path) & NAMES for path in MODULES}
    order = list(TopologicalSorter(arrows).static_order())
    assert order.index("core.model") < order.index("core.plan") < order.index("reconcile")


def check_size(path: Path) -> None:
    """A module says what it owns, has 400 lines at most, and no function of more than 40."""
    text = path.read_text()
    tree = parsed(path)
    assert not text or ast.get_docstring(tree), "begin with what the module owns"
    assert len(text.splitlines()) <= LONGEST_MODULE
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= LONGEST_FUNCTION, node.name


def test_one_way_to_the_terminal() -> None:
    """What others may have named is written only where a terminal obeys nothing of it."""
    writers = {
        name_of(path)
        for path in MODULES
        if re.search(r"sys\.std(out|err)\.write\(|\bprint\(", path.read_text())
    }

    assert writers == {"host.own_process", "verbs.terminal"}
