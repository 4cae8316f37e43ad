"""Arguments that one another would have passed over: they are refused, with what to write."""

import argparse
from collections.abc import Iterator

from ipsec_agent.errors import UsageError


def refuse_passed_over(chosen: argparse.Namespace) -> None:
    """Take only a command of which every argument does something.

    Raises:
        UsageError: one would do nothing.
    """
    action = getattr(chosen, "action", None)
    judge = JUDGES.get(f"{chosen.verb} {action}" if action else chosen.verb)
    for message, hint in judge(chosen) if judge else ():
        raise UsageError(message, hint=hint)


def _status(chosen: argparse.Namespace) -> Iterator[tuple[str, str]]:
    given = {
        "PEER": chosen.peer,
        "--wait": chosen.wait,
        "--peers or --filter": chosen.peers or chosen.filter,
        "--events": chosen.events,
    }
    kinds = [name for name, value in given.items() if value]
    if chosen.wait and chosen.watch:
        kinds.append("--watch")
    if len(kinds) > 1:
        yield f"{' and '.join(kinds)} cannot be together", f"leave out all but {kinds[0]}"
    if chosen.timeout is not None and not chosen.wait:
        yield (
            "--timeout bounds --wait, which is missing",
            f"write `ipsec-agent status --wait healthy --timeout {chosen.timeout}`",
        )


def _doctor(chosen: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if chosen.probe is not None and not chosen.firewall:
        yield (
            "--probe tells which rule of a firewall holds packets back, so it needs --firewall",
            (
                f"write `ipsec-agent doctor --firewall aws --probe {chosen.probe}`, or another"
                " platform"
            ),
        )
    if chosen.firewall and chosen.json:
        yield (
            "--firewall prints commands for a platform, and has no JSON",
            "leave out --json",
        )


def _reload(chosen: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if chosen.dry_run and chosen.force:
        yield (
            "--dry-run changes nothing, so there is nothing to --force",
            "write `ipsec-agent reload --dry-run` first, then `ipsec-agent reload --force`",
        )


def _drain(chosen: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if not chosen.jobs:
        return
    given = {"--timeout": chosen.timeout is not None, "--keep": chosen.keep}
    for option in (name for name, value in given.items() if value):
        yield f"--jobs only shows who runs, so {option} does nothing", f"leave out {option}"


def _guard_up(chosen: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if chosen.closed and chosen.force:
        yield (
            "--closed does not check the config, so there is nothing to --force",
            "write `ipsec-agent guard up --closed`",
        )


def _certs_create(chosen: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if chosen.per_vm and (chosen.name or chosen.san):
        yield "--per-vm gives each VM its own name", "leave out --name and --san"
    if chosen.ca_key and chosen.ca is None:
        yield "--ca-key is the key of --ca", "give the CA's certificate, too"
    if chosen.ca_name and chosen.ca is not None:
        yield "--ca-name is for a new CA", "leave it out, or leave out --ca"


JUDGES = {
    "status": _status,
    "doctor": _doctor,
    "reload": _reload,
    "drain": _drain,
    "guard up": _guard_up,
    "certs create": _certs_create,
}
"""By verb, or verb and action."""
