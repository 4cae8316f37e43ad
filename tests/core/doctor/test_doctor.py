"""Each check of `doctor`, on facts; tests/kernel/test_doctor.py has it on this machine."""

import json
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.cli import parser
from ipsec_agent.core.commands import About
from ipsec_agent.core.config import AgentConfig, CharonConfig, GuardMode
from ipsec_agent.core.doctor.facts import Complaint, Cpu, Facts, GuardFacts, Mount, Unit
from ipsec_agent.core.doctor.report import CHECKS, Result, document, examined, repeated, text
from ipsec_agent.core.model import Direction
from ipsec_agent.core.observed import IkePorts, PortHolder
from ipsec_agent.core.outages import Outage
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.switch import Switch, SwitchKind
from tests.configs import FACTS, config
from tests.core.test_status import shown
from tests.test_docs import page
from tests.vm import NETWORK, NOW, PEER, healthy_vm

UP = GuardFacts("up", "good")
ENABLED = (
    Unit("ipsec-agent.target", enabled=True, active=True),
    Unit("ipsec-agent-guard.service", enabled=True, active=True),
)
STATUS = shown(healthy_vm())
FAST = Cpu("x86_64", frozenset({"aes", "pclmulqdq"}), frozenset({"rfc4106-gcm-aesni"}))
WELL = Facts(
    "/etc/ipsec-agent/ipsec.yml",
    config(),
    status=STATUS,
    guard=UP,
    network=NETWORK,
    units=ENABLED,
    packages={"charon-systemd": "5.9.8-5+deb12u6"},
    release=12,
    cpu=FAST,
    now=NOW,
)
ALONE = replace(WELL, status=None)


def with_config(facts: Facts, **changes: Any) -> Facts:
    """The facts with another config."""
    assert facts.config is not None
    return replace(facts, config=replace(facts.config, **changes))


def with_plugins(*names: str) -> Facts:
    """The facts with a list of plugins."""
    return replace(WELL, config=config(agent=AgentConfig(charon=CharonConfig(plugins=names))))


def but(facts: Facts, **changes: Any) -> Facts:
    """The facts with something else read."""
    return replace(facts, **changes)


def problem(code: str, severity: str, hint: str) -> dict[str, Any]:
    """A status with a problem."""
    one = {"code": code, "severity": severity, "message": "it is so", "hint": hint, "since": 0.0}
    return {**STATUS, "problems": [one]}


PORT = PortHolder(4, 500, ip_address("0.0.0.0"), 77, "pluto")
EXPIRED = replace(FACTS, not_after=datetime(2026, 2, 1, tzinfo=UTC))
ERROR, WARNING, INFO, CRITICAL = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.CRITICAL

