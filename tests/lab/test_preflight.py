"""The preflight where the kernel has ESP: it passes, leaves no trace, names what disables it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.core.esp import dummy_sas
from ipsec_agent.host.preflight import esp_ability
from tests import incidents
from tests.charon.nodes import AGENT, DEADLINE, NO_ESP, SCALE, Node, complaints, ip, network, until
from tests.configs import config
from tests.lab.deployment import B, configure, start
from tests.lab.namespaces import inside
from tests.lab.traffic import first_answer
from tests.lab.verbs import in_status

pytestmark = [pytest.mark.esp, pytest.mark.timeout(400)]

MODPROBE = Path("/proc/sys/kernel/modprobe")
DISABLED = Path("/etc/modprobe.d/disable-esp.conf")

KILLED = """
import os, signal
from ipaddress import ip_address
from ipsec_agent.core.esp import dummy_sas
from ipsec_agent.host import preflight
from tests import incidents
from tests.configs import config
asked = preflight._asked

def killed(channel, message, kind):
    if kind == preflight.Kind.DELETE_SA:
        os.kill(os.getpid(), signal.SIGKILL)
    return asked(channel, message, kind)

preflight._asked = killed
preflight.esp_ability(dummy_sas(config(), [ip_address("10.0.0.5")]))
"""


def check(node: Node) -> subprocess.CompletedProcess[str]:
    """Run `check --machine` in a VM."""
    return subprocess.run(
        node.command(*AGENT, "check", str(node.config), "--machine"),
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def problem(node: Node) -> dict[str, Any]:
    """What a VM's status says of ESP; empty where nothing."""
    found = [one for one in node.status()["problems"] if one["code"] == NO_ESP]
    return found[0] if found else {}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two VMs that encrypt, and look only seldom where no event tells."""
    with network(tmp_path, 2, "pf") as nodes:
        configure(nodes, [], interval=300)
        start(nodes)
        yield nodes[0], nodes[1]


def spis(node: Node) -> set[int]:
    """The SPIs of a VM's kernel, without larval SAs."""
    shown = ip("xfrm", "state", netns=node.name)
    return {int(spi, 16) for spi in re.findall(r"spi (0x[0-9a-f]+)", shown)} - {0}


def quiet(node: Node) -> int:
    """The number of the VM's last pass, once none follows but those that a question asks for."""

    def settled() -> int:
        before = node.status()["passes"]
        time.sleep(SCALE)
        after: int = node.status()["passes"]
        return after if after == before + 1 else 0

    found: int = until(settled, "no pass follows")
    return found


def test_it_passes_and_leaves_no_trace(pair: tuple[Node, Node]) -> None:
    """`check --machine` says yes; no SA is left, the agent beside it never wakes, and charon's
    traffic goes on with the SAs that it had."""
    a, _ = pair
    first_answer(a, B)
    assert a.ask("status").returncode == 0
    before, passes = spis(a), quiet(a)

    done = check(a)

    assert done.returncode == 0, done.stderr
    assert "this VM is ready\n  ESP: aes128gcm16 over IPv4\n" in done.stdout
    assert spis(a) == before
    assert {spi for spi in before if spi < 256} == set()
    time.sleep(SCALE)
    assert a.status()["passes"] == passes + 1


@pytest.mark.long
def test_killed_in_the_middle(pair: tuple[Node, Node]) -> None:
    """What it had added is gone after its life of 2 s; until then it is nobody's SA, and neither
    its end nor itself is an event or a problem."""
    a, _ = pair
    first_answer(a, B)
    before, passes = spis(a), quiet(a)
    with inside(a.name):
        program = subprocess.Popen([sys.executable, "-c", KILLED])
    assert program.wait(DEADLINE) == -signal.SIGKILL
    ended = time.monotonic()
    assert spis(a) == before | {255}

    until(lambda: spis(a) == before, "it ends by itself", 10)
    took = time.monotonic() - ended

    # The kernel counts whole seconds, and its first look is after one.
    assert took < 2 + 1 + 0.3 * SCALE
    time.sleep(SCALE)
    status = a.status()
    assert status["passes"] == passes + 1
    assert status["healthy"]
    assert [peer["address"] for peer in status["peers"]] == [B]


