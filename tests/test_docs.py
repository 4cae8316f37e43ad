"""README.md and docs/: what they say of the code is compared with the code."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.cli import CERTS_ACTIONS, GUARD_ACTIONS, VERBS
from ipsec_agent.core.certificates.material import read_files
from ipsec_agent.core.certificates.shown import document as certificates_document
from ipsec_agent.core.charon_log import PATTERNS
from ipsec_agent.core.config import DEFAULT_ESP, DEFAULT_IKE, AgentConfig, ExpiryPeriods
from ipsec_agent.core.events import Event, EventKind
from ipsec_agent.core.manifest.agent_section import AGENT_KEYS, CHARON_KEYS
from ipsec_agent.core.manifest.parser import PERIODS, PROPERTIES, parse
from ipsec_agent.core.problems.guard import GuardState
from ipsec_agent.core.problems.xfrm_counters import MEANINGS, code
from ipsec_agent.core.report.examined import document as report_document
from ipsec_agent.core.report.examined import examined
from ipsec_agent.core.report.findings import TITLES, Kind
from ipsec_agent.core.report.reading import Read
from ipsec_agent.core.status import State, document, guard_counters
from ipsec_agent.core.status_view import Condition
from ipsec_agent.guard_status import ClosedBy, GuardStatus, Saved, TableState
from ipsec_agent.guard_status import document as guard_status_document
from ipsec_agent.verbs.plan import document as plan_document
from tests import incidents
from tests.certificates import make_ca, make_leaf
from tests.configs import config
from tests.core.test_optional import loose_vm, with_clear
from tests.core.test_status import snapshot
from tests.manifests import manifest
from tests.vm import healthy_vm, with_sa

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
CODE = re.compile(r"[a-z]+(-[a-z]+)*")
PROBLEM = ast.dump(ast.Name("Problem", ast.Load()))


def page(name: str) -> str:
    """The text of a page of docs/."""
    return (ROOT / "docs" / name).read_text()


def words_of(nodes: ast.AST) -> Iterator[str]:
    """Strings within an expression that may be a problem's code."""
    for node in ast.walk(nodes):
        if isinstance(node, ast.Constant) and CODE.fullmatch(str(node.value)):
            yield str(node.value)


def codes_of(tree: ast.Module) -> Iterator[str]:
    """The codes of the problems that a module makes, as written, or as given to a name."""
    yield from handed_on(tree)
    for first in first_arguments(tree):
        if isinstance(first, ast.Constant):
            yield str(first.value)
        elif isinstance(first, ast.IfExp):
            yield from (*words_of(first.body), *words_of(first.orelse))
        elif isinstance(first, ast.Name):
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == first.id:
                    yield from words_of(node.value)
        else:
            assert ast.unparse(first) in {"line.code", "code(rise.name)"}, (
                "teach this test its code"
            )


def handed_on(tree: ast.Module) -> Iterator[str]:
    """The codes that a function takes as an argument, as its callers write them."""
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        places = [argument.arg for argument in function.args.args]
        for first in first_arguments(function):
            if ast.unparse(first) in places:
                position = places.index(ast.unparse(first))
                for call in calls:
                    if ast.unparse(call.func) == function.name:
                        yield from words_of(call.args[position])


def first_arguments(tree: ast.AST) -> Iterator[ast.expr]:
    """The first argument of each call of Problem."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.dump(node.func) == PROBLEM:
            yield node.args[0]


def codes() -> set[str]:
    """The codes of all problems that the agent can show, but for the kernel's counters."""
    made = {code for _, code, _ in PATTERNS}
    for path in (ROOT / "ipsec_agent").rglob("*.py"):
        text = path.read_text()
        if "Problem(" in text:
            made |= set(codes_of(ast.parse(text)))
    return made


def test_every_problem_has_its_entry() -> None:
    """docs/problems.md has one heading for each code that the agent can show, and no other."""
    made = codes()
    assert {"guard-missing", "ipsec-disabled", "policies-bypassed", "peer-lies"} <= made
    headings = re.findall(r"^### `(.+)`$", page("problems.md"), flags=re.MULTILINE)
    assert sorted(headings) == sorted({*made, "xfrm-…"})


def test_every_entry_tells_both_sides() -> None:
    """Each says how loud it is, what the agent does by itself and what to do."""
    for entry in re.split(r"^### ", page("problems.md"), flags=re.MULTILINE)[1:]:
        severity = re.match(r".*\n\*\*(info|warning|error|critical)\b", entry)
        assert severity, entry
        assert "\n- The agent: " in entry, entry
        assert "\n- You" in entry, entry


