"""`ipsec-agent run`: the daemon in the foreground."""

import argparse
import asyncio
from pathlib import Path

from ipsec_agent.agent import run
from ipsec_agent.host.inspection import forbid_inspection
from ipsec_agent.host.own_process import allow_files, read_by_journal
from ipsec_agent.log import set_up


def main(arguments: argparse.Namespace) -> int:
    """Run until told to end."""
    set_up(journal=read_by_journal())
    allow_files()
    forbid_inspection()
    asyncio.run(run(Path(arguments.config), force=arguments.force))
    return 0
