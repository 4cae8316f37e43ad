"""The status document and the one line of it."""

import json
import re
from ipaddress import ip_address
from typing import Any

from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, ListedCertificate
from ipsec_agent.core.drain import Drain, Job, Phase
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.health import Memory
from ipsec_agent.core.observed import IkePorts, IkeSa, SecurityAssociation
from ipsec_agent.core.observed_guard import ClearLink, ClearPeer
from ipsec_agent.core.problems.peer_faults import Fault, Hearing, Suspect
from ipsec_agent.core.problems.problem import LogLine
from ipsec_agent.core.status import Snapshot, State, document, sentence
from ipsec_agent.core.status_view import peers
from ipsec_agent.verbs.status_peers import table
from ipsec_agent.verbs.status_text import text
from tests.configs import FACTS, config
from tests.vm import CHARON, NOW, OTHER, OWN, PEER, Vm, healthy_vm, with_sa

VM = healthy_vm()


def snapshot(vm: Vm, memory: Memory | None = None, *, lowered: bool = False) -> Snapshot:
    """What a pass leaves of a VM."""
    assessment = vm.assess(memory, lowered=lowered)
    return Snapshot(
        config=vm.config,
        placement=vm.placement,
        drift=Drift(vm.desired, vm.observed),
        problems=assessment.problems,
        state=State.DEGRADED if assessment.problems else State.RUNNING,
        pid=1,
        version="0",
        passes=1,
        traffic=assessment.peers,
        guard_lowered=lowered,
        clear=assessment.memory.clear,
    )


def shown(vm: Vm, memory: Memory | None = None, *, lowered: bool = False) -> dict[str, Any]:
    """The document, as another program reads it."""
    return dict(json.loads(json.dumps(document(snapshot(vm, memory, lowered=lowered)))))


def states(out: int, back: int, *, used: int = 0) -> tuple[SecurityAssociation, ...]:
    """The kernel's SAs with PEER, of so many packets."""
    return (
        SecurityAssociation(OWN, PEER, 7, 1, 100 * out, out, int(NOW) - 50, used),
        SecurityAssociation(PEER, OWN, 8, 1, 100 * back, back, int(NOW) - 50, used),
    )


def test_keys() -> None:
    """The interface: what other programs may count on, all of it present at any time."""
    keys = {
        "fingerprint",
        "schema", "version", "pid", "time", "age", "passes", "state", "healthy", "problems",
        "address", "addresses", "role", "notes", "charon", "connections", "peers", "policies",
        "guard", "counters", "certificates", "events", "links", "inside",
        "config", "optional", "rotation", "drain", "proof", "outages",
    }  # fmt: skip

    assert set(shown(VM)) == keys
    assert set(shown(VM.but(charon=None, guard=None, policies=()))) == keys
    assert (shown(VM)["schema"], shown(VM)["healthy"]) == (1, True)


def test_drain() -> None:
    """What a drain does is in the document and in the text; a VM that drains may be well."""
    drain = Drain(7, 8, Phase.WAITING, NOW - 10, NOW + 20, (Job("nfs", 12),))
    vm = VM.but(drain=drain)
    draining = replace(snapshot(vm), state=State.DRAINING)
    found = document(draining)
    says = "IPsec is draining: it waits for nfs (pid 12), for 20 seconds at the most"

    assert shown(VM)["drain"] is None
    assert found["drain"] == {
        "phase": "waiting",
        "since": NOW - 10,
        "deadline": NOW + 20,
        "waits": [{"name": "nfs", "pid": 12}],
        "says": says,
    }
    assert (found["state"], found["healthy"]) == ("draining", True)
    assert text(found).splitlines()[:2] == ["ipsec-agent 0: draining, healthy", f"  {says}"]


