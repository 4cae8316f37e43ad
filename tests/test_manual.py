"""The manual page and the completions: they are made of the help texts of now, and work."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ipsec_agent.cli import CERTS_ACTIONS, GUARD_ACTIONS, VERBS
from scripts.manual import made
from tests.data_files import ROOT, installed

FILES = made()
PAGE, BASH, ZSH = FILES

ASK = """
source "$1"; shift
COMP_WORDS=(ipsec-agent "$@") COMP_CWORD=$#
_ipsec_agent
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words: str, directory: Path = ROOT) -> set[str]:
    """What bash offers for the last word."""
    done = subprocess.run(
        ["bash", "--norc", "-uc", ASK, "bash", str(BASH), *words],
        check=True, cwd=directory, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_of_now(path: Path) -> None:
    """After a change of the help texts: `.venv/bin/python scripts/manual.py`."""
    assert path.read_text() == FILES[path]


def test_each_has_its_place() -> None:
    """The installation puts them where man and the shells look."""
    places = {path: place for place, path in installed().items()}

    assert [places[path] for path in FILES] == [
        "usr/share/man/man8/ipsec-agent.8",
        "usr/share/bash-completion/completions/ipsec-agent",
        "usr/share/zsh/site-functions/_ipsec-agent",
    ]


def test_bash_verbs() -> None:
    """Each verb, each action of one that has some, and what begins as the word does."""
    assert completed("") == {*VERBS, "--help", "--version"}
    assert completed("guard", "") == {*GUARD_ACTIONS, "--help"}
    assert completed("certs", "") == {*CERTS_ACTIONS, "--help"}
    assert completed("re") == {verb for verb in VERBS if verb.startswith("re")}
    assert completed("run", "--f") == {"--force"}
    assert completed("guard", "up", "--c") == {"--closed", "--config"}
    assert completed("status", "--json", "--wa") == {"--wait", "--watch"}


def test_bash_values(tmp_path: Path) -> None:
    """Choices, files and directories where an option or a word takes them; else nothing."""
    (tmp_path / "a.yml").touch()
    (tmp_path / "b").mkdir()

    assert completed("check", "--baseline", "") == {"default", "cnsa2"}
    assert completed("check", "", directory=tmp_path) >= {"a.yml", "b", "--machine"}
    assert completed("run", "--config", "", directory=tmp_path) == {"a.yml", "b"}
    assert completed("certs", "create", "--dir", "", directory=tmp_path) == {"b"}
    assert completed("plan", "--to", "", directory=tmp_path) == set()
    assert completed("reload", "", directory=tmp_path) == {
        *("--help", "--socket", "--force", "--dry-run"),
    }


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh() -> None:
    """zsh can parse it."""
    done = subprocess.run(
        ["zsh", "-n", str(ZSH)], check=False, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_zsh_has_everything() -> None:
    """Each verb and action has its function, which offers its options."""
    text = ZSH.read_text()
    names = [*VERBS, *(f"guard-{one}" for one in GUARD_ACTIONS)]
    names += [f"certs-{one}" for one in CERTS_ACTIONS]
    for name in names:
        assert f"\n_ipsec-agent-{name}() {{\n" in text
    assert "'--bits[bits of the RSA keys of VMs; default\\: 3072]:BITS:(3072 4096)'" in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_page() -> None:
    """groff warns of nothing, and every verb has its part."""
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tascii", "-P-cbou", str(PAGE)],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.stderr == ""
    lines = {line.strip() for line in done.stdout.splitlines()}
    assert VERBS.keys() - {"guard", "certs"} <= lines
    assert {f"guard {one}" for one in GUARD_ACTIONS} <= lines
    text = " ".join(done.stdout.split())
    assert "Example: ipsec-agent certs create --ca certs/pcf-ipsec-ca-cert.pem --dir" in text
