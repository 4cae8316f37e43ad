"""The command line: the verbs, their help, the only exit codes.

A verb's own module is imported only when it is called, so that one which monit runs often starts
at once.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ipsec_agent import __version__
from ipsec_agent.core.commands import DEFAULT_CONFIG, DEFAULT_SOCKET
from ipsec_agent.errors import AgentError
from ipsec_agent.host.own_process import complain, forbid_cores, open_streams
from ipsec_agent.verbs import status_arguments
from ipsec_agent.verbs.argument_types import address, given, whole
from ipsec_agent.verbs.combinations import refuse_passed_over
from ipsec_agent.verbs.diagnosis import doctor_arguments, report_arguments, verify_arguments
from ipsec_agent.verbs.failure import tell, unforeseen

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

VERBS = {
    "run": "run the agent in the foreground; SIGTERM ends it, charon and traffic continue",
    "check": "check a config and its certificates; with --machine, check this VM, too",
    "plan": "show what a VM with this address would enforce",
    "status": "show the current state",
    "verify": "prove that packets to peers are ESP both ways, or name what is at fault",
    "metrics": "print the metrics of the running agent, as OpenMetrics",
    "doctor": "check all that this VM's IPsec depends on, with and without a running agent",
    "report": "merge the status files of many VMs: who speaks clear, who differs, what expires",
    "reload": "reload the config in the running agent",
    "renew": "move peers to the certificate in force, without an interruption; exit code 0 all are,"
    " 1 some are not",
    "stop": "stop charon cleanly, then the agent; the guard stays",
    "drain": "wait until the other jobs of this VM have exited, then stop as `stop` does",
    "guard": "load, remove or show the guard, which drops clear packets between encrypted VMs",
    "certs": "create, show or verify certificates",
    "bundle": "write one archive for support: state, logs and config of this VM, without keys",
}

EXAMPLES = {
    "run": "ipsec-agent run --config /etc/ipsec-agent/ipsec.yml",
    "check": "ipsec-agent check ipsec-addon.yml",
    "plan": "ipsec-agent plan ipsec-addon.yml --address 10.0.1.7 --to 10.0.1.9",
    "status": "ipsec-agent status --json | jq .problems",
    "verify": "ipsec-agent verify 10.0.1.9",
    "metrics": "ipsec-agent metrics --textfile /var/lib/prometheus/node-exporter/ipsec.prom",
    "doctor": "ipsec-agent doctor",
    "report": "ipsec-agent report status/ --html report.html",
    "reload": "ipsec-agent reload",
    "renew": "ipsec-agent renew 10.0.1.9",
    "stop": "ipsec-agent stop",
    "drain": "ipsec-agent drain --timeout 60",
    "guard": "ipsec-agent guard up --config /etc/ipsec-agent/ipsec.yml",
    "certs": "ipsec-agent certs create --out-manifest fields.yml",
    "bundle": "ipsec-agent bundle /tmp/ipsec.tar.gz",
}

GUARD_ACTIONS = {
    "up": "load the guard now and at each boot; exit code 0 done, 1 refused",
    "down": "remove the guard until `guard up`, the agent's next start or the next boot",
    "status": "show the guard; exit code 0 up, 1 altered, closed or not of this config, 3 no table",
}

BASELINES = ("default", "cnsa2")

CERTS_ACTIONS = {
    "create": "create a CA for development and a certificate that it signs, or, with --ca, a"
    " certificate of a CA that you have",
    "show": "show the certificates and keys of configs, PEM files or directories; nothing secret",
    "verify": "verify chains, keys, usages, dates, names and strength; exit code 0 good (warnings"
    " included), 1 not",
}

CERTS_EXAMPLES = {
    "create": "ipsec-agent certs create --ca certs/pcf-ipsec-ca-cert.pem --dir certs-next",
    "show": "ipsec-agent certs show ipsec-addon.yml --json | jq '.certificates[].days_left'",
    "verify": "ipsec-agent certs verify certs",
}


class Parser(argparse.ArgumentParser):
    """One whose help fails where nobody gets it: argparse passes over it from Python 3.11.7 on.

    It takes no empty text for an argument: a variable of a shell that is not set gives one, and the
    verb would do as if the argument were not there.
    """

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.register("type", None, given)

    def add_subparsers(self, **options: Any) -> Any:
        found = super().add_subparsers(**options)
        # What follows the verb has a parser of its own.
        found.type = str
        return found

    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        if file is None or file is sys.stderr:
            complain(message)
        else:
            file.write(message)


@cache
def parser() -> argparse.ArgumentParser:
    """The whole command line, put together once."""
    top = Parser(
        prog="ipsec-agent",
        description="Encrypt every packet between the VMs of a deployment with IPsec ESP.",
        epilog="example: ipsec-agent status",
    )
    top.add_argument("--version", action="version", version=f"ipsec-agent {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    made = {
        verb: verbs.add_parser(
            verb, help=text, description=text, epilog=f"example: {EXAMPLES[verb]}"
        )
        for verb, text in VERBS.items()
    }
    made["run"].add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help=_default())
    made["run"].add_argument(
        "--force", action="store_true", help="enforce even a config that cuts this VM off"
    )
    _check_arguments(made["check"])
    _plan_arguments(made["plan"])
    verify_arguments(made["verify"])
    doctor_arguments(made["doctor"])
    report_arguments(made["report"])
    for verb in ("status", "metrics", "reload", "renew", "stop"):
        made[verb].add_argument(
            "--socket", default=DEFAULT_SOCKET, metavar="PATH", help=_default("control socket")
        )
    _drain_arguments(made["drain"])
    _guard_arguments(made["guard"])
    _certs_arguments(made["certs"])
    _reload_arguments(made["reload"])
    made["renew"].add_argument(
        "peers",
        nargs="*",
        type=address,
        metavar="PEER",
        help="address of a peer; default: all peers",
    )
    status_arguments.add_to(made["status"])
    _reading_arguments(made["metrics"], made["bundle"])
    return top


def _file_argument(verb: argparse.ArgumentParser) -> None:
    """The config, with or without the name of the option that other verbs have for it."""
    either = verb.add_mutually_exclusive_group()
    either.add_argument(
        "file", nargs="?", default=argparse.SUPPRESS, metavar="FILE", help="config file"
    )
    either.add_argument(
        "--config", dest="file", default=DEFAULT_CONFIG, metavar="FILE", help=_default("the same")
    )


def _check_arguments(verb: argparse.ArgumentParser) -> None:
    _file_argument(verb)
    verb.add_argument(
        "--machine",
        action="store_true",
        help="also try ESP and the guard's table on this VM, look for charon, check who may write"
        " the agent's directories, and what the config would cut off; needs root, changes nothing",
    )
    verb.add_argument(
        "--baseline",
        choices=BASELINES,
        default=BASELINES[0],
        help="also refuse proposals, keys and signatures that are not of this baseline;"
        " default: %(default)s, which adds nothing",
    )


def _reading_arguments(metrics: argparse.ArgumentParser, bundle: argparse.ArgumentParser) -> None:
    metrics.add_argument("--peers", action="store_true", help="also print series for each peer")
    metrics.add_argument(
        "--textfile",
        metavar="PATH",
        help="write them to this file, whole, in the format that node_exporter reads; - prints"
        " them",
    )
    bundle.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="archive to write, tar.gz; default: one of this directory, named by host and time",
    )
    bundle.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help=_default())
    bundle.add_argument(
        "--socket", metavar="PATH", help="control socket; default: in the config's run_dir"
    )


def _plan_arguments(verb: argparse.ArgumentParser) -> None:
    _file_argument(verb)
    verb.add_argument(
        "--address", type=address, metavar="IP", help="address of the VM; default: agent.address"
    )
    verb.add_argument(
        "--to", type=address, metavar="IP", help="show how packets to this address would travel"
    )
    verb.add_argument("--json", action="store_true", help="print JSON with a stable schema")


def _drain_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help=_default())
    verb.add_argument(
        "--timeout",
        type=whole(0, 3600),
        metavar="SECONDS",
        help="wait this long at the most; default: stop_timeout of the config",
    )
    verb.add_argument(
        "--socket", metavar="PATH", help="control socket; default: in the config's run_dir"
    )
    verb.add_argument("--keep", action="store_true", help="only wait, and leave IPsec as it is")
    verb.add_argument(
        "--jobs", action="store_true", help="only show the jobs that it would wait for"
    )
    verb.add_argument("--vcap", default="/var/vcap", metavar="DIR", help=_default("BOSH's files"))


def _reload_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--force",
        action="store_true",
        help="end optional mode even if that cuts off peers that speak clear now, and take a"
        " certificate that most of the peers refuse",
    )
    verb.add_argument(
        "--dry-run",
        action="store_true",
        help="change nothing; say of each peer whether it accepts the certificate; exit code 0 the"
        " config would be taken, 1 it would not",
    )


def _guard_arguments(verb: argparse.ArgumentParser) -> None:
    actions = verb.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in GUARD_ACTIONS.items():
        action = actions.add_parser(
            name, help=text, description=text, epilog=f"example: ipsec-agent guard {name}"
        )
        action.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help=_default())
        action.add_argument("--json", action="store_true", help="print JSON with a stable schema")
        if name != "status":
            action.add_argument(
                "--socket",
                metavar="PATH",
                help="control socket; default: in the config's run_dir",
            )
        if name == "up":
            action.add_argument(
                "--force", action="store_true", help="load it even if that cuts this VM off"
            )
            action.add_argument(
                "--closed",
                action="store_true",
                help="without a valid config: let nothing pass but IPsec, SSH to port 22, DNS, NTP,"
                " DHCP, the metadata service and what BOSH needs, until the agent starts,"
                " `guard up`, `guard down` or the next boot",
            )


def _certs_arguments(verb: argparse.ArgumentParser) -> None:
    actions = verb.add_subparsers(dest="action", metavar="ACTION", required=True)
    made = {
        name: actions.add_parser(
            name, help=text, description=text, epilog=f"example: {CERTS_EXAMPLES[name]}"
        )
        for name, text in CERTS_ACTIONS.items()
    }
    for name in ("show", "verify"):
        made[name].add_argument(
            "files", nargs="+", metavar="FILE", help="config, PEM file, or directory of PEM files"
        )
    made["verify"].add_argument(
        "--config",
        metavar="FILE",
        help="config whose instance_certificate_info_period says how many days before its end a"
        f" certificate of a PEM file is told; default: {DEFAULT_CONFIG}, where that can be read",
    )
    made["show"].add_argument("--json", action="store_true", help="print JSON with a stable schema")
    _create_arguments(made["create"])


def _create_arguments(action: argparse.ArgumentParser) -> None:
    for option, metavar, text in (
        (
            "--ca",
            "FILE",
            "certificate of an existing CA that signs, with those above it, or its directory",
        ),
        (
            "--ca-key",
            "FILE",
            "its key; default: beside it, as `certs create` and certstrap name it",
        ),
        ("--ca-name", "NAME", "common name of a new CA; default: a new one with the date"),
        ("--name", "NAME", "common name of the certificate that all VMs share"),
        ("--out-manifest", "FILE", "also write the fields of a config, ready to be pasted"),
    ):
        action.add_argument(option, metavar=metavar, help=text)
    action.add_argument(
        "--dir", default="certs", metavar="DIR", help=_default("directory to write to")
    )
    action.add_argument(
        "--san",
        action="append",
        default=[],
        metavar="NAME",
        help="DNS name or IP address in the certificate; may be repeated",
    )
    action.add_argument(
        "--per-vm",
        nargs="+",
        default=[],
        metavar="NAME",
        help="make one certificate for each VM, named by DNS name or IP address",
    )
    _issuing_arguments(action)


def _issuing_arguments(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--days",
        type=whole(1, 9999),
        default=365,
        metavar="N",
        help=_default("days until the certificate ends"),
    )
    action.add_argument(
        "--bits",
        type=int,
        choices=(3072, 4096),
        default=3072,
        help=_default("bits of the RSA keys of VMs"),
    )
    action.add_argument("--force", action="store_true", help="overwrite files that are there")


def _default(what: str = "config file") -> str:
    return f"{what}; default: %(default)s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    open_streams()
    forbid_cores()
    try:
        try:
            return _verb(parser().parse_args(arguments))
        finally:
            # Here, and not at exit, it can still be told that nobody gets it. Also after --help.
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return unforeseen(error)


def _verb(chosen: argparse.Namespace) -> int:
    try:
        refuse_passed_over(chosen)
        return int(import_module(f"ipsec_agent.verbs.{chosen.verb}").main(chosen))
    except AgentError as error:
        return tell(error, chosen)
