"""`doctor` beside an agent that runs, hangs, has only just started, or has gone."""

import functools
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.charon.nodes import AGENT, CHARON, NO_ESP, PYTHON, Node, as_nobody, ip, network, until
from tests.lab.deployment import A, B, C, configure
from tests.lab.firewall import rules
from tests.lab.guest import has_esp

pytestmark = [pytest.mark.charon, pytest.mark.timeout(150)]

D = "10.9.0.4"

HOLDS = """
import socket, time
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + 20
while True:
    try:
        held.bind(("", 500))
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(0.02)
print("holds", flush=True)
input()
"""
"""A program that has a port of IKE, once a charon that was killed has let it go."""

WITHOUT = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
"""Root, as in a container that may not administer the network."""


def doctor(node: Node, *more: str, around: tuple[str, ...] = ()) -> dict[str, Any]:
    """What it says of the VM, as JSON."""
    where = ("--config", str(node.config)) if "--config" not in more else ()
    done = subprocess.run(
        node.command(*around, *AGENT, "doctor", "--json", *where, *more),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["well"] else 1)
    return found


def lines(node: Node, *more: str, around: tuple[str, ...] = ()) -> list[str]:
    """What it says of the VM to a person."""
    words = (*around, *AGENT, "doctor", "--config", str(node.config), *more)
    done = subprocess.run(
        node.command(*words), check=False, capture_output=True, text=True, timeout=200
    )
    assert done.stdout, done.stderr
    return done.stdout.splitlines()


