"""`ipsec-agent check`: check a config and its certificates, and whether this VM is ready for it."""

import argparse
import os
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from ipsec_agent.core.config import Config
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.core.words import several
from ipsec_agent.errors import StartError
from ipsec_agent.host.files import config_warnings, read_config
from ipsec_agent.host.own_process import complain


def main(arguments: argparse.Namespace) -> int:
    """Print every complaint, or what the config says; 0 good, 1 with errors.

    With `--machine` it adds an SA for a moment; without, it touches nothing.

    Raises:
        StartError: `--machine`, and not root.
    """
    if arguments.machine and os.geteuid() != 0:
        raise StartError("check --machine needs root to add a test SA", hint="run it with sudo")
    path = Path(arguments.file)
    parsed = parse(read_config(path), file=arguments.file, now=datetime.now(UTC))
    for complaint in (*parsed.complaints, *config_warnings(path)):
        complain(f"{complaint}\n")
    if parsed.config is None:
        errors = sum(complaint.severity == "error" for complaint in parsed.complaints)
        complain(f"ipsec-agent: {arguments.file} is refused: {several(errors, 'error')}\n")
        return 1
    sys.stdout.write(f"{arguments.file} is valid\n{_summary(parsed.config)}")
    return _machine(parsed.config) if arguments.machine else 0


def _machine(config: Config) -> int:
    """Print what this VM can do and cannot; 0 if it can do all that the config asks for."""
    # Its imports take longer than judging a config.
    good, bad = import_module("ipsec_agent.machine_check").check_machine(config)
    for error in bad:
        complain(f"error: {error.message}\n  hint: {error.hint}\n")
    if bad:
        complain(f"ipsec-agent: this VM is not ready: {several(len(bad), 'error')}\n")
        return 1
    sys.stdout.write("this VM is ready\n" + "".join(f"  {text}\n" for text in good))
    return 0


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
    lines += [
        f"  {facts.role}: {facts.subject}, until {facts.not_after:%Y-%m-%d}"
        for facts in config.certificates
    ]
    return "\n".join(lines) + "\n"
