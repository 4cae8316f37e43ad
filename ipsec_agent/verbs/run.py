"""`ipsec-agent run`: the daemon in the foreground."""

import argparse
import asyncio
from functools import partial
from importlib import import_module
from pathlib import Path

from ipsec_agent.config_file import UNCHANGED, accepted, load
from ipsec_agent.core.commands import About
from ipsec_agent.host.child import Child
from ipsec_agent.host.inspection import forbid_inspection
from ipsec_agent.host.own_process import allow_files, read_by_journal
from ipsec_agent.log import ABOUT, set_up


def main(arguments: argparse.Namespace) -> int:
    """Run until told to end."""
    set_up(journal=read_by_journal())
    allow_files()
    forbid_inspection()
    path = Path(arguments.config)
    config = Child(partial(load, path, hint=UNCHANGED, outdated=accepted))
    ABOUT.set(About(str(path.absolute())))
    # Meanwhile: half of a start is imports.
    agent = import_module("ipsec_agent.agent")
    asyncio.run(agent.run(path, config.result, force=arguments.force))
    return 0
