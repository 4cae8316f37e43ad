"""Each sentence of `verify` and `doctor` is asserted by a test that provokes it for real; what the
chapter on troubleshooting quotes is what the commands say.

Real are the tests of the parts kernel, charon, esp and boot: unit tests make up what is seen.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsec_agent.cli import parser
from ipsec_agent.core.doctor.machine import HARMFUL
from ipsec_agent.core.doctor.report import CHECKS
from tests import incidents
from tests.data_files import ROOT
from tests.test_docs import codes, page

CORE = ROOT / "ipsec_agent" / "core"
REAL = ("kernel", "charon", "lab", "boot")
HOLE = "\0"
"""What stands for a value within a sentence."""

WORDS = 3
"""Words of its own that a sentence has; else it passes on what another module says."""

PLACES: dict[Path, dict[str, tuple[int, ...]]] = {
    **{path: {"Finding": (2, 4)} for path in sorted(CORE.glob("doctor/*.py"))},
    CORE / "doctor" / "firewall_probe.py": {"Probed": (2,)},
    CORE / "verify.py": {
        "Finding": (1, 2), "_timed_out": (1, 2), "_no_policy": (1,), "notes.append": (0,)
    },
}  # fmt: skip
"""Which arguments of which call are sentences, by module."""

OUTAGES = CORE / "doctor" / "outages.py"
"""Where a function returns the sentence."""

REPORT = CORE / "doctor" / "report.py"
"""Where the keys of a table are sentences: why a check was not made."""

NOT_REAL = {
    "strongSwan … has holes in plugins that charon does not load: …": (
        "of the holes that are known, none in such a plugin is newer than all others"
    ),
    "esp4_offload or esp6_offload decrypts before the capture: counted by the SA": (
        "links of namespaces pass ESP to a capture before it is decrypted"
    ),
    "the capture was too slow for some packets that are not ESP": (
        "it takes a flood while nobody reads; tests/kernel/test_capture.py shows that it is counted"
    ),
    "there is an SA, but nothing was sent through it": (
        "an SA would have to end between two looks that are a second apart"
    ),
}
"""What nothing that can be done to a VM provokes, and why."""


def folded(node: ast.AST) -> str:
    """A sentence as it is written, with holes."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(folded, node.values))
    if isinstance(node, ast.BinOp):
        return folded(node.left) + folded(node.right)
    return HOLE


def either(node: ast.expr) -> Iterator[str]:
    """What an argument may be."""
    if isinstance(node, ast.IfExp):
        yield from (*either(node.body), *either(node.orelse))
    else:
        yield folded(node)