CASES: dict[str, tuple[Facts, str, Severity, str, str]] = {
    "a peer was cut off": (
        but(ALONE, outages=(Outage(PEER, NOW - 7200, NOW - 60, "peer-silent", "no answer"),)),
        "outages",
        INFO,
        "10.0.0.9 was cut off from 2027-01-15 06:00:00 UTC until 2027-01-15 07:59:00 UTC (119 min)",
        "",
    ),
    "no config": (
        but(ALONE, config=None, refused=Complaint("there is no config at /x", "put it there")),
        "config",
        ERROR,
        "there is no config at /x",
        "ipsec-agent check /etc/ipsec-agent/ipsec.yml",
    ),
    "YAML": (
        but(WELL, config=None, refused=Complaint("x is refused: 1 error", "", ("x:3: a tab",))),
        "config",
        ERROR,
        "x is refused: 1 error; x:3: a tab",
        "ipsec-agent check /etc/ipsec-agent/ipsec.yml",
    ),
    "in clear": (
        but(ALONE, guard=GuardFacts("missing", "missing"), units=None),
        "agent",
        CRITICAL,
        "no agent runs and no guard is loaded: packets to other VMs leave in clear",
        "ipsec-agent guard up",
    ),
    "in clear, and no config that is accepted": (
        but(
            ALONE,
            config=None,
            refused=Complaint("x is refused: 1 error", "", ("x:3: a tab",)),
            guard=GuardFacts("missing", "missing"),
            units=None,
        ),
        "agent",
        CRITICAL,
        "no agent runs and no guard is loaded: packets to other VMs leave in clear",
        "ipsec-agent guard up --closed",
    ),
    "no agent, but a guard": (
        ALONE,
        "agent",
        ERROR,
        "no agent runs: nothing is repaired",
        "systemctl start ipsec-agent.target",
    ),
    "a problem": (
        but(WELL, status=problem("charon-down", "critical", "run `journalctl -u x`, or wait")),
        "charon-down",
        CRITICAL,
        "it is so",
        "journalctl -u x",
    ),
    "a table that was altered": (
        but(ALONE, guard=GuardFacts("altered", "good", ("not ours: run `ipsec-agent guard up`",))),
        "guard",
        CRITICAL,
        "not ours",
        "ipsec-agent guard up",
    ),
    "the next boot": (
        but(WELL, guard=GuardFacts("up", "missing", ("no table is saved: the next boot",))),
        "guard",
        WARNING,
        "no table is saved",
        "ipsec-agent guard up",
    ),
    "a flowtable": (
        but(ALONE, guard=GuardFacts("up", "good", ("flowtable x: run `nft delete flowtable x`",))),
        "guard",
        WARNING,
        "flowtable x",
        "nft delete flowtable x",
    ),
    "not enabled": (
        but(WELL, units=(replace(ENABLED[0], enabled=False), ENABLED[1])),
        "boot",
        WARNING,
        "ipsec-agent.target is not enabled",
        "systemctl enable ipsec-agent.target ipsec-agent-guard.service",
    ),
    "the machine": (
        but(WELL, machine=(Complaint("nft is not installed", "apt install nftables"),)),
        "machine",
        ERROR,
        "nft is not installed",
        "ipsec-agent check --machine",
    ),
    "an agent that hangs": (
        but(ALONE, silent=Complaint("the agent on /s did not answer within 10 s", "see its log")),
        "agent",
        ERROR,
        "the agent cannot be asked: the agent on /s did not answer within 10 s",
        "systemctl restart ipsec-agent.service",
    ),
    "an agent that only root may ask": (
        but(ALONE, silent=Complaint("no permission to use /s", "run this as root"), root=False),
        "agent",
        INFO,
        "the agent was not asked: no permission to use /s",
        "sudo ipsec-agent doctor",
    ),
    "not root": (but(WELL, root=False), "machine", INFO, "not checked", "sudo ipsec-agent doctor"),
    "another unit": (
        but(WELL, units=(*ENABLED, Unit("strongswan.service", enabled=True, active=False))),
        "other-ipsec",
        WARNING,
        "strongswan.service starts at the next boot",
        "systemctl disable --now strongswan.service",
    ),
    "another program": (
        but(WELL, daemons=(("pluto", 77),)),
        "other-ipsec",
        ERROR,
        "pluto (pid 77)",
        "ps -fp 77",
    ),
    "a rule": (
        but(WELL, blocking=("ip protocol esp drop",)),
        "firewall",
        WARNING,
        "stops ESP or IKE: ip protocol esp drop",
        "nft -a list ruleset",
    ),
    "no AES": (
        but(WELL, cpu=Cpu("x86_64", frozenset({"sse2"}))),
        "cpu",
        WARNING,
        "no AES in hardware (aes, pclmulqdq is missing), so aes128gcm16",
        "grep -m1 -wo -e aes -e pclmulqdq /proc/cpuinfo",
    ),
    "no driver": (
        but(WELL, cpu=replace(FAST, drivers=frozenset({"aes-generic"}))),
        "cpu",
        INFO,
        "no driver",
        "modprobe aesni_intel",
    ),
    "a slow cipher": (
        with_config(WELL, esp_proposals=("3des-sha1",)),
        "cpu",
        INFO,
        "3des-sha1 does not use the CPU's AES",
        "openssl speed -evp aes-128-gcm",
    ),
    "a stop that hangs": (
        but(WELL, mounts=(Mount("/data", "nfs4", PEER),)),
        "stop",
        INFO,
        "/data (nfs4) is on 10.0.0.9",
        "umount /data",
    ),
    "a foreign plugin": (
        with_plugins("vici", "bypass-lan"),
        "plugins",
        ERROR,
        "has bypass-lan: it lets the whole local network pass in clear",
        "grep -n -A3 plugins /etc/ipsec-agent/ipsec.yml",
    ),
    "FIPS": (
        but(with_config(WELL, esp_proposals=("chacha20poly1305",)), fips=True),
        "fips",
        ERROR,
        "refuses chacha20poly1305",
        "ipsec-agent check /etc/ipsec-agent/ipsec.yml --machine",
    ),
    "a hole": (
        but(WELL, packages={"charon-systemd": "5.9.8-5+deb12u3"}),
        "strongswan",
        WARNING,
        "CVE-2026-35331",
        "apt-get update && apt-get install --only-upgrade libstrongswan charon-systemd",
    ),
    "a charon of before an upgrade": (
        but(WELL, replaced=77),
        "strongswan",
        WARNING,
        "started before another strongSwan was installed",
        "systemctl restart ipsec-agent-charon",
    ),
    "a charon of before an upgrade, without systemd": (
        but(WELL, replaced=77, units=None),
        "strongswan",
        WARNING,
        "has the holes of the one before",
        "kill 77",
    ),
    "a hole that nobody can judge": (
        but(WELL, packages={"strongswan-charon": "5.9.13-2ubuntu4.24.04.1"}, release=0),
        "strongswan",
        INFO,
        "it is not known whether",
        "apt-get changelog strongswan-charon | grep CVE-",
    ),
    "unread": (
        but(WELL, unread=(Complaint("the guard: no nft", "run `apt install nftables`"),)),
        "unread",
        INFO,
        "the guard: no nft",
        "apt install nftables",
    ),
    "expired": (
        replace(ALONE, config=config(facts=EXPIRED)),
        "certificate-expired",
        CRITICAL,
        "expired",
        "ipsec-agent certs show /etc/ipsec-agent/ipsec.yml",
    ),
    "a sysctl": (
        but(ALONE, switches=(Switch(SwitchKind.DISABLE_XFRM, 4, "all", "net/ipv4/conf/all/x"),)),
        "ipsec-disabled",
        CRITICAL,
        "IPsec is disabled on every link",
        "sysctl -w net/ipv4/conf/all/x=0",
    ),
    "setdefault": (
        but(ALONE, default_blocks=(Direction.OUT,)),
        "policy-default-blocks",
        ERROR,
        "blocks packets that match no policy",
        "ip xfrm policy setdefault in accept fwd accept out accept",
    ),
    "a port": (
        but(ALONE, ike_ports=IkePorts(others=(PORT,), versions=(4,))),
        "ike-port-taken",
        CRITICAL,
        "UDP 500 is in use by pid 77 (pluto)",
        "ss -lunp sport = :500",
    ),
    "MTU": (
        but(
            ALONE,
            network=replace(
                NETWORK,
                links=tuple(
                    replace(link, mtu=1500) if link.name == "docker0" else link
                    for link in NETWORK.links
                ),
            ),
        ),
        "mtu-too-large",
        WARNING,
        "docker0 has MTU 1500",
        "ip link set dev docker0 mtu 1466",
    ),
}