def test_guard() -> None:
    """The guard's state and whom it counts."""
    vm = VM.table(
        dropped_in=4,
        dropped_out=3,
        clear_in=(ClearPeer(PEER, 4, 400, 99),),
        clear_out=(ClearPeer(OTHER, 3, 300, 99),),
        misplaced=(ClearPeer(OTHER, 5, 500, 99),),
        untranslated=(ClearPeer(OTHER, 2, 200, 99),),
        tunnelled=(ClearPeer(PEER, 1, 100, 99),),
        unguarded=(ClearLink("eth1", 1, 100, 99),),
    )

    assert shown(vm)["guard"] == {
        "mode": "enforce",
        "drops": True,
        "state": "up",
        "dropped_in": 4,
        "dropped_out": 3,
        "clear_in": [{"address": "10.0.0.9", "packets": 4, "bytes": 400, "idle": 99}],
        "clear_out": [{"address": "10.0.0.66", "packets": 3, "bytes": 300, "idle": 99}],
        "wrong_source": [{"address": "10.0.0.66", "packets": 5, "bytes": 500, "idle": 99}],
        "nat_bypassed": [{"address": "10.0.0.66", "packets": 2, "bytes": 200, "idle": 99}],
        "wrong_mode": [{"address": "10.0.0.9", "packets": 1, "bytes": 100, "idle": 99}],
        "unguarded": [{"link": "eth1", "packets": 1, "bytes": 100, "idle": 99}],
    }
    assert shown(VM.but(guard=None))["guard"]["state"] == "missing"
    assert shown(VM, lowered=True)["guard"]["state"] == "lowered"


def test_counters() -> None:
    """The kernel's counters that are not 0, by its names."""
    vm = VM.but(counters=(("XfrmInError", 0), ("XfrmInNoStates", 5)))

    assert shown(vm)["counters"] == {"XfrmInNoStates": 5}


def test_peer() -> None:
    """A peer: charon's SA and counts, the kernel's idle times."""
    vm = with_sa(VM).but(states=states(20, 30, used=int(NOW) - 40))

    assert shown(vm)["peers"] == [
        {
            "address": "10.0.0.9",
            "state": "installed",
            "ike_algorithms": "",
            "esp_algorithms": "",
            "age": 20,
            "ike_sas": 1,
            "child_sas": 1,
            "duplicates": 0,
            "bytes_in": 3000,
            "bytes_out": 2000,
            "packets_in": 30,
            "packets_out": 20,
            "idle_in": 40,
            "idle_out": 40,
            "one_way": "",
            "problem": "",
            "problem_age": None,
            "post_quantum": None,
            "own_identity": "",
            "handshake": 20,
            "rekey_in": None,
            "ike_rekey_in": None,
            "spi_in": "00000008",
            "spi_out": "00000007",
            "encapsulated": False,
            "sequence_in": 0,
            "sequence_out": 0,
            "extended": False,
            "identity": "",
            "certificate": "",
            "certificate_ends": None,
            "certificate_state": "unknown",
            "ends_in": None,
            "proof": None,
        }
    ]


def test_what_was_negotiated() -> None:
    """Of the newest IKE_SA and of the newest ESP SA; where only the kernel has SAs, it is empty."""
    vm = with_sa(with_sa(VM))
    assert vm.observed.charon is not None
    old, new = vm.observed.charon.sas
    child = replace(new.children[0], unique_id=9, algorithms="AES_GCM_16-256")
    new = replace(new, unique_id=7, algorithms="A/P/ECP_384/ML_KEM_768", children=(child,))
    vm = vm.but(charon=replace(vm.observed.charon, sas=(new, replace(old, algorithms="B"))))

    (peer,) = shown(vm)["peers"]
    assert peer["ike_algorithms"] == "A/P/ECP_384/ML_KEM_768"
    assert peer["esp_algorithms"] == "AES_GCM_16-256"
    (orphan,) = shown(VM.but(states=states(20, 30, used=int(NOW) - 40)))["peers"]
    assert orphan["ike_algorithms"] == orphan["esp_algorithms"] == ""


def test_certificates_of_peers() -> None:
    """Beside the config's own, with a role of their own."""
    vm = with_sa(VM)
    assert vm.observed.charon is not None
    sas = tuple(replace(sa, remote_id="CN=peer") for sa in vm.observed.charon.sas)
    facts = replace(FACTS, subject="CN=peer", serial="77", role="peer")
    charon = replace(
        vm.observed.charon, sas=sas, certificates=(ListedCertificate(("peer",), facts),)
    )

    found = [(one["role"], one["subject"]) for one in shown(vm.but(charon=charon))["certificates"]]
    assert found == [("instance", "CN=vm"), ("peer", "CN=peer")]


