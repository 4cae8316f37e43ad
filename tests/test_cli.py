"""The command line: exit codes, words, and what a fast verb must not import."""

import argparse
import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ipsec_agent.cli import GUARD_ACTIONS, VERBS, main, parser
from ipsec_agent.core.commands import DEFAULT_CONFIG
from ipsec_agent.host import clock
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A manifest that is accepted."""
    ca = make_ca()
    path = tmp_path / "ipsec.yml"
    path.write_text(manifest(["10.0.1.1/20"], ["10.0.1.4/32"], leaf=make_leaf(ca), cas=[ca]))
    return path


def test_check_good(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A good config: 0, and host bits shown normalised."""
    assert main(["check", str(good)]) == 0

    assert "ipsec_subnets: 10.0.1.1/20 (is 10.0.0.0/20)" in capsys.readouterr().out


def test_check_bad(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad config: 1, the complaint with its line, and no traceback."""
    good.write_text(good.read_text().replace("10.0.1.1/20", "10.0.1.1/99"))

    assert main(["check", str(good)]) == 1

    said = capsys.readouterr().err
    assert f"{good}:" in said
    assert "'10.0.1.1/99' is not a subnet" in said
    assert "is refused: 1 error" in said


def expired(path: Path) -> None:
    """Replace a manifest by one whose certificate has expired."""
    ca = make_ca()
    old = make_leaf(ca, days=5, not_before=datetime.now(UTC) - timedelta(days=10))
    agent = {"address": "10.0.1.7", "state_dir": str(path.parent)}
    path.write_text(manifest(["10.0.1.0/24"], leaf=old, cas=[ca], agent=agent))


def test_check_soon(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate that ends soon: still 0, and a warning with its line on standard error."""
    ca = make_ca()
    good.write_text(manifest(leaf=make_leaf(ca, days=6), cas=[ca]))

    assert main(["check", str(good)]) == 0

    said = capsys.readouterr()
    assert "is valid" in said.out
    assert ": warning: addons[0].properties.ipsec.instance_certificate: CN=VM ends on " in said.err
    assert "in 4 days; renew it" in said.err


def test_expired(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` refuses what has expired; `plan` needs no certificate, and tells what it always does.

    The clock is not blamed without a reason.
    """
    expired(good)

    assert main(["check", str(good)]) == 1
    said = capsys.readouterr().err
    assert "the certificate CN=VM expired on" in said
    assert "clock" not in said
    assert main(["plan", str(good), "--to", "10.0.1.9"]) == 0


def test_expired_by_a_wrong_clock(
    good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the RTC says another day, the reader is not sent to the CA."""
    expired(good)
    rtc = good.with_name("rtc")
    rtc.write_text(f"{time.time() - 8 * 86_400:.0f}\n")
    monkeypatch.setattr(clock, "RTC", rtc)
    monkeypatch.setattr(clock, "_written", lambda _path: None)

    assert main(["check", str(good)]) == 1
    assert re.search(
        r"CN=VM expired on [\d-]+; compare the clock with another VM's first"
        r"(.*\n)*  hint: the clock says .*; the RTC says .*: set the clock, if it is wrong",
        said := capsys.readouterr().err,
    )
    assert "renew it" not in said


def test_check_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config that is not there: 1, and one sentence."""
    assert main(["check", str(tmp_path / "none.yml")]) == 1

    assert capsys.readouterr().err.startswith("ipsec-agent: there is no config at ")


def test_plan_json(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The stable document, with a flow."""
    arguments = ["plan", str(good), "--address", "10.0.1.7", "--to", "10.0.1.4", "--json"]

    assert main(arguments) == 0

    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["address"], shown["role"]) == (1, "10.0.1.7", "encrypt")
    assert shown["connections"] == [
        {"name": "no-ipsec-10.0.1.4/32", "remote": "10.0.1.4/32", "action": "clear"},
        {"name": "ipsec-10.0.0.0/20", "remote": "10.0.0.0/20", "action": "encrypt"},
    ]
    assert "between addresses of 10.0.0.0/20, except 10.0.1.4/32," in shown["guard"][0]
    assert shown["flow"] == {
        "to": "10.0.1.4",
        "action": "clear",
        "reason": "10.0.1.4 is in no_ipsec_subnets (10.0.1.4/32)",
        "because": "10.0.1.4 is in no_ipsec_subnets (10.0.1.4/32)",
    }


def test_plan_and_check_in_optional_mode(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Packets may travel in clear, and that is said; the action of the stable document stays."""
    ca = make_ca()
    subnets = ["10.0.1.0/24"], ["10.0.1.4"]
    good.write_text(manifest(*subnets, leaf=make_leaf(ca), cas=[ca], optional=True))
    about = ["plan", str(good), "--address", "10.0.1.7", "--to"]

    assert main([*about, "10.0.1.9", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["flow"]["action"] == "encrypt"
    assert shown["flow"]["because"] == (
        f"{shown['flow']['reason']}, and IPsec is optional (optional: true)"
    )
    assert main([*about, "10.0.1.9"]) == 0
    said = capsys.readouterr().out
    assert "to 10.0.1.9: encrypt where the peer does, else clear, because both are in" in said
    assert "note: optional: true: packets pass in clear" in said
    assert main([*about, "10.0.1.4"]) == 0
    assert "to 10.0.1.4: clear, because 10.0.1.4 is in no_ipsec" in capsys.readouterr().out
    assert main([*about, "10.0.1.7"]) == 0
    assert "to 10.0.1.7: clear, because it is this VM's own address" in capsys.readouterr().out

    assert main(["check", str(good)]) == 0
    assert "  note: optional: true: packets pass in clear with every" in capsys.readouterr().out


def test_plan_without_a_guard(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`agent.guard: none` is said where a guard would be explained."""
    good.write_text(good.read_text() + "agent: {guard: none}\n")

    assert main(["plan", str(good), "--address", "10.0.1.7"]) == 0

    assert "guard: none (agent.guard: none)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "--address", "here"],
        ["plan", "--to", "here"],
        ["status", "here"],
        ["verify", "here"],
        ["renew", "here"],
        ["doctor", "--firewall", "aws", "--probe", "here"],
    ],
)
def test_no_address(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A text that is no address is refused by each verb with 2 and an example."""
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "'here' is not an IP address; write, for example, 10.0.1.9" in said


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        ("doctor --probe 10.0.1.9", "--probe", "doctor --firewall aws --probe 10.0.1.9"),
        (
            "doctor --firewall gcp --json",
            "has no JSON",
            "leave out --json",
        ),
        ("reload --dry-run --force", "nothing to --force", "`ipsec-agent reload --dry-run`"),
        ("drain --jobs --keep", "--keep does nothing", "leave out --keep"),
        ("drain --jobs --timeout 0", "--timeout does nothing", "leave out --timeout"),
        ("guard up --closed --force", "nothing to --force", "`ipsec-agent guard up --closed`"),
        ("certs create --ca-key k", "--ca-key is the key of --ca", "give the CA's certificate"),
        ("certs create --per-vm a --name b", "a name of its own", "leave out --name and --san"),
        ("certs create --ca c --ca-name n", "--ca-name is for a new CA", "leave out --ca"),
        ("plan --address 10.0.1.7 --to fd00::9", "fd00::9 is IPv6", "with --address"),
    ],
)
def test_passed_over(
    words: str, says: str, hint: str, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would do nothing is refused: 2, why, and what to write; nothing is done."""
    more = ["--config", str(good)] if words.startswith("plan") else []

    assert main([*words.split(), *more]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert says.replace("a name of its own", "its own name") in said.err
    assert hint in said.err


@pytest.mark.parametrize("words", ["plan", "verify 10.0.1.9", "doctor --firewall aws", "guard up"])
def test_failure_as_json(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json what failed is a document, too, beside the sentence for a person."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    place = ["--socket", str(tmp_path / "none")] if "verify" in words else []
    place += [] if "verify" in words else ["--config", str(tmp_path / "none.yml")]
    as_json = [] if "firewall" in words else ["--json"]

    code = main([*words.split(), *place, *as_json])

    said = capsys.readouterr()
    assert code == (3 if "verify" in words else 1)
    assert said.err.startswith("ipsec-agent: ")
    if not as_json:
        assert said.out == ""
        return
    shown = json.loads(said.out)
    assert shown["schema"] == 1
    assert f"ipsec-agent: {shown['error']}\n" in said.err
    assert shown["hint"]


def test_failure_of_a_config_as_json(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its complaints are in the document."""
    good.write_text(good.read_text().replace("10.0.1.1/20", "10.0.1.1/99"))

    assert main(["plan", str(good), "--json"]) == 1

    assert "'10.0.1.1/99' is not a subnet" in json.loads(capsys.readouterr().out)["complaints"][0]


def test_plan_of_two_versions(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No packet goes from an IPv4 address to an IPv6 one; the address is of the config here."""
    ca = make_ca()
    agent = {"address": "10.0.1.7"}
    good.write_text(manifest(["10.0.1.0/24"], leaf=make_leaf(ca), cas=[ca], agent=agent))

    assert main(["plan", str(good), "--to", "fd00::9"]) == 1

    assert "--to: fd00::9 is IPv6, and the VM's 10.0.1.7 is IPv4" in capsys.readouterr().err


def test_status_not_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No agent: 3, as LSB has it; the document says stopped."""
    assert main(["status", "--json", "--socket", str(tmp_path / "none")]) == 3

    assert json.loads(capsys.readouterr().out)["state"] == "stopped"


def test_no_argument_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    """A variable of a shell that is not set: each verb and option refuses it, and names it."""
    left: list[argparse.ArgumentParser] = [parser()]
    tried = 0
    while left:
        one = left.pop()
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                left += action.choices.values()
            elif action.nargs != 0:
                given = [action.option_strings[0], ""] if action.option_strings else [""]
                with pytest.raises(SystemExit) as ended:
                    one.parse_args(given)
                name = action.option_strings[0] if action.option_strings else str(action.metavar)
                said = capsys.readouterr().err
                assert (ended.value.code, f"{name}: " in said) == (2, True), (one.prog, said)
                tried += 1
    assert tried > 30


@pytest.mark.parametrize("verb", ["reload", "stop"])
def test_nobody_to_ask(verb: str, tmp_path: Path) -> None:
    """No agent to ask: 1."""
    assert main([verb, "--socket", str(tmp_path / "none")]) == 1


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_a_config_by_name_or_place(verb: str, tmp_path: Path) -> None:
    """As a hint says it, and as a person writes it; not both."""
    file = str(tmp_path / "none.yml")

    named = parser().parse_args([verb, "--config", file])
    placed = parser().parse_args([verb, file])

    assert named.file == placed.file == file
    assert parser().parse_args([verb]).file == DEFAULT_CONFIG
    with pytest.raises(SystemExit):
        parser().parse_args([verb, "--config", file, file])


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb's help ends with an example."""
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])

    assert caught.value.code == 0
    assert f"example: ipsec-agent {verb}" in capsys.readouterr().out


def test_status_imports_little(tmp_path: Path) -> None:
    """`status` starts at once: what is slow to import is not imported."""
    script = (
        "import sys; from ipsec_agent.cli import main;"
        f"main(['status', '--socket', '{tmp_path}/none']); print(' '.join(sys.modules))"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    assert "ipsec_agent.verbs.status" in loaded
    assert not {"asyncio", "pyroute2", "cryptography", "structlog", "yaml", "vici"} & set(loaded)


@pytest.mark.parametrize("action", GUARD_ACTIONS)
def test_guard_help(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each action of `guard` says what it does, with its exit codes, and an example."""
    with pytest.raises(SystemExit) as caught:
        main(["guard", action, "--help"])

    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"example: ipsec-agent guard {action}" in said
    assert GUARD_ACTIONS[action] in said


def test_guard_imports_little(tmp_path: Path) -> None:
    """`guard` runs before an agent does and without one: none of its libraries is imported."""
    script = (
        "import sys; from ipsec_agent.cli import main;"
        f"main(['guard', 'up', '--config', '{tmp_path}/none']); print(' '.join(sys.modules))"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    assert "ipsec_agent.verbs.guard" in loaded
    assert not {"pyroute2", "structlog", "psutil", "vici"} & set(loaded)