def found(facts: Facts) -> list[Any]:
    """All findings, each once, as the text tells them."""
    return list(dict.fromkeys(one for result in examined(facts) for one in result.findings))


@pytest.mark.parametrize("name", CASES)
def test_checks(name: str) -> None:
    """Each names its thing, and exactly what to type."""
    facts, check, severity, words, command = CASES[name]

    findings = [one for one in found(facts) if one.check == check and words in one.message]

    assert len(findings) == 1, found(facts)
    assert findings[0].severity is severity
    assert findings[0].command == command or not command
    assert findings[0].command


def test_all_is_well() -> None:
    """A healthy VM has no finding, and each check says so."""
    results = examined(WELL)

    assert document(results)["well"]
    assert found(WELL) == []
    assert text(results).splitlines() == [
        f"ok       {name}: {says}" for name, (says, _) in CHECKS.items()
    ]


def test_every_check_is_provoked() -> None:
    """Each has a case here that it finds."""
    provoked = {
        result.name for facts, *_ in CASES.values() for result in examined(facts) if result.findings
    }

    assert provoked == set(CHECKS)


def test_with_bosh() -> None:
    """There monit starts the agent, so that the target is not enabled; the guard is systemd's."""
    target, guard = ENABLED
    remover = Unit("ipsec-agent-remover.path", enabled=True, active=True)
    units = (replace(target, enabled=False), guard, remover)
    assert found(but(WELL, units=units)) == []
    assert [one.command for one in found(but(ALONE, units=units))] == ["monit start ipsec"]
    (one,) = found(but(WELL, units=(units[0], replace(guard, enabled=False), remover)))
    assert one.command == "systemctl enable ipsec-agent-guard.service"


