"""`ipsec-agent doctor`: check everything that a VM's IPsec depends on, and say what to type."""

import argparse
import json
import os
import sys
from pathlib import Path

from ipsec_agent.config_file import accepted, load_config
from ipsec_agent.core.doctor.firewall import Platform, rules
from ipsec_agent.core.doctor.report import document, examined, text
from ipsec_agent.examination import examine


def main(arguments: argparse.Namespace) -> int:
    """Print what is found; 0 where nothing is worse than something to know, else 1."""
    path = Path(arguments.config)
    if arguments.firewall:
        config = load_config(path, outdated=accepted)
        lines = rules(Platform(arguments.firewall), config)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        return 0
    results = examined(examine(path, arguments.socket, root=os.geteuid() == 0))
    shown = document(results)
    sys.stdout.write(json.dumps(shown) + "\n" if arguments.json else text(results))
    return 0 if shown["well"] else 1
