"""A VM's life in a BOSH deployment, under the real systemd and Debian's monit; the capture judges.

The guest lives through all of it once, and once more after its power was off; the tests read what
it wrote down.
"""

import shutil

import pytest

from tests.boot.bosh_disk import STOP_TIMEOUT, deployment
from tests.boot.lives import BOSH_DEADLINE, judge, judge_poweroff, lived
from tests.boot.place import BOSH, DATA_DISK, PEER, REBOOTED, ROOT_DISK, VM
from tests.boot.story import TOLD, Story
from tests.charon.nodes import CHARON as OTHER_CHARON
from tests.lab.frames import Kind
from tests.monit.watched import FAILS, RUNNING

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1100)]

REBOOT_DEADLINE = 300.0

RECREATE, SKIP_DRAIN = "recreate, ipsec first", "stop --skip-drain"
ENFORCED_REMOVAL, PEER_OPTIONAL = "removal while enforced", "its peer becomes optional"
ENFORCED = (
    *("update", "upgrade of charon", RECREATE, "start", SKIP_DRAIN),
    *("enforced", "drain", "poweroff"),
)
"""Phases in which the VM has to encrypt from beginning to end."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Story:
    """From the first deployment until the power goes."""
    results = tmp_path_factory.mktemp("bosh")
    deployment(results, STOP_TIMEOUT)
    return lived(BOSH, results, BOSH_DEADLINE, request)


@pytest.fixture(scope="module")
def reboot(
    story: Story, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Story:
    """The same VM, when its power is there again."""
    results = tmp_path_factory.mktemp("rebooted")
    for name in (ROOT_DISK.name, DATA_DISK.name, "peer.yml"):
        shutil.copy(story.results / name, results)
    return lived(REBOOTED, results, REBOOT_DEADLINE, request)


@pytest.mark.parametrize("name", ENFORCED)
def test_no_packet_in_clear(story: Story, name: str) -> None:
    """Neither from the VM nor from its peer, whatever BOSH does."""
    judge(story.span(name))


def test_deployed(story: Story) -> None:
    """pre-start and monit bring IPsec up, and operators see it where the add-on has it."""
    found, span = story.phases["deploy"], story.span("deploy")

    assert found["summary"]["ipsec"] in (*RUNNING, *FAILS)
    assert PEER in found["statusall"]
    assert span.frames(VM, PEER, Kind.ESP) > 0


def test_an_update_costs_no_packet(story: Story) -> None:
    """IPsec stays while all jobs are stopped, and the next agent takes charon over."""
    phase, span = story.phases["update"], story.span("update")

    assert list(phase["stopped"].values()) == ["inactive", "inactive", "active"]
    assert phase["charon_before"] == phase["charon_after"] != "0"
    assert phase["farewell"]["answered"] == phase["farewell"]["asked"] > 0
    for flow in ("vm", "peer"):
        assert story.lost("update", flow) == 0
        assert span.grown("flows", flow, "answered") > 0.9 * span.attempts(flow) > 0


def test_another_charon(story: Story) -> None:
    """An upgrade of its package replaces charon, once the other jobs have ended."""
    phase, span = story.phases["upgrade of charon"], story.span("upgrade of charon")

    assert phase["program"] == OTHER_CHARON
    assert phase["farewell"]["answered"] == phase["farewell"]["asked"] > 0
    assert "0" != phase["charon_after"] != phase["charon_before"]
    assert span.grown("flows", "vm", "answered") > 0


@pytest.mark.parametrize("name", [RECREATE, SKIP_DRAIN])
def test_ipsec_leaves_last(story: Story, name: str) -> None:
    """Whomever monit stops first, a job has its network until its end. Then charon ends cleanly,
    the peer hears of it, and the guard holds."""
    phase, span = story.phases[name], story.span(name)
    farewell = phase["farewell"]

    assert farewell["answered"] == farewell["asked"] > 0
    assert farewell["ended"] < phase["charon_ended"]
    assert set(phase["states"].values()) == {"inactive"}
    assert phase["results"] == ["success", "success"]
    assert phase["policies"] == 0
    assert "hook postrouting" in phase["guard"]
    assert span.grown("flows", "vm", "refused", "EPERM") > 0
    assert story.told(name) <= TOLD


def test_removed_after_optional(story: Story) -> None:
    """The remover sees that the job is gone, and takes all away; no packet is lost by it."""
    phase, span = story.phases["removal"], story.span("removal")

    assert phase["policies"] == 0
    assert phase["guard"] == ""
    assert phase["charon_after"] == "0"
    for flow, one, other in (("vm", VM, PEER), ("peer", PEER, VM)):
        assert span.frames(one, other, Kind.CLEAR) > 0
        assert span.grown("flows", flow, "answered") > 0
        assert span.grown("flows", flow, "refused", "EPERM") == 0
        assert story.lost("removal", flow) == 0


def test_removed_while_enforced(story: Story) -> None:
    """Without that step: the VM speaks clear, its peer never does, and drops what comes in clear.
    Nobody is answered, and the remover says so, until the peer is optional."""
    phase = story.phases[ENFORCED_REMOVAL]
    cut = story.between(phase["removed"], phase["ended"])

    assert (phase["policies"], phase["guard"], phase["charon_after"]) == (0, "", "0")
    assert "IPsec was enforced: VMs that still enforce it drop all packets" in phase["said"]
    assert f"between these addresses: {VM} {PEER}" in phase["said"]
    assert cut.frames(VM, PEER, Kind.CLEAR) > 0
    assert story.span(ENFORCED_REMOVAL).frames(PEER, VM, Kind.CLEAR) == 0
    assert cut.frames(PEER, VM, Kind.ESP) == 0
    for flow in ("vm", "peer"):
        assert cut.attempts(flow) > 50
        assert cut.grown("flows", flow, "answered") == 0
        assert story.span(PEER_OPTIONAL).grown("flows", flow, "answered") > 0


def test_added_again(story: Story) -> None:
    """After a removal a deployment brings IPsec as at the first time."""
    assert "hook postrouting" in story.phases["enforced"]["guard"]
    assert story.span("enforced").frames(VM, PEER, Kind.ESP) > 0


def test_poweroff_while_a_drain_waits(story: Story) -> None:
    """It gives up, and does not hold the shutdown up: charon tells its peer, then the network goes.

    No hook and no stop of monit is called: a stemcell's monit leaves its jobs to systemd's end.
    """
    assert list(story.phases["drain"]["states"].values()) == ["inactive", "active", "active"]
    judge_poweroff(story, story.phases["poweroff"]["began"])
    assert story.lines[-1]["at"] - story.phases["poweroff"]["began"] < STOP_TIMEOUT / 3


def test_reboot_without_hooks(reboot: Story) -> None:
    """The guard comes from the root disk before the network; monit's start brings the rest."""
    phase, span = reboot.phases["reboot without hooks"], reboot.span("reboot without hooks")
    order = phase["order"]

    judge(span)
    assert all(order.values())
    assert sorted(order, key=order.__getitem__) == list(order)
    assert phase["agent_at_boot"] == "inactive"
    assert span.grown("flows", "vm", "refused", "EPERM") > 0
    assert span.grown("flows", "vm", "answered") > 0


def test_poweroff_without_a_drain(reboot: Story) -> None:
    """The same, where no drain was asked for."""
    judge(reboot.span("poweroff"))
    judge_poweroff(reboot, reboot.phases["poweroff"]["began"])
