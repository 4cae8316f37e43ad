"""`ipsec-agent check`: check a config and its certificates, and whether this VM is ready for it."""

import argparse
import os
from importlib import import_module
from pathlib import Path

from ipsec_agent.config_file import load_config
from ipsec_agent.core.config import Baseline, Config
from ipsec_agent.core.words import OPTIONAL, several
from ipsec_agent.errors import StartError
from ipsec_agent.host.own_process import WARNING, complain, say
from ipsec_agent.verbs.commands import repeatable

BASELINES = {
    Baseline.DEFAULT: "",
    Baseline.CNSA2: "  baseline: cnsa2; warnings name what is of CNSA 1.0, allowed until 2030\n",
}
"""What is said of a config that is good by a baseline."""


def main(arguments: argparse.Namespace) -> int:
    """Print every complaint, or what the config says; 0 where it is good.

    With `--machine` it adds an SA for a moment; without, it touches nothing.

    Raises:
        ConfigError: the config is refused.
        StartError: `--machine`, and not root.
    """
    if arguments.machine and os.geteuid() != 0:
        raise StartError("check --machine needs root to add a test SA", hint="run it with sudo")
    baseline = Baseline(arguments.baseline)
    config = load_config(
        Path(arguments.file),
        warn=lambda text: complain(f"{repeatable(text, arguments)}\n", WARNING),
        baseline=baseline,
    )
    say(f"{arguments.file} is valid\n{_summary(config)}{BASELINES[baseline]}")
    return _machine(config, arguments) if arguments.machine else 0


def _machine(config: Config, arguments: argparse.Namespace) -> int:
    """Print what this VM can do and cannot; 0 if it can do all that the config asks for."""
    # Its imports take longer than judging a config.
    good, bad = import_module("ipsec_agent.machine_check").check_machine(config)
    for error in bad:
        complain(f"error: {error.message}\n  hint: {repeatable(error.hint, arguments)}\n")
    say(("" if bad else "this VM is ready\n") + "".join(f"  {text}\n" for text in good))
    if bad:
        complain(f"ipsec-agent: this VM is not ready: {several(len(bad), 'error')}\n")
    return 1 if bad else 0


def _summary(config: Config) -> str:
    lines = []
    for key, subnets in (
        ("ipsec_subnets", config.ipsec_subnets),
        ("no_ipsec_subnets", config.no_ipsec_subnets),
    ):
        shown = ", ".join(
            subnet.written
            if subnet.written == str(subnet.network)
            else f"{subnet.written} (is {subnet.network})"
            for subnet in subnets
        )
        lines.append(f"  {key}: {shown or 'none'}")
    if config.optional:
        lines.append(f"  note: optional: true: {OPTIONAL}")
    lines += [
        f"  {facts.role}: {facts.subject}, until {facts.not_after:%Y-%m-%d}"
        for facts in config.certificates
    ]
    return "\n".join(lines) + "\n"
