"""One VM's life under the real systemd, from power on to power off; the capture judges each part.

The guest lives through all of it once, and writes down what it saw; the tests read that.
"""

import json
from ipaddress import ip_network

import pytest

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_table import ruleset
from ipsec_agent.core.promise import Promise
from tests.boot.apparmor import compile_profiles
from tests.boot.lives import PEERS, SUBNET, config, judge, judge_poweroff, lived
from tests.boot.place import BOOT
from tests.boot.story import CHARON_KILLED, LIMITS, TOLD, Story
from tests.certificates import ec_key, make_ca, make_leaf
from tests.charon.nodes import CHARON, OTHER_CHARON

pytestmark = [pytest.mark.boot, pytest.mark.timeout(650)]

DEADLINE = 560.0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Story:
    """One boot."""
    results = tmp_path_factory.mktemp("boot")
    ca = make_ca()
    leaf = make_leaf(ca, key=ec_key())
    own = {"interval": 3, "charon": {"program": CHARON}}
    for name, agent in (("vm", own), ("peer", PEERS)):
        (results / f"{name}.yml").write_text(config(leaf, ca, agent))
    (results / "guard.nft").write_text(ruleset(Guard(Promise((ip_network(SUBNET),), ()))))
    compile_profiles(results)
    return lived(BOOT, results, DEADLINE, request, "apparmor=1 security=apparmor")


PHASES = (
    "boot", "reload", "refused", "restart", "hung", "draining", "given-up", "drained", "started",
    "charon-killed", "stopped", "upgraded", "poweroff",
)  # fmt: skip
WITH_AGENT_START = ("boot", "hung", "given-up", "started", "upgraded")
WITHOUT_AGENT = ("reload", "refused", "restart", "hung", "draining", "given-up")
"""Phases in which charon and the traffic must not notice anything."""


@pytest.mark.parametrize("name", PHASES)
def test_no_packet_in_clear(story: Story, name: str) -> None:
    """Neither from the VM nor from its peer, whatever happens."""
    tries = [phase for phase in story.phases if phase.startswith(name)]
    assert tries
    for phase in tries:
        judge(story.span(phase))


def test_the_guard_comes_before_the_network(story: Story) -> None:
    """The saved table stands before any link is up, and IPsec before what needs the network."""
    order = story.phases["boot"]["order"]
    span = story.span("boot")

    assert sorted(order, key=order.__getitem__) == list(order)
    assert all(order.values())
    assert span.grown("flows", "vm", "refused", "EPERM") > 0
    assert span.grown("flows", "vm", "answered") > 0


@pytest.mark.parametrize("name", WITHOUT_AGENT)
def test_charon_and_the_traffic_stay(story: Story, name: str) -> None:
    """An agent that is reloaded, restarted, or hung and so killed, costs no packet."""
    phase, span = story.phases[name], story.span(name)

    assert phase["charon_before"] == phase["charon_after"] != "0"
    for flow in ("vm", "peer"):
        assert story.lost(name, flow) == 0
        assert span.grown("flows", flow, "answered") > 0.9 * span.attempts(flow) > 0


@pytest.mark.parametrize("names", [*((name,) for name in WITH_AGENT_START), CHARON_KILLED])
def test_healed_in_time(story: Story, names: tuple[str, ...]) -> None:
    """IPsec works soon after the agent's start, and after what harms it."""
    best = min(story.healed(name) for name in names if name in story.phases)
    assert 0 < best <= LIMITS[names[0]]


def test_reload(story: Story) -> None:
    """A good config is taken; a bad one fails the reload, and the agent goes on."""
    assert story.phases["reload"]["code"] == 0
    assert story.phases["refused"]["code"] != 0
    assert story.phases["refused"]["active"] == "active"


@pytest.mark.parametrize(("name", "restarts"), [("restart", 0), ("hung", 1)])
def test_systemd_brings_the_agent_back(story: Story, name: str, restarts: int) -> None:
    """Where it hangs once the watchdog has had no pass: it is killed then."""
    assert story.phases[name]["restarts"] == restarts
    if name == "hung":
        assert "Watchdog timeout" in story.phases[name]["journal"]


def test_charon_killed(story: Story) -> None:
    """Its unit starts another, and traffic flows again."""
    phase = story.phases["charon-killed"]

    assert "0" != phase["charon_after"] != phase["charon_before"]
    assert story.span("charon-killed").grown("flows", "vm", "answered") > 0


def test_a_drain_in_its_unit(story: Story) -> None:
    """The agent goes at once and IPsec stays; a start of the agent gives the drain up."""
    assert story.phases["draining"]["states"] == ["inactive", "active"]
    assert story.phases["given-up"]["states"] == ["active", "inactive"]
    assert story.phases["given-up"]["result"] == "success"


def test_ipsec_leaves_after_the_last_job(story: Story) -> None:
    """It has had its network until its own end. Then charon's unit ends in order, the peer is told
    at once, and the guard alone holds."""
    phase, span = story.phases["drained"], story.span("drained")
    farewell = phase["farewell"]

    assert farewell["answered"] == farewell["asked"] > 0
    assert farewell["ended"] < phase["charon_ended"]
    assert story.told("drained") <= TOLD
    assert phase["before"] == phase["charon_before"] != "0" == phase["charon_after"]
    assert phase["result"] == ["success", "success"]
    assert phase["policies"] == 0
    assert phase["status"].startswith("ipsec-agent: a drain has ended IPsec, and the guard stays\n")
    assert "hook postrouting" in phase["guard"]
    assert span.grown("flows", "vm", "refused", "EPERM") > 30


def test_the_target_stops_ipsec_and_leaves_the_guard(story: Story) -> None:
    """charon ends cleanly, the peer is told, and the guard alone holds."""
    phase, span = story.phases["stopped"], story.span("stopped")

    assert (phase["state"], phase["result"], phase["agent"]) == ("inactive", "success", "0")
    assert phase["policies"] == 0
    assert "hook postrouting" in phase["guard"]
    assert span.grown("flows", "vm", "refused", "EPERM") > 100


def test_charon_upgraded_under_apparmor(story: Story) -> None:
    """Another build of charon carries the traffic; Debian's profiles hold both."""
    assert story.phases["boot"]["apparmor"] == f"{CHARON} (complain)"
    assert story.phases["upgraded"]["program"] == OTHER_CHARON
    assert story.phases["upgraded"]["apparmor"] == f"{OTHER_CHARON} (enforce)"
    assert story.span("upgraded").grown("flows", "vm", "answered") > 0


def test_poweroff(story: Story) -> None:
    """A job has its network until its own end; IPsec leaves after it, before the network."""
    farewell = json.loads((story.results / "farewell.json").read_text())

    assert farewell["began"] > story.phases["poweroff"]["began"]
    assert farewell["answered"] == farewell["asked"] > 0
    judge_poweroff(story, farewell["ended"])