def test_peers_without_an_sa() -> None:
    """One that refuses, or does not answer, or is gone, is in the list as well, and the text says
    that there is no SA with it; one whose only fault may be that it starts is not."""

    def suspect(number: int, code: str, text: str = "it failed", bye: float = 0) -> Suspect:
        said = LogLine(code, text, str(PEER + number), "look", NOW)
        return Suspect(said.peer, (Fault(said, NOW),), Hearing(farewell=bye))

    suspects = (
        suspect(1, "peer-refuses-us"),
        suspect(2, "peer-silent"),
        suspect(3, "peer-silent", bye=NOW),
        suspect(4, "proposals-differ", "received NO_PROPOSAL_CHOSEN notify error"),
    )
    vm = with_sa(VM)
    assert vm.observed.charon is not None
    ike = IkeSa(2, "x", "ESTABLISHED", OWN, PEER + 1, True, 5)
    charon = replace(vm.observed.charon, sas=(*vm.observed.charon.sas, ike))
    for found, state in ((vm, "refused"), (vm.but(charon=charon), "established")):
        status = document(replace(snapshot(found), suspects=suspects))
        assert [(p["address"], p["state"], p["problem"]) for p in status["peers"]] == [
            ("10.0.0.9", "installed", ""),
            ("10.0.0.10", state, "peer-refuses-us"),
            ("10.0.0.11", "silent", "peer-silent"),
            ("10.0.0.12", "gone", "peer-gone"),
        ]
        assert len({frozenset(peer) for peer in status["peers"]}) == 1
        says = "IKE only (established), no SA" if state == "established" else "no SA"
        lines = table(peers(status)).splitlines()
        rows = [re.sub(" +", " ", line) for line in lines]
        assert f"10.0.0.10 refused - - - - - - {says}, peer-refuses-us" in rows
        assert "10.0.0.11 silent - - - - - - no SA, peer-silent" in rows
        assert "1 by ESP, 2 not: 10.0.0.10 is refused, 10.0.0.11 is silent\n" in text(status)


def test_ports() -> None:
    """Where charon listens: on which addresses, in both families."""
    everywhere = ((4, 500, ip_address("0.0.0.0")), (6, 4500, ip_address("::")))
    ports = IkePorts(addresses=(*everywhere, (4, 4500, ip_address("10.0.0.5"))))

    assert shown(VM)["charon"]["ports"] == []
    found = shown(VM.but(ike_ports=ports))
    assert found["charon"]["ports"] == [
        {"version": 4, "port": 500, "address": "0.0.0.0"},
        {"version": 6, "port": 4500, "address": "::"},
        {"version": 4, "port": 4500, "address": "10.0.0.5"},
    ]
    says = "IPv4 0.0.0.0 UDP 500, IPv6 :: UDP 4500, IPv4 10.0.0.5 UDP 4500"
    assert f", listens on {says}\n" in text(found)


def test_hints_of_another_agent() -> None:
    """Their commands are about the config and the socket of the agent, for programs, too."""
    found = document(snapshot(VM, lowered=True), 0.0, "/a.yml", "/s")

    assert "`ipsec-agent guard up`" in shown(VM, lowered=True)["problems"][0]["hint"]
    hint = found["problems"][0]["hint"]
    assert "`ipsec-agent guard up --config /a.yml --socket /s`" in hint


def test_peer_twice() -> None:
    """Two CHILD_SAs with a peer, as when both began at once, are one peer with a duplicate."""
    (peer,) = shown(with_sa(with_sa(VM), age=30))["peers"]

    assert (peer["ike_sas"], peer["child_sas"], peer["duplicates"], peer["age"]) == (2, 2, 1, 30)
    assert peer["packets_in"] == 60


def test_peer_in_the_making() -> None:
    """A peer without a CHILD_SA has the IKE_SA's state, and nothing known of its traffic."""
    ike = IkeSa(1, "x", "CONNECTING", OWN, PEER, True, 0)

    (peer,) = shown(VM.but(charon=replace(CHARON, sas=(ike,))))["peers"]

    assert (peer["state"], peer["child_sas"], peer["idle_in"]) == ("connecting", 0, None)


def test_peers_of_the_kernel_alone() -> None:
    """Peers whose traffic runs on SAs that charon does not list are shown as what they are."""
    vm = VM.but(states=states(2, 3))

    (orphan,) = shown(vm)["peers"]
    (unknown,) = shown(vm.but(charon=None))["peers"]

    assert orphan["state"] == "orphan"
    assert unknown["state"] == "unknown"
    assert (orphan["age"], orphan["ike_sas"], orphan["child_sas"]) == (50, 0, 1)
    assert (orphan["packets_in"], orphan["bytes_out"]) == (3, 200)


