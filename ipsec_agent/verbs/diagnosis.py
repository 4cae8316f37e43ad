"""The options of `verify`, `doctor` and `report`. Imports nothing slow: each call reads it."""

import argparse

from ipsec_agent.core.commands import DEFAULT_CONFIG, DEFAULT_SOCKET
from ipsec_agent.verbs.argument_types import address, seconds

PLATFORMS = ("aws", "gcp", "azure", "vsphere", "openstack", "ibm")

LONGEST = 600.0


def verify_arguments(verb: argparse.ArgumentParser) -> None:
    """What `verify` takes."""
    either = verb.add_mutually_exclusive_group(required=True)
    either.add_argument(
        "peers", nargs="*", default=[], type=address, metavar="PEER", help="address of a peer"
    )
    either.add_argument(
        "--all", action="store_true", help="every peer that the status knows, but those gone"
    )
    verb.add_argument(
        "--timeout",
        type=seconds(LONGEST),
        default=10.0,
        metavar="S",
        help="seconds to wait for an SA with each peer; default: %(default)g",
    )
    _json(verb)
    verb.add_argument(
        "--socket",
        default=DEFAULT_SOCKET,
        metavar="PATH",
        help="control socket; default: %(default)s",
    )


def doctor_arguments(verb: argparse.ArgumentParser) -> None:
    """What `doctor` takes."""
    verb.add_argument(
        "--config",
        metavar="FILE",
        help=f"config file, where no agent runs that tells another; default: {DEFAULT_CONFIG}",
    )
    verb.add_argument(
        "--firewall",
        choices=PLATFORMS,
        help="only print the rules that this platform's firewall needs, from the config's subnets",
    )
    verb.add_argument(
        "--probe",
        type=address,
        metavar="PEER",
        help="with --firewall: send to this peer, too, and tell which rule lets packets pass",
    )
    _json(verb)
    verb.add_argument(
        "--socket", metavar="PATH", help="control socket; default: in the config's run_dir"
    )


def report_arguments(verb: argparse.ArgumentParser) -> None:
    """What `report` takes."""
    verb.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="output of `status --json`, of one VM or of one a line; a directory of such files, or"
        " - for standard input; name each file by the address of its VM",
    )
    _json(verb)
    verb.add_argument(
        "--html",
        metavar="FILE",
        help="also write the report as one HTML page, with a matrix of the VMs; - prints the page"
        " instead of the text",
    )


def _json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print JSON with a stable schema")