@pytest.mark.parametrize(
    ("units", "monit", "start", "look"),
    [
        (ENABLED, False, "systemctl start ipsec-agent.target", "systemctl restart ipsec-agent."),
        (ENABLED, True, "systemctl start ipsec-agent.target", "systemctl restart ipsec-agent."),
        ((), True, "monit start ipsec", "monit status ipsec"),
        (None, True, "monit start ipsec", "monit status ipsec"),
        (None, False, "ipsec-agent run", "ps -fp $(cat /run/ipsec-agent/agent.pid)"),
        ((), False, "ipsec-agent run", "ps -fp $(cat /run/ipsec-agent/agent.pid)"),
    ],
)
def test_what_starts_the_agent(
    units: tuple[Unit, ...] | None, monit: bool, start: str, look: str
) -> None:
    """Nothing is to be typed that this VM does not have."""
    facts = but(ALONE, units=units, monit=monit)
    clear = but(facts, guard=GuardFacts("missing", "missing"))
    silent = but(facts, silent=Complaint("it did not answer", "see its log"))

    def told(of: Facts) -> Any:
        (one,) = [one for one in found(of) if one.check == "agent"]
        return one

    assert told(facts).command == start
    assert told(clear).hint == f"then start the agent: `{start}`"
    assert told(silent).command.startswith(look)


def test_mounts_that_do_not_hang() -> None:
    """Those of machines that are not encrypted, and those that only name one."""
    mounts = (Mount("/a", "nfs4", ip_address("192.0.2.1")), Mount("/b", "ext4", PEER))

    assert found(but(WELL, mounts=mounts)) == []


def test_not_checked() -> None:
    """What could not be judged is not called well."""
    states = {one.name: one.state for one in examined(but(WELL, config=None, root=False))}

    assert states["cpu"] == states["stop"] == states["firewall"] == "not checked"
    states = {one.name: one.state for one in examined(but(WELL, units=None, packages={}))}
    assert states["boot"] == states["strongswan"] == "not checked"
    assert "-        cpu: not checked, there is no valid config" in text(
        examined(but(WELL, config=None))
    )


def test_what_a_running_agent_says_is_not_said_twice() -> None:
    """What it reports of this VM is read from its status alone; a check that finds it as well is
    not called well."""
    assert found(but(WELL, default_blocks=(Direction.OUT,))) == []
    status = problem("esp-unavailable", "critical", "see `dmesg`")
    machine = (Complaint("it is so", "see `dmesg`"),)
    results = examined(but(WELL, status=status, machine=machine))
    assert {one.name for one in results if one.state == "found"} == {"problems", "machine"}
    assert [one.see for one in results if one.see] == [("problems",)]
    said = text(results)
    assert said.count("esp-unavailable: it is so") == 1
    assert "ok       machine" not in said


@pytest.mark.parametrize(
    ("code", "hint", "command"),
    [
        ("esp-unavailable", "install another kernel", "ipsec-agent check --machine"),
        ("clear-received", "see `ipsec-agent status` on that VM", "ipsec-agent guard status"),
        ("proposals-differ", "see `ipsec-agent status` there", "ipsec-agent verify 10.0.0.9"),
        ("plan-unsafe", "report it", "ipsec-agent status"),
        (
            "clear-received",
            "see `ipsec-agent status` on that VM; if it has no IPsec, `optional: true` lets it",
            "ipsec-agent guard status",
        ),
        (
            "flows-offloaded",
            "delete `flow add`, then run `nft delete flowtable x`",
            "nft delete flowtable x",
        ),
        (
            "guard-counters-full",
            "`ipsec-agent guard down` and `ipsec-agent guard up` empty them",
            "ipsec-agent guard status",
        ),
        ("x", "`ipsec-agent guard down`, or wait", "ipsec-agent status"),
        ("x", "wait; `ipsec-agent doctor` names rules", "ipsec-agent status"),
        ("ike-port-closed", "see charon's log (`could not open socket`)", "ipsec-agent status"),
    ],
)
def test_what_to_type_about_a_problem(code: str, hint: str, command: str) -> None:
    """A hint without a command, or with one for another VM: here, what says more of it."""
    status = problem(code, "warning", hint)
    status["problems"][0]["message"] = "10.0.0.9 and this VM have nothing in common"
    failing = {"address": "10.0.0.9", "problem": "proposals-differ"}
    status["peers"] = [{**failing, "address": "10.0.0.99"}, failing]

    assert [one.command for one in found(but(WELL, status=status))] == [command]


def test_another_config_than_that_of_the_agent() -> None:
    """It is said that it was not looked at."""
    (told,) = found(but(WELL, passed_over="/new.yml"))

    assert told.message == (
        "the running agent's config is /etc/ipsec-agent/ipsec.yml, so /new.yml was not looked at"
    )
    assert (told.severity, told.command) == (WARNING, "ipsec-agent check /new.yml --machine")