def test_every_counter_has_its_row() -> None:
    """docs/problems.md has a row for each counter of the kernel whose meaning is known."""
    rows = re.findall(r"^\| `(xfrm-[a-z-]+)`", page("problems.md"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(map(code, MEANINGS))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Each link within the project names a file that is there, and a heading of it."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text()):
        name, _, anchor = target.partition("#")
        other = path.parent / name if name else path
        assert other.exists(), target
        assert not anchor or anchor in set(anchors(other.read_text())), target


def anchors(text: str) -> Iterator[str]:
    """What a link may name: each heading in lower case, hyphens for spaces, no punctuation."""
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def rows(text: str, heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    _, _, below = text.partition(f"{heading}\n")
    assert below, heading
    table = re.search(r"(?:^\|.*\n)+", below, flags=re.MULTILINE)
    assert table, heading
    firsts = [line.split("|")[1] for line in table[0].splitlines()[2:]]
    return {name for first in firsts for name in re.findall(r"`([^`]+)`", first)}


def test_config_keys() -> None:
    """docs/config.md has a row for each key that the parser knows."""
    text = page("config.md")
    assert rows(text, "## Properties") == PROPERTIES
    assert rows(text, "## agent") == AGENT_KEYS
    assert rows(text, "## agent.charon") == CHARON_KEYS


def test_config_defaults() -> None:
    """docs/config.md tells the defaults that the code has."""
    agent, periods, text = AgentConfig(), ExpiryPeriods(), page("config.md")
    defaults = {
        **{key: getattr(agent, key) for key in ("outside", "guard", "mtu", "run_dir", "state_dir")},
        "interval": f"{agent.interval:g}",
        "log": agent.charon.log,
        "esp_proposals": "`, `".join(DEFAULT_ESP),
        "ike_proposals": "`, `".join(DEFAULT_IKE),
        **{f"instance_certificate_{name}_period": getattr(periods, name) for name in PERIODS},
    }
    for key, default in defaults.items():
        (row,) = re.findall(rf"^\| `{key}` \|.*$", text, re.MULTILINE)
        assert row.split(" | ")[2].strip("`") == str(default), key


def test_status_keys() -> None:
    """docs/status.md has a row for each key of the document, and of its peers."""
    text, vm = page("status.md"), with_sa(healthy_vm())
    shown = document(snapshot(vm))
    counters = set(guard_counters(None))
    assert rows(text, "## `status --json`") == set(shown)
    assert rows(text, "### peers") == set(shown["peers"][0])
    assert rows(text, "### Counters of the guard") == counters
    assert set(shown["guard"]) == {"mode", "state", "drops"} | counters
    event = Event(EventKind.START, "x", "", 1.0, 1.0)
    (told,) = document(replace(snapshot(vm), events=(event,)))["events"]
    assert rows(text, "### events") == set(told)
    vm = with_clear(loose_vm())
    (cut,) = document(snapshot(vm))["optional"]["would_cut_off"]
    assert rows(text, "### optional") == set(cut)
    for code_of_state in (*State, *GuardState, *Condition, *EventKind):
        assert f"`{code_of_state}`" in text


def test_guard_status_keys() -> None:
    """docs/status.md has a row for each key of `guard status --json`."""
    seen = guard_status_document(
        GuardStatus(TableState.MISSING, None, None, Saved.MISSING, ()), Path("/x")
    )
    assert rows(page("status.md"), "## `guard status --json`") == set(seen) - set(
        guard_counters(None)
    )
    for word in (*TableState, *Saved, *ClosedBy):
        assert f"`{word}`" in page("status.md")


def test_plan_keys() -> None:
    """docs/status.md has a row for each key of `plan --json`."""
    shown = plan_document(config(), ip_address("10.0.0.5"), ip_address("10.0.0.9"))
    assert rows(page("status.md"), "## `plan --json`") == set(shown)


def test_report_keys() -> None:
    """docs/report.md has a row for each key of `report --json`, and for each kind of finding."""
    shown = report_document(examined(Read()))
    assert rows(page("report.md"), "## `report --json`") == set(shown)
    for kind in Kind:
        assert f"\n| {TITLES[kind]} | `{kind}` | " in page("report.md")


def test_certificate_keys() -> None:
    """docs/status.md has a row for each key of `certs show --json`, and of its certificates."""
    ca = make_ca()
    shown = certificates_document(read_files([("a.pem", ca.cert_pem)]), datetime.now(UTC))
    assert rows(page("status.md"), "## `certs show --json`") == set(shown)
    assert rows(page("status.md"), "### Certificates") == set(shown["certificates"][0])


def test_verbs() -> None:
    """docs/status.md tells the exit codes of each verb, and of each action of one that has some."""
    told = {" ".join(row.split()[:2]) for row in rows(page("status.md"), "## Exit codes")}
    named = {word.split("[")[0].strip() for word in told}
    actions = {"guard": GUARD_ACTIONS, "certs": CERTS_ACTIONS}
    wanted = {f"{verb} {action}" for verb, names in actions.items() for action in names}
    wanted |= VERBS.keys() - actions.keys()
    assert named == wanted


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", page("config.md"), re.DOTALL))
def test_examples_of_the_agent_section(example: str) -> None:
    """Each example of docs/config.md is accepted, beside the properties of a good config."""
    ca = make_ca()
    text = manifest(leaf=make_leaf(ca), cas=[ca], form="rendered") + example
    assert parse(text, file="ipsec.yml", now=datetime.now(UTC)).complaints == ()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_readme_example(tmp_path: Path) -> None:
    """What README.md has a newcomer type makes a config that is good and encrypts."""
    (script,) = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-euc", script],
        check=False,
        cwd=tmp_path,
        env={"PATH": programs},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "ipsec.yml is valid" in done.stdout
    assert "to 10.0.1.9: encrypt" in done.stdout
    parsed = parse((tmp_path / "ipsec.yml").read_text(), file="ipsec.yml", now=datetime.now(UTC))
    assert parsed.config
    assert parsed.complaints == ()


def test_quoted_complaint() -> None:
    """The complaint that docs/config.md quotes is the parser's."""
    (quoted,) = re.findall(
        r"^    ipsec\.yml:79: properties\.(.+) …$", page("config.md"), re.MULTILINE
    )
    ca = make_ca()
    text = manifest(leaf=make_leaf(ca), cas=[ca], form="rendered", ca_certificates=ca.cert_pem)
    found = parse(text, file="ipsec.yml", now=datetime.now(UTC)).complaints
    assert any(quoted in str(complaint) for complaint in found)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_named_files_are_there(path: Path) -> None:
    """A file of the project that a page names is there, as is a module of the package."""
    places = (ROOT, ROOT / "ipsec_agent", ROOT / "tests")
    for named in re.findall(
        r"`((?:[a-z_]+/)*[a-z_0-9]+\.py|(?:core|tests)/[a-z_/]+)`", path.read_text()
    ):
        assert any((place / named).exists() for place in places), named


def test_parts() -> None:
    """docs/testing.md has a row for each part of scripts/test, with its limit."""
    script, text = (ROOT / "scripts/test").read_text(), page("testing.md")
    (parts,) = re.findall(r"^all=\((.*)\)$", script, re.MULTILINE)
    limits = dict(re.findall(r"^    (\w+)\) limit=(\d+) ", script, re.MULTILINE))
    told = re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) s[^|]*\|$", text, re.MULTILINE)
    assert [part for part, _ in told] == parts.split()
    assert {part: limit.replace(",", "") for part, limit in told if part != "esp"} == limits


def changes() -> Iterator[tuple[str, str]]:
    """The entries of CHANGELOG.md, each with the heading that it is below."""
    heading = ""
    for part in re.split(r"(?m)(?=^(?:- |#))", (ROOT / "CHANGELOG.md").read_text()):
        if part.startswith("#"):
            heading = heading + part if part.startswith("###") else part
        elif part.startswith("- "):
            yield heading, " ".join(part.split())[:60]


def test_changes_are_told_once() -> None:
    """No two entries of a section begin alike: a merge may bring one in twice."""
    found = list(changes())

    assert len(found) > 100
    assert [one for one in set(found) if found.count(one) > 1] == []


UNSAID = re.compile(
    r"\b(anew|mend(s|ed|ing)?|stands|stood|thereof|hitherto|amiss|tells of none"
    r"|that cannot be(?=[,.:;*]|$)"
    r"|(?<!there )is no (file|text|peer|address|proof|status|variable|CA))\b"
)
"""What nobody says aloud."""


def written(path: Path) -> Iterator[str]:
    """The strings of a module that are more than one word, without docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and " " in text and id(node) not in docstrings:
            yield text


def test_plain_words() -> None:
    """Pages, change log and messages have words that an operator would use, too."""
    texts = [(path, path.read_text()) for path in (*PAGES, ROOT / "CHANGELOG.md")]
    modules = ROOT.glob("ipsec_agent/**/*.py")
    texts += [(path, one) for path in modules for one in written(path)]

    assert [(path.name, found[0]) for path, text in texts for found in UNSAID.finditer(text)] == []
    assert UNSAID.search("2 for a command line that cannot be, whatever")


def test_sections_of_changes() -> None:
    """A release has each section of Keep a Changelog once at the most, in one order."""
    order = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    for release in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]:
        sections = re.findall(r"(?m)^### (.+)$", release)
        assert sections == [one for one in order if one in sections]


INCIDENT = re.compile(
    r"^\| (?P<what>.+?) \| \[`(?P<code>[a-z-]+)`\]\(problems\.md#[a-z-]+\) \| (?P<words>.+?)"
    r" \| `(?P<file>tests/\w+/test_\w+\.py)::(?P<test>test_\w+)` \|$",
    re.MULTILINE,
)


def test_each_incident_is_told_of_and_shown() -> None:
    """docs/testing.md has the words of each, and a test that shows them for real."""
    named = {
        (one.code, " … ".join(one.words)): name
        for name, one in vars(incidents).items()
        if isinstance(one, incidents.Incident)
    }
    rows = [row.groupdict() for row in INCIDENT.finditer(page("testing.md"))]

    assert {(row["code"], row["words"]) for row in rows} == set(named)
    for row in rows:
        source = (ROOT / row["file"]).read_text()
        assert f"def {row['test']}(" in source, row
        assert f"incidents.{named[row['code'], row['words']]}" in source, row
    assert len({row["what"] for row in rows}) == len(rows) >= 15