@pytest.mark.long
def test_a_dummy_that_stays_is_nobodys(pair: tuple[Node, Node]) -> None:
    """Also for an agent that reads it: it is no peer, no orphan, and never deleted."""
    a, _ = pair
    first_answer(a, B)
    until(lambda: a.status()["peers"], "the SA is in the status")
    line = (
        "xfrm state add src 127.0.0.1 dst 127.0.0.1 proto esp spi 255 mode transport aead"
        " rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128"
    )
    ip(*line.split(), netns=a.name)
    passes = a.status()["passes"]
    assert a.ask("reload").returncode == 0
    until(lambda: a.status()["passes"] > passes, "it looks")

    status = a.settled()

    assert [peer["address"] for peer in status["peers"]] == [B]
    assert 255 in spis(a)
    # Somebody else's with the same SPI stands for a success, and is left alone.
    assert check(a).returncode == 0
    assert 255 in spis(a)


@contextlib.contextmanager
def modules_on_demand() -> Iterator[None]:
    """The guest's kernel loads modules, as every other does."""
    before = MODPROBE.read_text()
    MODPROBE.write_text("/sbin/modprobe\n")
    try:
        yield
    finally:
        DISABLED.unlink(missing_ok=True)
        subprocess.run(["modprobe", "esp4"], check=True)
        MODPROBE.write_text(before)


needs_guest = pytest.mark.skipif(
    "LAB_TIME_SCALE" not in os.environ, reason="it unloads a module, and so needs the lab's guest"
)


@pytest.mark.long
@needs_guest
def test_what_disables_it_is_named(tmp_path: Path) -> None:
    """modprobe.d disables esp4, as platforms do since May 2026, while a healthy agent runs: the
    first SA that charon cannot install tells; the VM is guarded, critical, and names file and line;
    `check --machine` refuses; without the line the agent is healthy within its interval."""
    with modules_on_demand(), network(tmp_path, 2, "pf") as (a, b):
        configure((a, b), [], interval=5)
        start((a, b))
        subprocess.run(["rmmod", "esp4"], check=True)
        DISABLED.write_text("# no ESP\ninstall esp4 /bin/true\n")

        with inside(a.name):
            subprocess.run(["ping", "-c", "1", "-W", "1", B], check=False, capture_output=True)
        until(lambda: problem(a), "it is seen")
        in_status(a, incidents.ESP_DISABLED.of(file=DISABLED, line=2))

        status = a.status()
        assert (status["state"], status["healthy"]) == ("degraded", False)
        assert (status["guard"]["state"], status["policies"]["missing"]) == ("up", [])
        refused = check(a)
        assert refused.returncode == 1
        assert f"{DISABLED}:2" in refused.stderr
        assert NO_ESP in complaints(a.status())

        DISABLED.unlink()
        until(lambda: not problem(a), "it is healed", (5 + 2) * SCALE)
        until(lambda: complaints(a.status()) == set(), "healthy", 150 + DEADLINE)
        first_answer(a, B)


@pytest.mark.long
@needs_guest
def test_every_algorithm() -> None:
    """What the guest's kernel has by modules is added as the kernel wants it, in both families, in
    UDP, and with extended sequence numbers; and deleted."""
    proposals = (
        *("aes128gcm16", "aes256gcm8", "aes192gcm12-esn", "aes128ccm16", "chacha20poly1305"),
        *("aes128-sha256", "aes256-sha512-esn", "aes256ctr-sha384", "3des-md5", "aes-sha1"),
        *("camellia256-sha256_96", "aes128-aesxcbc", "aes128-aescmac"),
    )
    settings = replace(config(("10.0.0.0/8", "fd00::/8")), esp_proposals=proposals)
    own = [ip_address("10.0.0.5"), ip_address("fd00::5")]
    with modules_on_demand():
        for encapsulated in (False, True):
            wanted = dummy_sas(replace(settings, force_udp_encapsulation=encapsulated), own)
            found = esp_ability(wanted)
            assert [(one.sa.words, one.said) for one in found.failed] == []
            assert len(found.trials) == 2 * len(proposals)
    assert "spi 0x000000ff" not in ip("xfrm", "state")