def test_a_guard_of_a_running_agent() -> None:
    """Its problem tells of the table; the saved file is told beside it."""
    status = {**STATUS, "guard": {**STATUS["guard"], "state": "altered"}}
    notes = ("the table is not ours: run `ipsec-agent guard up`", "the saved table is not ours")

    findings = found(but(WELL, status=status, guard=GuardFacts("altered", "good", notes)))

    assert [one.message for one in findings] == ["the saved table is not ours"]


LOWERED = problem("guard-lowered", "critical", "run `ipsec-agent guard up`")
EXEMPT = but(
    ALONE,
    config=config(no_ipsec=("10.0.0.0/24",)),
    guard=GuardFacts("missing", "good", ("packets may leave in clear",)),
)
NO_GUARD = but(WELL, config=config(agent=AgentConfig(guard=GuardMode.NONE)))


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (WELL, "ok"),
        (but(ALONE, guard=GuardFacts("missing", "good")), "found"),
        (EXEMPT, "found"),
        (but(WELL, guard=GuardFacts("missing", "good"), status=LOWERED), "found"),
        (but(WELL, guard=None), "not checked"),
        (NO_GUARD, "not checked"),
    ],
)
def test_a_guard_that_is_not_up_is_not_well(facts: Facts, state: str) -> None:
    """Also where another check tells why, which the text shows once."""
    (result,) = [one for one in examined(facts) if one.name == "guard"]

    assert result.state == state
    assert ("the guard is up" in text(examined(facts))) == (state == "ok")
    messages = [line for line in text(examined(facts)).splitlines() if " guard" in line]
    assert len(messages) == len(set(messages))
    carried = [one for check in document(examined(facts))["checks"] for one in check["findings"]]
    assert [one for one in carried if carried.count(one) > 1] == []
    assert result.state != "found" or result.findings or result.see in {("agent",), ("problems",)}


def test_a_config_without_a_guard() -> None:
    """The agent is what to start: `guard up` refuses."""
    facts = but(NO_GUARD, status=None, guard=GuardFacts("missing", "missing"))

    (told,) = [one for one in found(facts) if one.check == "agent"]

    assert (told.command, told.hint) == ("systemctl start ipsec-agent.target", "")


def test_advice_is_no_failure() -> None:
    """As with the status: what is no more than advice keeps exit code 0."""
    advice = problem("lockout-risk", "warning", "list it")

    assert document(examined(but(WELL, status=advice)))["well"]
    assert not document(examined(CASES["a rule"][0]))["well"]


def test_the_loudest_comes_first() -> None:
    """So that the first line is what to do first."""
    shown_first = text(examined(CASES["in clear"][0])).splitlines()

    assert shown_first[0].startswith("CRITICAL agent: no agent runs and no guard is loaded")
    assert shown_first[1] == "         run: ipsec-agent guard up"


def test_commands_of_ours_exist() -> None:
    """Each can be typed as it is written."""
    for facts, *_ in CASES.values():
        for one in found(facts):
            command = one.command.removeprefix("sudo ")
            if command.startswith("ipsec-agent "):
                parser().parse_args(command.split()[1:])


def test_documented() -> None:
    """docs/troubleshooting.md has a row for each check, and the keys of the document."""
    told = page("troubleshooting.md")

    assert all(f"| `{name}` |" in told for name in CHECKS)
    shown_keys = json.loads(json.dumps(document(examined(CASES["a rule"][0]))))
    (one,) = [check for check in shown_keys["checks"] if check["findings"]]
    keys = {*shown_keys, *one, *one["findings"][0]}
    assert all(f"`{key}`" in told for key in keys)
    assert all(f"`{state}`" in told for state in ("ok", "found", "not checked"))
    assert Result("x", ()).state == "ok"


def test_commands_of_another_agent() -> None:
    """What is to be typed is about the config and the socket that were asked about."""
    facts = replace(ALONE, guard=GuardFacts("missing", "good"), root=False)
    facts = replace(facts, status=problem("x", "error", "run `ipsec-agent guard up`, then wait"))
    results = repeated(examined(facts), About("/a.yml", "/s"))

    commands = {one.command for result in results for one in result.findings}
    assert "ipsec-agent guard up --config /a.yml --socket /s" in commands
    assert "sudo ipsec-agent doctor --config /a.yml --socket /s" in commands
    said = text(results)
    assert "hint: run `ipsec-agent guard up --config /a.yml --socket /s`, then wait" in said
    assert len(said.splitlines()) == len(text(examined(facts)).splitlines())