def found(document: dict[str, Any], check: str) -> list[dict[str, str]]:
    """The findings of one check."""
    return next(one["findings"] for one in document["checks"] if one["name"] == check)


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A VM with an agent, that the tests leave as it was."""
    with network(tmp_path_factory.mktemp("doctor"), 1, "dv") as (node,):
        configure([node], [], uplinks=["eth0"])
        node.up()
        yield node


@pytest.mark.skipif(has_esp(), reason="this kernel has ESP")
def test_beside_an_agent(vm: Node) -> None:
    """The one problem of this machine is told once, with its command; the guard is well."""
    checks = {
        one["name"]: one
        for one in doctor(vm, "--socket", str(vm.run_dir / "control.sock"))["checks"]
    }
    # Its socket is found by its config.
    same = doctor(vm)
    said = vm.ask("doctor").stdout

    assert {one["code"] for one in checks["problems"]["findings"]} == {NO_ESP}
    assert all(one["command"] for one in checks["problems"]["findings"])
    # The config is that of the agent, which its status names.
    well = ("config", "agent", "guard", "plugins", "unread")
    assert {name: checks[name]["state"] for name in well} == dict.fromkeys(well, "ok"), checks
    assert (checks["machine"]["findings"], checks["machine"]["see"]) == ([], ["problems"])
    assert checks["machine"]["state"] == "found"
    assert same["checks"] == list(checks.values())
    assert said.startswith(f"CRITICAL {NO_ESP}: this kernel cannot do ESP")
    for line in {one["message"] for one in checks["problems"]["findings"]}:
        assert said.count(line) == 1
    assert "\nok       guard: the guard is up, and saved for the next boot\n" in said
    assert "\nok       agent: an agent runs\n" in said
    assert "\nok       outages: no peer was cut off\n" in said
    assert ("\n-        boot: not checked, systemd did not start this machine\n" in said) is not (
        Path("/run/systemd/system").exists()
    )


class Harm(NamedTuple):
    """What another program does to the VM, and what is then said; the command puts it right."""

    does: str
    code: str
    message: str
    command: str


BYPASS = f"src {A}/32 dst {B}/32 dir out"
HARMS = (
    Harm(
        f"ip xfrm policy add {BYPASS} priority 1 action allow",
        "policies-bypassed",
        "the kernel has 1 foreign policy that lets packets bypass IPsec in clear unless the guard"
        f" drops them, such as {A}/32 to {B}/32 (out)",
        f"ip xfrm policy delete {BYPASS}",
    ),
    Harm(
        "ip xfrm policy setdefault out block",
        "policy-default-blocks",
        "the kernel blocks packets that match no policy (out), even those with addresses outside"
        " the ipsec subnets",
        "ip xfrm policy setdefault in accept fwd accept out accept",
    ),
    Harm(
        "sysctl -w net/ipv4/conf/eth0/disable_xfrm=1",
        "ipsec-disabled",
        "IPsec is disabled on eth0: IPv4 packets do not become ESP there, and the guard drops them",
        "sysctl -w net/ipv4/conf/eth0/disable_xfrm=0",
    ),
    Harm(
        "ip link set eth0 down",
        "link-down",
        "the uplink eth0 is down",
        "ip link set eth0 up",
    ),
    Harm(
        f"ip xfrm policy add {BYPASS} priority 1 action block",
        "policies-foreign",
        f"the kernel has 1 foreign policy, such as {A}/32 to {B}/32 (out)",
        f"ip xfrm policy delete {BYPASS}",
    ),
)


@pytest.mark.parametrize(
    "harm",
    [
        # It is told of after 30 s.
        pytest.param(
            harm, id=harm.code, marks=[pytest.mark.long] if harm.code == "policies-foreign" else []
        )
        for harm in HARMS
    ],
)
def test_what_to_type_puts_it_right(vm: Node, harm: Harm) -> None:
    """The sentence names what was done; the command, typed as it is, ends the finding."""

    def told() -> bool:
        return harm.code in {one["code"] for one in vm.status()["problems"]}

    subprocess.run(vm.command(*harm.does.split()), check=True, capture_output=True, timeout=30)
    # Some are not told of before they have lasted.
    until(told, lambda: f"{harm.code}: {vm.status()['problems']}", 50)
    (one,) = [it for it in found(doctor(vm), "problems") if it["code"] == harm.code]

    assert (one["message"], one["command"]) == (harm.message, harm.command)
    typed = shlex.split(one["command"])
    subprocess.run(vm.command(*typed), check=True, capture_output=True, timeout=30)
    until(lambda: not told(), f"{harm.code} is over", 30)


def test_clear_packets(tmp_path: Path) -> None:
    """Who sends them and to whom: what is to be typed shows both."""
    with network(tmp_path, 2, "dp") as (bare, node):
        configure([node], [])
        node.up()
        past = ("src", f"{B}/32", "dst", f"{A}/32", "dir", "out", "priority", "1")
        ip("xfrm", "policy", "add", *past, "action", "allow", netns=node.name)

        def told() -> set[str]:
            bare.send(B)
            node.send(A)
            return {one["code"] for one in node.status()["problems"]}

        # What ends within seconds was a repair.
        until(lambda: told() >= {"clear-received", "clear-prevented"}, "both are told", 60, every=1)
        said = {one["code"]: one for one in found(doctor(node), "problems")}
        typed = node.command(*AGENT, *said["clear-received"]["command"].split()[1:])
        done = subprocess.run(typed, check=False, capture_output=True, text=True, timeout=60)
        (came,), (went,) = (node.status()["guard"][name] for name in ("clear_in", "clear_out"))

    assert said["clear-received"]["message"] == (
        f"{A} ({came['packets']} packets) sends clear packets to this VM; the guard dropped them"
    )
    assert said["clear-prevented"]["message"] == (
        f"the guard dropped clear packets to {A} ({went['packets']} packets): a foreign policy lets"
        " them through"
    )
    assert said["clear-received"]["command"] == said["clear-prevented"]["command"]
    assert said["clear-received"]["command"].startswith("ipsec-agent guard status")
    assert f"clear packets from {A}: {came['packets']} packets" in done.stdout
    assert f"clear packets to {A}: {went['packets']} packets" in done.stdout


def test_another_config_is_named(vm: Node) -> None:
    """The agent's counts; the other one is not looked at."""
    other = vm.directory / "other.yml"
    other.write_text(vm.config.read_text())
    said = doctor(vm, "--config", str(other), "--socket", str(vm.run_dir / "control.sock"))

    (one,) = found(said, "config")
    assert one["message"] == (
        f"the running agent's config is {vm.config}, so {other} was not looked at"
    )
    assert one["command"] == f"ipsec-agent check {other} --machine"