def sentences() -> Iterator[str]:
    """Each sentence of the two verbs: what is wrong, what to do, what is well."""
    for path, calls in PLACES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for place in calls.get(ast.unparse(node.func), ()):
                    for argument in node.args[place : place + 1]:
                        yield from either(argument)
    for node in ast.walk(ast.parse(REPORT.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "_unmade":
            yield from (
                folded(key)
                for it in ast.walk(node)
                if isinstance(it, ast.Dict)
                for key in it.keys
                if key is not None
            )
    yield from (well for well, _ in CHECKS.values())
    yield from HARMFUL.values()
    for node in ast.walk(ast.parse(OUTAGES.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "said":
            yield from (
                folded(it.value) for it in ast.walk(node) if isinstance(it, ast.Return) and it.value
            )


def texts(place: Path) -> Iterator[str]:
    """Each text in the code below a directory, with holes."""
    for path in sorted(place.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                yield folded(node)


@functools.cache
def compiled(said: str) -> tuple[str, re.Pattern[str]]:
    """The longest part of a sentence between its holes; what the whole matches with them filled."""
    parts = said.strip(f"{HOLE}\n ").split(HOLE)
    return max(parts, key=len), re.compile(".+".join(map(re.escape, parts)), re.DOTALL)


def fits(said: str, text: str) -> bool:
    """Whether a text has a sentence, with something in its holes."""
    part, whole = compiled(said)
    return part in text and whole.search(text) is not None


SENTENCES = {
    said.replace(HOLE, "…"): said
    for said in sentences()
    if len(re.findall(r"\w+", said.replace(HOLE, " "))) >= WORDS
}
REAL_TEXTS = {
    text.replace(HOLE, "9") for part in REAL for text in texts(ROOT / "tests" / part) if " " in text
}
"""Each text of a real test, with a word for what it fills in."""

ROW = re.compile(r"^\| (.+) \| `(ipsec-agent [^`]+)` \| (.+) \|$", re.MULTILINE)
QUOTED = re.compile("“([^”]+)”")
QUARTER = 0.25
"""How much of a quoted sentence must be of one text of the code's; the rest are values."""


@pytest.mark.parametrize("shown", SENTENCES)
def test_provoked_for_real(shown: str) -> None:
    """A real test has the whole sentence; what cannot be provoked is not claimed to be."""
    provoked = any(fits(SENTENCES[shown], text) for text in REAL_TEXTS)

    assert provoked is (shown not in NOT_REAL)


def test_nothing_is_excused_that_is_not_said() -> None:
    """What is excused is a sentence of today."""
    assert NOT_REAL.keys() <= SENTENCES.keys()
    assert len(SENTENCES) > 40


def chapter() -> str:
    """The tables of docs/troubleshooting.md: the guide's symptoms, its limitations and issues."""
    whole = page("troubleshooting.md")
    symptoms = whole[whole.index("## Symptoms") : whole.index("## Doctor")]
    return symptoms + whole[whole.index("## Limitations and known issues") :]


ROWS = ROW.findall(chapter())


def test_each_symptom_has_its_command() -> None:
    """Each row of the chapter has exactly one, which can be typed as it is."""
    # Each of the two tables has a line of headings.
    assert len(ROWS) == sum(line.startswith("| ") for line in chapter().splitlines()) - 2
    for _, command, _ in ROWS:
        parser().parse_args(command.split()[1:])


@pytest.mark.parametrize(
    ("command", "says"), [row[1:] for row in ROWS], ids=[row[1] for row in ROWS]
)
def test_what_the_chapter_quotes(command: str, says: str) -> None:
    """Each sentence is one of the code's, and a test asserts it: of `verify` and `doctor` a real
    one."""
    verb = command.split()[1]
    tested = REAL_TEXTS if verb in {"verify", "doctor"} else texts_of_tests()
    for quoted in QUOTED.findall(says.replace("\\|", "|")):
        enough = QUARTER * len(quoted)
        own = [
            said
            for said in texts_of_code()
            if len(said.replace(HOLE, "")) >= enough and fits(said, quoted)
        ]
        assert any(fits(said, text) for said in own for text in tested), quoted


@functools.cache
def texts_of_code() -> frozenset[str]:
    """Sentences, or parts of them, that the package has."""
    return frozenset(text for text in texts(ROOT / "ipsec_agent") if " " in text)


@functools.cache
def texts_of_tests() -> frozenset[str]:
    """What any test has."""
    return frozenset(text.replace(HOLE, "9") for text in texts(ROOT / "tests") if " " in text)


UNPROVOKED = {
    "plan-unsafe": "a defect of the agent's own",
    "trap-not-installed": "a kernel takes every policy of charon's, unless it is out of memory or a"
    " security module takes the capability of a charon that runs: one that has none does not start",
}
"""Problems that no agent of a real test reports, and why."""


def test_each_problem_is_reported_by_a_real_agent() -> None:
    """Its code is in a real test, but for those that are listed here, which must not be."""
    parts = (*REAL, "fleet", "monit", "release")
    named = {text for part in parts for text in texts(ROOT / "tests" / part)}
    # tests/test_docs.py sees to it that a real test shows each.
    named |= {one.code for one in vars(incidents).values() if isinstance(one, incidents.Incident)}

    assert set(codes()) - named == UNPROVOKED.keys()
