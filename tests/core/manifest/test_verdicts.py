"""The table: each certificate judged by `check`, by charon's own code (`pki`), and by openssl."""

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.core.strongswan_conf import PLUGINS
from tests.manifests import manifest
from tests.verdict_table import CASES as ALL
from tests.verdicts import Case, Chain

NOT_OF_PKI = {"kernel-netlink", "socket-default", "counters", "vici"}
DEADLINE = 20.0

BY_NEW_LIBRARY = {
    "a country of three letters",
    "a name of 300 letters",
    "a sign that PrintableString has not",
    "an algorithm with parameters that it has not",
    "an empty name",
}
"""Rows of what an older library reads, or warns of where a newer one does not."""

NEW = int(version("cryptography").partition(".")[0]) >= 46
CASES = [case for case in ALL if NEW or case.name not in BY_NEW_LIBRARY]


@pytest.fixture(scope="module")
def versions() -> dict[str, str]:
    """The versions of the programs that are installed here."""
    asked = {"pki": ("pki", "--help"), "openssl": ("openssl", "version")}
    found = {}
    for program, words in asked.items():
        if shutil.which(program):
            said = run(*words).stdout
            number = re.search(r"(?i:strongswan|openssl) (\d+\.\d+\.\d+)", said)
            assert number, said
            found[program] = number[1]
    return found


@pytest.fixture(scope="module")
def charons_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A strongswan.conf that makes `pki` judge with the plugins that our charon has."""
    plugins = " ".join(name for name in PLUGINS if name not in NOT_OF_PKI)
    conf = tmp_path_factory.mktemp("pki") / "strongswan.conf"
    conf.write_text(f"pki {{\n  load = {plugins}\n}}\n")
    return conf


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that judges."""
    return subprocess.run(
        words,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def said_by_check(chain: Chain) -> list[str]:
    """The errors of `check`."""
    text = manifest(leaf=chain.leaf, behind=chain.behind, cas=chain.cas)
    parsed = parse(text, file="ipsec.yml", now=datetime.now(UTC))
    found = [item.message for item in parsed.complaints if item.severity == "error"]
    assert (parsed.config is None) == bool(found)
    return found


def trusted_by_pki(chain: Chain, directory: Path, conf: Path) -> bool:
    """Whether charon's code trusts it; a CA that it cannot load keeps charon from starting."""
    words: list[str | Path] = ["pki", "--verify", "--in", directory / "leaf"]
    (directory / "leaf").write_text(chain.leaf.cert_pem)
    # charon trusts each CA that it is given, those behind the leaf as well (vici_cred.c).
    for number, ca in enumerate((*chain.cas, *chain.behind)):
        (directory / f"ca-{number}").write_text(ca.cert_pem)
        words += ["--cacert", directory / f"ca-{number}"]
    done = run(*words, STRONGSWAN_CONF=str(conf))
    return done.returncode == 0 and "parsing CA certificate from" not in done.stderr


def trusted_by_openssl(chain: Chain, directory: Path) -> bool:
    """Whether `openssl verify` trusts it."""
    for name, ones in {"leaf": (chain.leaf,), "cas": chain.cas, "behind": chain.behind}.items():
        (directory / name).write_text("".join(one.cert_pem for one in ones))
    words: list[str | Path] = ["openssl", "verify", "-CAfile", directory / "cas"]
    if chain.behind:
        words += ["-untrusted", directory / "behind"]
    return run(*words, directory / "leaf").returncode == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdicts(
    case: Case, versions: dict[str, str], charons_plugins: Path, tmp_path: Path
) -> None:
    """`check` refuses what any charon refuses, and says why; the rest it accepts."""
    chain = case.make()
    said = said_by_check(chain)

    if case.says:
        assert [text for text in said if case.says in text], said
    else:
        assert said == []
    if case.pki and "pki" in versions:
        trusted = trusted_by_pki(chain, tmp_path, charons_plugins)
        assert trusted == case.trusted_by(versions["pki"])
    if versions.get("openssl", "").startswith("3.0."):
        assert trusted_by_openssl(chain, tmp_path) == case.trusted_by_openssl


def test_charons_code_was_asked(versions: dict[str, str]) -> None:
    """The table is more than our own opinion."""
    if "pki" not in versions:
        pytest.skip("pki is not installed: apt install strongswan-pki")
    assert sum(case.pki for case in CASES) >= 60


def test_what_only_we_refuse_says_so() -> None:
    """Where every charon trusts what we refuse, the message names our rule."""
    ours = [case for case in CASES if case.says and case.trusted and case.since is not False]

    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
    assert ours
    for case in ours:
        assert any("ipsec-agent" in text for text in said_by_check(case.make())), case.name