def test_one_way() -> None:
    """A peer that packets only go to is marked."""
    memory = VM.but(states=states(1, 0), time=NOW - 30).assess().memory
    memory = VM.but(states=states(2, 0), time=NOW - 10).assess(memory).memory

    (peer,) = shown(VM.but(states=states(3, 0)), memory)["peers"]

    assert peer["one_way"] == "out"
    assert (peer["idle_in"], peer["idle_out"]) == (None, 0)


def test_order_of_peers() -> None:
    """Peers are in the order of their numbers, not of their letters."""
    vm = with_sa(with_sa(with_sa(VM, "10.0.0.100"), "10.0.0.9"), "10.0.0.20")

    assert [peer["address"] for peer in shown(vm)["peers"]] == [
        "10.0.0.9",
        "10.0.0.20",
        "10.0.0.100",
    ]


def test_links() -> None:
    """The guarded ones, with the largest packet that fits; none is needed where all is clear."""
    clear = healthy_vm(config(no_ipsec=("10.0.0.5/32",)))

    assert shown(VM)["links"] == [
        {"name": name, "mtu": 1500, "up": True, "max_packet": 1466, "reason": reason}
        for name, reason in (
            ("eth0", "it has this VM's address 10.0.0.5"),
            ("eth1", "it is a network card that may lead out of this VM"),
        )
    ]
    assert shown(clear)["links"][0]["max_packet"] is None


def test_why_a_link_is_guarded() -> None:
    """What the operator said comes first; then addresses, routes and the link's kind."""
    named = healthy_vm(config(agent=AgentConfig(uplinks=("eth1",))))
    assert shown(named)["links"][1]["reason"] == "agent.uplinks names it"
    routed = VM.but(network=replace(VM.observed.network, default_links=(4,)))
    assert shown(routed)["links"][1]["reason"] == "a default route uses it"
    lost = replace(VM, placement=replace(VM.placement, present=False))
    assert {link["reason"] for link in shown(lost)["links"]} == {"this VM's address is not known"}


def test_a_link_that_is_not_there() -> None:
    """A name in the config that no link has is noted, as a mistyped one would change nothing."""
    named = healthy_vm(config(agent=AgentConfig(uplinks=("eth1", "eth9"), inside=("br7",))))

    assert shown(named)["notes"] == [
        "agent.uplinks names eth9, and this VM has no such link",
        "agent.inside names br7, and this VM has no such link",
    ]


def test_inside() -> None:
    """The others, each with the reason; none while it is unclear where the VM stands."""
    assert shown(VM)["inside"] == [
        {"name": "docker0", "reason": "all ports of this bridge are inside"},
        {
            "name": "veth1",
            "reason": "its other end is in a container that has no other way out",
        },
    ]
    assert shown(replace(VM, placement=replace(VM.placement, present=False)))["inside"] == []


def test_an_empty_bridge_is_guarded() -> None:
    """It is not among those that the kernel exempts, and so among the guarded ones."""
    links = tuple(one for one in VM.observed.network.links if not one.master)
    vm = healthy_vm(network=replace(VM.observed.network, links=links))
    assert vm.observed.guard is not None
    exempt = {link.name for link in vm.observed.guard.exempt}

    assert {one["name"] for one in shown(vm)["inside"]} == exempt
    told = {one["name"]: one["reason"] for one in shown(vm)["links"]}
    assert told["docker0"] == "this bridge has no port yet"
    assert told.keys() == {link.name for link in links if not link.loopback} - exempt


def test_sentence() -> None:
    """One line: what is, or the worst that is wrong."""
    bad = snapshot(VM.but(charon=None, policies=()).table(clear_in=(ClearPeer(PEER, 1, 1, 0),)))

    assert sentence(snapshot(with_sa(VM).but(states=states(1, 1)))) == (
        "running, healthy: 5 of 5 policies, guard up, SAs with 1 peer"
    )
    assert sentence(bad) == (
        "degraded: charon-down: charon is not running; no new SA can be negotiated (and 2 more)"
    )
    assert sentence(replace(bad, problems=bad.problems[::-1])).startswith("degraded: policies-miss")
    assert sentence(replace(bad, problems=(), state=State.STARTING)) == "starting: 0 of 5 policies"