RULES = {
    "aws": (
        "aws ec2 authorize-security-group-ingress --group-id $GROUP --ip-permissions"
        " 'IpProtocol=50,IpRanges=[{CidrIp=10.9.0.0/24}]'"
    ),
    "gcp": (
        "gcloud compute firewall-rules create ipsec-4 --network=$NETWORK --direction=INGRESS"
        " --allow=udp:500,udp:4500,esp --source-ranges=10.9.0.0/24"
    ),
    "azure": (
        "az network nsg rule create --resource-group $RESOURCES --nsg-name $NSG --name ipsec-esp-4"
        " --priority 201 --access Allow --direction Inbound --protocol Esp"
        " --destination-port-ranges '*' --source-address-prefixes 10.9.0.0/24"
    ),
    "vsphere": "# services: UDP 500, UDP 4500, IP protocol 50",
    "openstack": (
        "openstack security group rule create --ingress --ethertype IPv4 --protocol esp"
        " --remote-ip 10.9.0.0/24 $GROUP"
    ),
    "ibm": ("ibmcloud is security-group-rule-add $GROUP inbound esp --remote 10.9.0.0/24"),
}
"""Of each platform, the rule that lets ESP pass."""


@pytest.mark.parametrize("platform", RULES)
def test_rules_for_a_platform(vm: Node, platform: str) -> None:
    """Those of the config, as commands."""
    first, *others = lines(vm, "--firewall", platform)

    assert first == "# from each of 10.9.0.0/24: UDP 500, UDP 4500, protocol 50 (ESP)"
    assert RULES[platform] in others


NO_SA = "# ESP (protocol 50): not tried: no SA with it was made"
NOT_UDP_4500 = "UDP 4500 was not tried: force_udp_encapsulation is not set"


def probe(node: Node, peer: str) -> list[str]:
    """What is said of the two rules of a firewall; of real ESP in tests/lab/test_verify.py."""
    socket = str(node.run_dir / "control.sock")
    return lines(node, "--socket", socket, "--firewall", "vsphere", "--probe", peer)[-2:]


@pytest.mark.skipif(has_esp(), reason="this kernel has ESP")
def test_a_probe_of_the_rules(tmp_path: Path) -> None:
    """Which rule lets packets pass, which one holds them back, and what was not tried, and why."""
    with network(tmp_path, 3, "dq") as (a, b, _):
        configure([a, b], [D])
        for node in (a, b):
            node.up()
        with rules(b.name, "before udp dport { 500, 4500 } drop"):
            (held, untried) = probe(a, B)
        # Each waits its whole time for an SA, which this kernel cannot have.
        with ThreadPoolExecutor() as at_once:
            passes, closed, exempt = at_once.map(functools.partial(probe, a), (B, C, D))

    assert passes == [f"# UDP 500: passes: {B} answered; {NOT_UDP_4500}", NO_SA]
    assert closed == [
        f"# UDP 500: passes: {C} answered that no program listens there, so it has no charon;"
        f" {NOT_UDP_4500}",
        NO_SA,
    ]
    assert exempt == [
        f"# UDP 500 and UDP 4500: not tried: {D} is not encrypted by the config, so nothing was"
        f" sent: {D} is in no_ipsec_subnets ({D}/32)",
        NO_SA,
    ]
    (sent,) = re.findall(r"did not answer ([1-9]\d*) of IKE", held)
    assert held == (
        f"# UDP 500 and UDP 4500: held back: {B} did not answer {sent} of IKE: a rule is missing at"
        " one end, or that VM's agent does not run"
    )
    assert untried == NO_SA


def test_an_agent_that_hangs(vm: Node) -> None:
    """It is not called missing; what it would know is not called well."""
    socket = vm.run_dir / "control.sock"
    with vm.held():
        said, shown = doctor(vm), lines(vm)

    (one,) = found(said, "agent")
    assert one["message"] == (
        f"the agent cannot be asked: the agent on {socket} did not answer within 10 s"
    )
    assert (one["severity"], one["command"]) == ("error", "monit status ipsec")
    assert one["hint"] == (
        "it is busy or stopped by a signal; see its log; charon, policies and guard stay while it"
        " is replaced"
    )
    states = {it["name"]: it["state"] for it in said["checks"]}
    assert states["problems"] == states["outages"] == "not checked"
    assert "-        problems: not checked, the agent cannot be asked" in shown
    assert "-        outages: not checked, the agent cannot be asked" in shown


