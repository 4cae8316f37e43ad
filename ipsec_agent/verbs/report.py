"""`ipsec-agent report`: what the status files of many VMs tell together."""

import argparse
import json

from ipsec_agent.core.report.examined import Report, document, examined
from ipsec_agent.core.report.findings import plain
from ipsec_agent.core.report.page import page
from ipsec_agent.core.report.reading import Flaw, Read, read
from ipsec_agent.core.report.text import text
from ipsec_agent.errors import AgentError, UsageError
from ipsec_agent.host.files import NewFile, write_together
from ipsec_agent.host.output_file import STANDARD_OUTPUT, output_file
from ipsec_agent.host.own_process import complain, say
from ipsec_agent.host.status_files import content, files_of

BAD_INPUT = 2


def main(arguments: argparse.Namespace) -> int:
    """Print the report; 0 all is well, 1 something is found, 2 something could not be read.

    Raises:
        AgentError: the page cannot be written.
        UsageError: page and JSON would both be written to standard output.
    """
    if arguments.json and arguments.html in STANDARD_OUTPUT:
        raise UsageError(
            f"--json and --html {arguments.html} would both write to standard output",
            hint="give --html a file's path",
        )
    path = None
    if arguments.html and arguments.html not in STANDARD_OUTPUT:
        path = output_file(arguments.html, "--html")
    report = examined(_read(arguments.files))
    if arguments.html in STANDARD_OUTPUT:
        say(page(report))
    else:
        if path is not None:
            hint = "give --html a file in a directory of yours"
            write_together((NewFile(path, page(report), 0o644),), hint=hint)
        say(_shown(report, arguments))
    for flaw in report.flaws:
        complain(f"ipsec-agent: {flaw}\n")
    if report.flaws:
        return BAD_INPUT
    return 0 if report.well else 1


def _shown(report: Report, arguments: argparse.Namespace) -> str:
    if arguments.json:
        return json.dumps(document(report)) + "\n"
    return text(report)


def _read(arguments: list[str]) -> Read:
    """What the files tell; each once, in the order of the command line."""
    flaws = []
    files: dict[str, None] = {}
    for argument in arguments:
        try:
            files |= dict.fromkeys(files_of(argument))
        except AgentError as error:
            flaws.append(Flaw(plain(argument), str(error)))
    parts = []
    for file in files:
        try:
            parts.append(read(file, content(file)))
        except AgentError as error:
            flaws.append(Flaw(plain(file), error.message))
    return Read(
        tuple(vm for part in parts for vm in part.vms),
        (*flaws, *(flaw for part in parts for flaw in part.flaws)),
    )
