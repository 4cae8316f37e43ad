"""`ipsec-agent doctor`: check everything that a VM's IPsec depends on, and say what to type."""

import argparse
import json
import os
import sys
from pathlib import Path

from ipsec_agent.config_file import accepted, load_config
from ipsec_agent.core.commands import DEFAULT_CONFIG, About
from ipsec_agent.core.config import Config
from ipsec_agent.core.doctor.firewall import Platform, rules
from ipsec_agent.core.doctor.firewall_probe import Passage, probed, told
from ipsec_agent.core.doctor.report import document, examined, repeated, text
from ipsec_agent.core.verify import judge
from ipsec_agent.examination import examine
from ipsec_agent.host.own_process import say
from ipsec_agent.verbs.verify import seen_of

PATIENCE = 10.0
"""Seconds to wait for an SA with the peer that is probed."""


def main(arguments: argparse.Namespace) -> int:
    """Print what is found; 0 where nothing is worse than something to know, else 1."""
    given = Path(arguments.config) if arguments.config else None
    if arguments.firewall:
        path = given or Path(DEFAULT_CONFIG)
        return _firewall(arguments, load_config(path, outdated=accepted))
    facts = examine(given, arguments.socket, root=os.geteuid() == 0)
    results = repeated(examined(facts), About(facts.path, facts.socket))
    shown = document(results)
    say(json.dumps(shown) + "\n" if arguments.json else text(results))
    return 0 if shown["well"] else 1


def _firewall(arguments: argparse.Namespace, config: Config) -> int:
    """Print the rules, and with a peer whether packets of their kinds pass; 1 where some do not."""
    lines = rules(Platform(arguments.firewall), config)
    say("".join(f"{line}\n" for line in lines))
    if arguments.probe is None:
        return 0
    sys.stdout.flush()
    socket = arguments.socket or f"{config.agent.run_dir}/control.sock"
    seen = seen_of(arguments.probe, socket, PATIENCE)
    results = probed(seen, judge(seen), encapsulated=config.force_udp_encapsulation)
    say("".join(f"{line}\n" for line in told(results)))
    return 0 if all(one.passage is Passage.PASSES for one in results) else 1
