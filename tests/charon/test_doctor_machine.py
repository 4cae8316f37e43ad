"""`doctor` on a machine under the real systemd: each thing that is wrong with it is told.

A container lives through all of it once (tests/charon/doctor_driver.py); the tests read what was
said, whole sentences, each with what to type.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.boot.container import SYSTEMD, in_container
from tests.certificates import ec_key, make_ca, make_leaf
from tests.manifests import manifest

pytestmark = [
    pytest.mark.charon,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed"),
]

STARTER = Path("/usr/lib/ipsec/starter")
"""From Debian 13 on its package and that of charon-systemd exclude each other."""

CONFIG = "/etc/ipsec-agent/ipsec.yml"
CHECK = f"ipsec-agent check {CONFIG}"
ENABLE = "systemctl enable ipsec-agent.target ipsec-agent-guard.service"
PLUGINS = f"grep -n -A3 plugins {CONFIG}"
VM = {"address": "10.9.0.1", "uplinks": ["eth0"]}

HARMFUL = {
    "bypass-lan": "it lets the whole local network pass in clear",
    "kernel-libipsec": "it encrypts outside the kernel, which the agent does not see",
    "kernel-pfkey": "it writes policies in the place of kernel-netlink",
    "stroke": "another program can then change charon's connections",
    "farp": "it answers ARP for other machines",
    "forecast": "it changes rules of the firewall",
    "connmark": "it narrows policies by marks",
    "updown": "it runs scripts for each SA",
}

SAYS: dict[str, dict[str, str]] = {
    "bare": {
        f"there is no config at {CONFIG}": CHECK,
        "no agent runs and no guard is loaded: packets to other VMs leave in clear": (
            "ipsec-agent guard up --closed"
        ),
        "no table is saved: the next boot has no guard until the agent starts": (
            "ipsec-agent guard up --closed"
        ),
        "ipsec-agent.target is not enabled: after the next boot no agent runs": ENABLE,
        "ipsec-agent-guard.service is not enabled: until the agent starts, the next boot has no"
        " guard: packets leave in clear": ENABLE,
    },
    "refused": {
        f"{CONFIG} is refused: 1 error; {CONFIG}:2: not valid YAML: the line is indented with a"
        " tab; use spaces": CHECK,
    },
    "in_clear": {
        "no agent runs and no guard is loaded: packets to other VMs leave in clear": (
            "ipsec-agent guard up"
        ),
        "far0 has MTU 1500, but only packets of up to 1466 bytes fit into ESP on eth0 (MTU 1500)": (
            "ip link set dev far0 mtu 1466"
        ),
    },
    "guarded": {
        "no agent runs: nothing is repaired or reported, and new SAs need charon": (
            "systemctl start ipsec-agent.target"
        ),
    },
    "others": {
        "strongswan-starter.service runs: it would take UDP 500 and 4500 from the agent's charon,"
        " and remove its policies": ("systemctl disable --now strongswan-starter.service"),
        **{
            f"{unit}.service starts at the next boot: it would take UDP 500 and 4500 from the"
            " agent's charon, and remove its policies": f"systemctl disable --now {unit}.service"
            for unit in ("libreswan", "racoon", "racoon2")
        },
        "starter (pid {pid}), an IPsec program that is not the agent's, runs": "ps -fp {pid}",
    },
    "bosh": {
        "no agent runs: nothing is repaired or reported, and new SAs need charon": (
            "monit start ipsec"
        ),
        "ipsec-agent-guard.service is not enabled: until the agent starts, the next boot has no"
        " guard: packets leave in clear": "systemctl enable ipsec-agent-guard.service",
    },
    "mounted": {
        "/data (nfs4) is on 10.9.0.9, which is encrypted: once IPsec has stopped, whoever uses it"
        " hangs": "umount /data",
        "/ceph (ceph) is on 10.9.0.8, which is encrypted: once IPsec has stopped, whoever uses it"
        " hangs": "umount /ceph",
    },
    "plugins": {
        "agent.charon.plugins adds foo, which the agent does not need": PLUGINS,
        **{f"agent.charon.plugins has {name}: {does}": PLUGINS for name, does in HARMFUL.items()},
    },
    "warned": {
        f"{CONFIG}:{{line}}: warning: addons[0].properties.ipsec.log_level: level 3 writes the raw"
        " data of messages into charon's log; write log_level: 2 at most, unless for a test with"
        " keys that are thrown away": CHECK,
    },
    "no_aes": {
        "this CPU has no AES in hardware (aes, pclmulqdq is missing), so aes128gcm16 takes many"
        " times the CPU time": "grep -m1 -wo -e aes -e pclmulqdq /proc/cpuinfo",
    },
    "no_driver": {
        "the kernel has loaded no driver that uses the CPU's AES": "modprobe aesni_intel",
    },
    "slow": {
        "camellia128-sha256 does not use the CPU's AES; aes128gcm16 is many times faster": (
            "openssl speed -evp aes-128-gcm"
        ),
        "this kernel is in FIPS mode and refuses camellia128-sha256, chacha20poly1305": (
            f"{CHECK} --machine"
        ),
    },
    "hole": {
        "strongSwan 5.9.8-5+deb12u5 has 3 known holes in what the agent's charon loads:"
        " CVE-2026-78127 (a peer makes charon use up memory), CVE-2026-78132 (a certificate keeps"
        " charon busy for ever), CVE-2026-78135 (a CHILD_SA can be asked for before both have"
        " proved who they are)": (
            "apt-get update && apt-get install --only-upgrade libstrongswan charon-systemd"
        ),
    },
    "unjudged": {
        "it is not known whether strongSwan 5.9.13-2ubuntu4.24.04.1 has 6 known holes: other"
        " systems than Debian 12 and 13 close holes under version numbers of their own:"
        " CVE-2026-35331, CVE-2026-47895, CVE-2026-78127 and 3 more": (
            "apt-get changelog charon-systemd | grep CVE-"
        ),
    },
}
"""What is said in each phase, among the rest, and what to type."""

HINTS = {
    "bare": ("then start the agent: `systemctl start ipsec-agent.target`",),
    "others": ("end it, and see what starts it",),
    "mounted": (
        "stop the jobs that use it, and unmount it, before IPsec; or list the server in"
        " no_ipsec_subnets on every VM",
    ),
    "plugins": ("remove it, then `ipsec-agent reload`",),
    "no_aes": (
        "have the hypervisor show the CPU's AES to the VM (a CPU model with `aes`), or write"
        " esp_proposals: chacha20poly1305 on every VM",
    ),
    "no_driver": ("charon's first SA may load it; see `grep -A1 gcm /proc/crypto`",),
    "slow": (
        "write esp_proposals: aes128gcm16 on every VM",
        "use AES-GCM, SHA-2 and the NIST curves on every VM",
    ),
    "hole": ("then `systemctl restart ipsec-agent-charon`; policies and guard stay meanwhile",),
    "unjudged": ("a hole that the changelog names is closed",),
}
"""What is said beside what to type."""

LINES = {
    "bare": (
        "-        problems: not checked, there is no valid config",
        "-        machine: not checked, there is no valid config",
        "-        cpu: not checked, there is no valid config",
        "-        stop: not checked, there is no valid config",
        "-        plugins: not checked, there is no valid config",
        "-        fips: not checked, there is no valid config",
    ),
    "guarded": (
        "ok       config: the config is there and valid",
        "ok       problems: no problem is known",
        "ok       outages: no peer was cut off",
        "ok       guard: the guard is up, and saved for the next boot",
        "ok       boot: guard and agent start at boot",
        "ok       other-ipsec: no other IPsec program runs",
        "ok       firewall: no other rule stops ESP or IKE",
        "ok       cpu: the CPU has AES in hardware, and it is used",
        "ok       stop: nothing hangs when IPsec stops",
        "ok       plugins: charon loads no foreign plugin",
        "ok       fips: the proposals are allowed in FIPS mode",
        "ok       strongswan: strongSwan has no known hole",
        "ok       unread: everything could be read",
    ),
    "unguarded": ("-        guard: not checked, the config says agent.guard: none",),
    "bosh": ("-        strongswan: not checked, dpkg knows no strongSwan here",),
}
"""The lines of checks that are well, or could not be made."""

Said = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """One life."""
    results = tmp_path_factory.mktemp("doctor")
    ca = make_ca()
    leaf = make_leaf(ca, key=ec_key())
    configs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "good": ({}, {}),
        "unguarded": ({"guard": "none"}, {}),
        "plugins": ({"charon": {"plugins": ["vici", *HARMFUL, "foo"]}}, {}),
        "slow": ({}, {"esp_proposals": "camellia128-sha256,chacha20poly1305"}),
        "warned": ({}, {"log_level": 3}),
    }
    for name, (agent, extra) in configs.items():
        text = manifest(
            ["10.9.0.0/24"], leaf=leaf, cas=[ca], agent=VM | agent, prestart_timeout=100, **extra
        )
        (results / f"{name}.yml").write_text(text)
    in_container(f"{sys.executable} -m tests.charon.doctor_driver", results, 240)
    log, found = results / "driver.log", results / "said.json"
    assert found.exists(), log.read_text() if log.exists() else (results / "console").read_text()
    return dict(json.loads(found.read_text()))


def findings(document: dict[str, Any], check: str = "") -> list[dict[str, str]]:
    """All of a document's findings, or one check's."""
    checks = [one for one in document["checks"] if check in ("", one["name"])]
    return [finding for one in checks for finding in one["findings"]]


@pytest.mark.parametrize("phase", SAYS)
def test_what_is_wrong(said: Said, phase: str) -> None:
    """Each thing is told in a sentence, with what to type."""
    told = {one["message"]: one["command"] for one in findings(said[phase])}
    text = json.dumps(said[phase])
    words = {
        name: found[1] if (found := re.search(pattern, text)) else ""
        for name, pattern in (("pid", r"starter \(pid (\d+)\)"), ("line", r"\.yml:(\d+): warning"))
    }

    for message, command in SAYS[phase].items():
        if STARTER.exists() or "starter" not in message:
            assert told[message.format(**words)] == command.format(**words)
    hints = {one["hint"] for one in findings(said[phase])}
    if STARTER.exists() or phase != "others":
        assert hints >= {*HINTS.get(phase, ())}
    assert not said[phase]["well"]


@pytest.mark.parametrize("phase", LINES)
def test_what_is_well_or_was_not_checked(said: Said, phase: str) -> None:
    """Each other check has one line, with its words."""
    lines = said[phase]["text"].splitlines()

    assert [line for line in LINES[phase] if line not in lines] == [], lines


@pytest.mark.parametrize(
    ("check", "phases"),
    [
        ("config", {"bare", "refused", "warned"}),
        ("guard", {"bare", "refused", "in_clear"}),
        ("boot", {"bare", "refused", "bosh"}),
        ("stop", {"mounted"}),
        ("plugins", {"plugins"}),
        ("fips", {"slow"}),
    ],
)
def test_what_is_well(said: Said, check: str, phases: set[str]) -> None:
    """Where a thing is not wrong, nothing is said of it."""
    states = {
        name: one["state"]
        for name, document in said.items()
        for one in document["checks"]
        if one["name"] == check
    }
    assert {name for name, state in states.items() if state == "found"} == phases


def test_nothing_is_said_twice(said: Said) -> None:
    """Two names of one unit are one finding, as is a mount with many servers, and what two checks
    find.
    """
    for name, document in said.items():
        lines = [(one["code"], one["message"]) for one in findings(document)]
        assert [one for one in lines if lines.count(one) > 1] == [], name
