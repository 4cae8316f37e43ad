"""What is said of the config's file, how loudly, and from when on."""

import pytest

from ipsec_agent.core.config_state import ConfigState
from ipsec_agent.core.problems.config import config_problems
from ipsec_agent.core.problems.damping import damped, uncovered
from ipsec_agent.core.problems.problem import Severity, healthy

PATH = "/etc/ipsec-agent/ipsec.yml"
BROKEN = ConfigState(PATH, refused=f"{PATH}:7: it is wrong")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (ConfigState(PATH), []),
        (ConfigState(PATH, changed=True), [("config-changed", Severity.INFO)]),
        (BROKEN, [("config-refused", Severity.WARNING)]),
        (ConfigState(PATH, reload_refused="f:7: wrong"), [("reload-refused", Severity.WARNING)]),
    ],
)
def test_each_state(state: ConfigState, told: list[tuple[str, Severity]]) -> None:
    """A change is information; only what needs an operator is a warning."""
    found = config_problems(state)

    assert [(one.code, one.severity) for one in found] == told
    assert healthy(found) is all(severity is Severity.INFO for _, severity in told)


def test_the_line() -> None:
    """A warning names the line that is wrong, and the command that tells all of it."""
    (problem,) = config_problems(BROKEN)

    assert problem.message.endswith(f": {PATH}:7: it is wrong")
    assert f"`ipsec-agent check {PATH}`" in problem.hint


def test_a_path_with_a_blank() -> None:
    """The command can be typed as it is."""
    (problem,) = config_problems(ConfigState("/a file", refused="f:7: wrong"))

    assert "`ipsec-agent check '/a file'`" in problem.hint


def test_from_a_minute_on() -> None:
    """An editor or a deployment that has not finished alarms nobody."""
    found = config_problems(BROKEN)

    shown, seen = damped(found, (), 1000.0)
    assert shown == ()
    shown, seen = damped(found, seen, 1059.0)
    assert shown == ()
    shown, _ = damped(found, seen, 1060.0)
    assert [one.code for one in shown] == ["config-refused"]


def test_a_refused_reload_says_it_already() -> None:
    """One cause is one problem; what is wrong now is named once the reload is no reason."""
    both = ConfigState(PATH, refused="f:7: wrong", reload_refused="f:7: wrong")

    assert [one.code for one in uncovered(config_problems(both))] == ["reload-refused"]
    waits = ConfigState(PATH, changed=True, reload_refused="it would cut off a peer")
    assert [one.code for one in uncovered(config_problems(waits))] == ["reload-refused"]


def test_what_to_do_about_a_refused_reload() -> None:
    """Where the file is good it is not to be corrected: the refusal says what to do."""
    (wrong,) = config_problems(ConfigState(PATH, reload_refused="f:7: wrong"))
    assert wrong.hint == f"see `ipsec-agent check {PATH}`; correct it, then `ipsec-agent reload`"
    hint = "give these peers IPsec, or run `ipsec-agent reload --force`"
    (good,) = config_problems(
        ConfigState(PATH, reload_refused="it would cut off a peer", reload_hint=hint)
    )
    assert good.hint == hint
