"""The config's file: whether it is what is in force, and whether the next start would take it."""

from shlex import quote

from ipsec_agent.core.config_state import ConfigState
from ipsec_agent.core.problems.problem import Problem, Severity


def config_problems(state: ConfigState) -> tuple[Problem, ...]:
    """What an operator should know of the file, and of the newest reload."""
    found = []
    if state.reload_refused:
        found.append(
            Problem(
                "reload-refused",
                Severity.WARNING,
                f"the last reload was refused, so the earlier config stays in force:"
                f" {state.reload_refused}",
                state.reload_hint
                or f"see `ipsec-agent check {quote(state.path)}`; correct it, then `ipsec-agent"
                " reload`",
                state.path,
            )
        )
    if state.refused:
        found.append(
            Problem(
                "config-refused",
                Severity.WARNING,
                f"the agent's next start would be refused: {state.refused}",
                f"correct it, and see `ipsec-agent check {quote(state.path)}`; the config that was"
                " loaded stays in force until then",
                state.path,
            )
        )
    elif state.changed:
        found.append(
            Problem(
                "config-changed",
                Severity.INFO,
                f"{state.path} has changed since it was loaded, and waits for a reload",
                f"`ipsec-agent check {quote(state.path)}`, then `ipsec-agent reload`",
                state.path,
            )
        )
    return tuple(found)
