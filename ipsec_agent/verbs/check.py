"""`ipsec-agent check`: judge a config and its certificates, touching nothing."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from ipsec_agent.core.config import Config
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.host.files import read_config


def main(arguments: argparse.Namespace) -> int:
    """Print every complaint, or what the config says; 0 good, 1 with errors."""
    parsed = parse(read_config(Path(arguments.file)), file=arguments.file, now=datetime.now(UTC))
    for complaint in parsed.complaints:
        sys.stderr.write(f"{complaint}\n")
    if parsed.config is None:
        errors = sum(complaint.severity == "error" for complaint in parsed.complaints)
        sys.stderr.write(f"ipsec-agent: {arguments.file} is refused: {errors} to mend\n")
        return 1
    sys.stdout.write(f"{arguments.file} is good\n{_summary(parsed.config)}")
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
