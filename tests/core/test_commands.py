"""A command in a message works when it is pasted: it carries the config and socket it is about."""

import argparse

import pytest

from ipsec_agent.cli import GUARD_ACTIONS, VERBS, parser
from ipsec_agent.core.commands import DEFAULT_CONFIG, DEFAULT_SOCKET, TAKES, About
from ipsec_agent.verbs.commands import repeatable

BOTH = About("/a.yml", "/s")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ipsec-agent run --force", "ipsec-agent run --force --config /a.yml"),
        ("ipsec-agent status", "ipsec-agent status --socket /s"),
        ("ipsec-agent status --wait running", "ipsec-agent status --wait running --socket /s"),
        ("ipsec-agent verify 10.0.1.9", "ipsec-agent verify 10.0.1.9 --socket /s"),
        ("ipsec-agent check --machine", "ipsec-agent check --machine --config /a.yml"),
        ("ipsec-agent check /b.yml --machine", "ipsec-agent check /b.yml --machine"),
        ("ipsec-agent plan --to 10.0.1.9", "ipsec-agent plan --to 10.0.1.9 --config /a.yml"),
        ("ipsec-agent plan b.yml --to 10.0.1.9", "ipsec-agent plan b.yml --to 10.0.1.9"),
        ("sudo ipsec-agent doctor", "sudo ipsec-agent doctor --config /a.yml --socket /s"),
        (
            "ipsec-agent guard up --closed",
            "ipsec-agent guard up --closed --config /a.yml --socket /s",
        ),
        ("ipsec-agent guard status", "ipsec-agent guard status --config /a.yml"),
        ("ipsec-agent reload --socket /t", "ipsec-agent reload --socket /t"),
        ("ipsec-agent status --json | jq .x", "ipsec-agent status --json --socket /s | jq .x"),
        ("ipsec-agent certs show FILE", "ipsec-agent certs show FILE"),
        (f"ipsec-agent certs show {DEFAULT_CONFIG}", "ipsec-agent certs show /a.yml"),
        ("systemctl start ipsec-agent.target", "systemctl start ipsec-agent.target"),
    ],
)
def test_command(command: str, said: str) -> None:
    """What its verb takes and it does not have yet is added, once."""
    assert BOTH.command(command) == said
    assert BOTH.command(said) == said
    assert BOTH.text(f"run `{command}`") == f"run `{said}`"
    parser().parse_args(said.partition(" | ")[0].split()[said.startswith("sudo") + 1 :]) if (
        "ipsec-agent." not in said
    ) else None


def test_usual_places() -> None:
    """Nothing is added where the config and the socket are where they usually are."""
    assert (
        About(DEFAULT_CONFIG, DEFAULT_SOCKET).command("ipsec-agent doctor") == "ipsec-agent doctor"
    )
    assert About().text("see `ipsec-agent guard up`") == "see `ipsec-agent guard up`"


@pytest.mark.parametrize("where", ["on that VM", "there"])
def test_of_another_vm(where: str) -> None:
    """It has paths of its own."""
    assert BOTH.text(f"see `ipsec-agent status` {where}") == f"see `ipsec-agent status` {where}"


@pytest.mark.parametrize(
    "said", ["CLOSED: by `ipsec-agent guard up --closed`", "`ipsec-agent drain` has ended it"]
)
def test_what_was_done(said: str) -> None:
    """Nobody knows with which options somebody else has typed it."""
    assert BOTH.text(said) == said


def test_a_path_with_a_blank() -> None:
    """It is quoted as a shell wants it."""
    assert About("/a b.yml").command("ipsec-agent run") == "ipsec-agent run --config '/a b.yml'"


def options(words: list[str]) -> set[str]:
    """What of the two a verb takes."""
    made = parser()
    for word in words:
        (below,) = (one for one in made._actions if isinstance(one, argparse._SubParsersAction))
        made = below.choices[word]
    return {"--config", "--socket"} & set(made._option_string_actions)


def test_what_verbs_take() -> None:
    """The table is that of the command line."""
    verbs = [[verb] for verb in VERBS if verb not in {"guard", "certs"}]
    taken = {
        " ".join(words): options(words)
        for words in (*verbs, *(["guard", action] for action in GUARD_ACTIONS))
    }

    assert {verb: found for verb, found in taken.items() if found} == {
        verb: set(takes) for verb, takes in TAKES.items()
    }


@pytest.mark.parametrize("key", ["config", "file"])
def test_given_to_a_verb(key: str) -> None:
    """`check` and `plan` call the config a file; a socket that is the config's is not named."""
    given = argparse.Namespace(**{key: "/a.yml", "socket": "/r/control.sock"})

    said = repeatable("`ipsec-agent guard up`", given, "/r/control.sock")
    assert said == "`ipsec-agent guard up --config /a.yml`"
