"""`ipsec-agent drain`: IPsec ends once the other jobs of this VM have exited."""

import argparse
import asyncio
import os
import shutil
import sys
from pathlib import Path

import structlog

from ipsec_agent.config_file import accepted, agent_of, load
from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.drain import Job, names, waiting
from ipsec_agent.drain import Drainer, Order
from ipsec_agent.errors import AgentError, ConfigError, StartError
from ipsec_agent.host.files import make_directory
from ipsec_agent.host.jobs import Jobs, Places
from ipsec_agent.host.own_process import CLEAR_LINE, discard, read_by_journal, say
from ipsec_agent.log import ABOUT, set_up
from ipsec_agent.verbs.commands import about

AGAIN = 10.0
"""Seconds after which the log says again for whom it waits."""

STOP_TIMEOUT = 30.0
"""Seconds to wait where the config cannot be read; the default of the property."""


def main(arguments: argparse.Namespace) -> int:
    """Drain; 0 also where somebody was not waited for."""
    places = Places(Path(arguments.vcap))
    if arguments.jobs:
        return _show(Jobs(places).look())
    if os.geteuid() != 0:
        raise StartError("ipsec-agent drain needs root to end charon", hint="run it with sudo")
    set_up(journal=read_by_journal())
    teller = Terminal() if sys.stdout.isatty() else Log()
    ABOUT.set(about(arguments))
    order = _order(arguments, places, teller)
    make_directory(order.run_dir)
    asyncio.run(Drainer(order, teller).run())
    return 0


def _show(jobs: tuple[Job, ...]) -> int:
    for job in jobs:
        say(f"{names([job])}\n")
    if not jobs:
        say("no other job runs\n")
    return 0


def _order(arguments: argparse.Namespace, places: Places, teller: "Terminal | Log") -> Order:
    """What is to be done; by the defaults where the config cannot be read, for IPsec must end.

    One that is refused still says where things are.
    """
    agent, timeout = AgentConfig(), STOP_TIMEOUT
    try:
        config = load(Path(arguments.config), outdated=accepted).config
        agent, timeout = config.agent, config.stop_timeout
    except ConfigError as error:
        teller.warns(error)
        agent = agent_of(error)
        if arguments.socket:
            agent = AgentConfig(run_dir=str(Path(arguments.socket).absolute().parent))
    run_dir = Path(agent.run_dir)
    return Order(
        run_dir=run_dir,
        vici_socket=Path(agent.vici_socket or run_dir / "charon.vici"),
        socket=arguments.socket or str(run_dir / "control.sock"),
        timeout=timeout if arguments.timeout is None else arguments.timeout,
        keep=arguments.keep,
        places=places,
    )


class Terminal:
    """Tells a person at a terminal, in one line that changes."""

    def waits(self, jobs: tuple[Job, ...], left: float) -> None:
        """Show for whom it waits, and for how long."""
        width = shutil.get_terminal_size().columns
        self._write(f"{waiting(jobs, left)[: width - 1]}")

    def says(self, event: str, jobs: tuple[Job, ...] = ()) -> None:
        """Show what happened, in a line that stays."""
        without = f"; not waited for: {names(jobs)}" if jobs else ""
        self._write(f"{event}{without}\n")

    def warns(self, error: AgentError) -> None:
        """Show what failed."""
        self._write(f"warning: {ABOUT.get().text(str(error))}\n")

    def _write(self, text: str) -> None:
        try:
            say(text, before=CLEAR_LINE)
            sys.stdout.flush()
        except OSError:
            # IPsec ends all the same where nobody sees it.
            discard(sys.stdout)


class Log:
    """Tells the log: what is new at once, the rest now and then."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("drain")
        self._told: tuple[Job, ...] | None = None
        self._left = 0.0

    def waits(self, jobs: tuple[Job, ...], left: float) -> None:
        """Log for whom it waits, where that is new or was told a while ago."""
        if jobs != self._told or self._left - left >= AGAIN:
            self._told, self._left = jobs, left
            self._log.info("draining", message=waiting(jobs, left))

    def says(self, event: str, jobs: tuple[Job, ...] = ()) -> None:
        """Log what happened."""
        if jobs:
            self._log.warning("drain", message=event, not_waited_for=names(jobs))
        else:
            self._log.info("drain", message=event)

    def warns(self, error: AgentError) -> None:
        """Log what failed."""
        complaints = list(error.complaints)
        self._log.warning(
            "drain failed", message=error.message, hint=error.hint, complaints=complaints
        )
