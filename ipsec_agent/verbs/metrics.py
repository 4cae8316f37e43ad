"""`ipsec-agent metrics`: print the metrics, or write them where node_exporter finds them."""

import argparse
from importlib import import_module
from pathlib import Path

from ipsec_agent.host.control_client import NotRunningError, ask
from ipsec_agent.host.output_file import STANDARD_OUTPUT, output_file
from ipsec_agent.host.own_process import say
from ipsec_agent.verbs.failure import NOT_RUNNING, tell

MODE = 0o644
"""Of the file: node_exporter runs as a user of its own, and nothing in it is secret."""

STOPPED = {"state": "stopped", "healthy": False, "problems": []}


def main(arguments: argparse.Namespace) -> int:
    """Ask the agent; 3 where none answers, and the file then says so.

    Raises:
        AgentError: the file cannot be written, or the agent refuses.
    """
    path = None
    if arguments.textfile and arguments.textfile not in STANDARD_OUTPUT:
        path = output_file(arguments.textfile, "--textfile")
    form = "text" if arguments.textfile else "openmetrics"
    code = 0
    try:
        answer = ask(arguments.socket, "metrics", format=form, peers=arguments.peers)["metrics"]
    except NotRunningError as error:
        code = tell(error, arguments, NOT_RUNNING)
        if not arguments.textfile:
            return code
        answer = _of_none()
    if path is not None:
        _write(path, answer)
    else:
        say(answer)
    return code


def _of_none() -> str:
    """What a file says where no agent runs. The library is slow to import."""
    families = import_module("ipsec_agent.core.metrics").families
    render = import_module("ipsec_agent.host.openmetrics").render
    return str(render(families(STOPPED), openmetrics=False)[0])


def _write(path: Path, text: str) -> None:
    files = import_module("ipsec_agent.host.files")
    files.write_together(
        (files.NewFile(path, text, MODE),), hint="give a file that you may write, in a directory"
    )