SECOND = """
charon {{
  load = random nonce openssl kernel-netlink socket-default vici
  plugins {{ vici {{ socket = unix://{directory}/second.vici }} }}
}}
"""


def test_a_second_charon(vm: Node) -> None:
    """One that somebody has started by hand is named; the agent's own is no stranger."""
    conf = vm.directory / "second.conf"
    conf.write_text(SECOND.format(directory=vm.directory))
    words = vm.command("env", f"STRONGSWAN_CONF={conf}", CHARON)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as second:
        try:
            (one,) = until(lambda: found(doctor(vm), "other-ipsec"), "it is named", 60)
        finally:
            second.terminate()

    assert one["message"] == (
        f"charon-systemd (pid {second.pid}), an IPsec program that is not the agent's, runs"
    )
    assert (one["command"], one["hint"]) == (
        f"ps -fp {second.pid}",
        "end it, and see what starts it",
    )
    assert found(doctor(vm), "other-ipsec") == []


def test_without_root(vm: Node) -> None:
    """What was not asked, and how to ask it."""
    for place in (vm.directory, *vm.directory.parents[:3]):
        place.chmod(place.stat().st_mode | 0o055)
    socket = str(vm.run_dir / "control.sock")
    done = as_nobody("doctor", "--json", "--config", str(vm.config), "--socket", socket)
    said = json.loads(done.stdout)

    sudo = f"sudo ipsec-agent doctor --config {vm.config} --socket {socket}"
    (agent,), (machine,) = found(said, "agent"), found(said, "machine")
    assert agent["message"] == f"the agent was not asked: no permission to use {socket}"
    assert machine["message"] == (
        "not checked without root: ESP, nftables, the guard's table, lock-outs"
    )
    assert agent["command"] == machine["command"] == sudo
    (config,) = found(said, "config")
    assert config["command"] == f"sudo ipsec-agent check {vm.config}"
    shown = as_nobody("doctor", "--config", str(vm.config), "--socket", socket).stdout
    assert "\n-        firewall: not checked, this needs root\n" in shown


def test_what_cannot_be_read(vm: Node) -> None:
    """It is named, with the reason."""
    told = [one["message"] for one in found(doctor(vm, around=WITHOUT), "unread")]

    assert told == [
        "not checked: the guard: cannot read the table that filters flowtables: Operation not"
        " permitted"
    ]
    assert "-        guard: not checked, it could not be read" in lines(vm, around=WITHOUT)


def test_an_agent_that_starts(tmp_path: Path) -> None:
    """Until its first look there is nothing to judge."""
    with network(tmp_path, 1, "ds") as (node,):
        sleeper = node.directory / "charon"
        sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
        sleeper.chmod(0o755)
        configure([node], [], charon={"program": str(sleeper)})
        node.start()
        until(node.status, "it answers")
        (one,) = found(doctor(node), "agent")

    assert one["message"] == "the agent has only just started"
    assert one["command"] == (
        f"ipsec-agent status --watch --socket {node.run_dir / 'control.sock'}"
    )


def test_an_agent_that_was_killed(tmp_path: Path) -> None:
    """charon goes on with its ports, and is not called a stranger."""
    with network(tmp_path, 1, "dk") as (node,):
        configure([node], [], uplinks=["eth0"])
        node.up()
        node.end_agent(signal.SIGKILL)
        said = doctor(node)

        (one,) = found(said, "agent")
        assert one["message"] == (
            "no agent runs: nothing is repaired or reported, and new SAs need charon"
        )
        assert found(said, "problems") == []

        os.kill(node.charon_pid, signal.SIGKILL)
        words = node.command(PYTHON, "-c", HOLDS)
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"holds\n"
            (taken,) = found(doctor(node), "problems")
            program.kill()
    assert taken["code"] == "ike-port-taken"
    assert taken["message"].startswith(f"UDP 500 is in use by pid {program.pid} (python")
    assert taken["command"] == "ss -lunp sport = :500"
