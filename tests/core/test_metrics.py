"""The metrics: what they say of a status, and that they are valid in both formats."""

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.metrics import (
    GUARD_LISTS,
    GUARD_STATES,
    PEER_STATES,
    PREFIX,
    STATES,
    Kind,
    families,
)
from ipsec_agent.core.observed_guard import ClearPeer
from ipsec_agent.core.problems.charon import SILENT
from ipsec_agent.core.problems.guard import GuardState
from ipsec_agent.core.problems.peer_faults import Fault, Hearing, Suspect
from ipsec_agent.core.problems.problem import LogLine
from ipsec_agent.core.status import State, document, guard_counters
from ipsec_agent.core.status_peers import peer_entries
from ipsec_agent.host.openmetrics import render
from tests.core.test_optional import loose_vm, with_clear
from tests.core.test_status import snapshot
from tests.examples import examples
from tests.exposition import from_older, from_openmetrics
from tests.vm import NOW, OTHER, PEER, Vm, healthy_vm, with_sa

VM = healthy_vm()
STOPPED = {"state": "stopped", "healthy": False, "problems": []}


def status(vm: Vm) -> dict[str, Any]:
    """The document, as it is sent."""
    return dict(json.loads(json.dumps(document(snapshot(vm)))))


def samples(shown: dict[str, Any], *, peers: bool = False) -> dict[tuple[str, ...], float]:
    """Every sample of the text, read back by the library, by name and values of its labels."""
    text, content_type = render(families(shown, peers=peers), openmetrics=True)
    assert content_type.startswith("application/openmetrics-text")
    return read(from_openmetrics(text))


def read(found: Iterable[Any]) -> dict[tuple[str, ...], float]:
    """Samples by name and values of their labels; none is there twice."""
    listed = [
        ((sample.name.removeprefix(PREFIX), *sample.labels.values()), sample.value)
        for family in found
        for sample in family.samples
    ]
    assert len(dict(listed)) == len(listed)
    return dict(listed)


def test_healthy() -> None:
    """A healthy VM with one peer: the numbers of the status."""
    found = samples(status(with_sa(VM)))

    assert found["up",] == found["healthy",] == found["charon_up",] == found["encrypts",] == 1
    assert [found["state", one] for one in STATES] == [0, 1, 0, 0, 0]
    assert found["peers", "installed"] == 1
    assert found["peers", "silent"] == 0
    assert (found["sa_bytes", "in"], found["sa_packets", "out"]) == (3000, 20)
    assert found["policies_desired",] > 0
    assert found["policies_missing",] == found["policies_foreign",] == 0
    assert found["guard_state", "up"] == 1
    assert sum(found["problems", one] for one in ("info", "warning", "error", "critical")) == 0
    assert found["build_info", "0"] == found["charon_info", "5.9.8"] == 1
    assert found["looks_total",] == 1


def test_problems() -> None:
    """Each code is counted, by its severity; what is missing is counted, too."""
    found = samples(status(VM.but(charon=None, policies=())))

    assert found["problem", "charon-down", "critical"] == 1
    assert found["problems", "critical"] >= 2
    assert found["charon_up",] == found["healthy",] == 0
    assert ("charon_responsive",) not in found
    assert found["policies_missing",] == found["policies_desired",]
    assert found["connections_not_enforced", "encrypt"] == found["connections", "encrypt"] > 0


def test_guard() -> None:
    """What it counts, and how many addresses are in each of its lists."""
    vm = VM.table(
        dropped_in=4, dropped_out=3, clear_in=(ClearPeer(PEER, 4, 1, 1), ClearPeer(OTHER, 3, 1, 1))
    )
    found = samples(status(vm))

    assert found["guard_clear_packets_total", "in"] == 4
    assert found["guard_clear_packets_total", "out"] == 3
    assert found["guard_listed", "clear_in"] == 2
    assert found["guard_listed", "unguarded"] == 0
    assert found["guard_drops",] == 1


def test_optional() -> None:
    """Whom enforcing would cut off is a number, and 0 while it is enforced."""
    assert samples(status(VM))["optional_would_cut_off_peers",] == 0
    found = samples(status(with_clear(loose_vm())))
    assert (found["optional",], found["optional_would_cut_off_peers",]) == (1, 1)
    assert found["guard_drops",] == 0


def test_counters() -> None:
    """The kernel's counters, by its names."""
    found = samples(status(VM.but(counters=(("XfrmInNoStates", 5), ("XfrmInError", 0)))))

    assert found["xfrm_errors_total", "XfrmInNoStates"] == 5
    assert ("xfrm_errors_total", "XfrmInError") not in found


def test_certificates() -> None:
    """Two of one name are one series, with the first end; so is all that peers have shown."""
    shown = status(VM)
    one = shown["certificates"][0]
    ends = ("2027-03-01T00:00:00+00:00", "2027-02-01T00:00:00+00:00")
    shown["certificates"] = [
        *({**one, "not_after": end} for end in ends),
        *({**one, "role": "peer", "subject": f"CN={end}", "not_after": end} for end in ends),
    ]
    found = samples(shown)
    name = "certificate_not_after_timestamp_seconds"

    assert found[name, one["role"], one["subject"]] == 1801440000
    assert found[name, "peer", ""] == 1801440000
    assert sum(key[0] == name for key in found) == 2


def test_peers_only_on_demand() -> None:
    """Without, 1,000 peers make no series more than one does; with, each has its own."""
    one, many = with_sa(VM), VM
    for last in range(1, 100):
        many = with_sa(many, f"10.0.7.{last}")

    assert samples(status(many)).keys() == samples(status(one)).keys()
    assert samples(status(many))["peers", "installed"] == 99
    found = samples(status(many), peers=True)
    assert found["peer_state", "10.0.7.5", "installed"] == 1
    assert found["peer_sa_bytes", "in", "10.0.7.5"] == 3000
    assert found["peer_sa_age_seconds", "10.0.7.99"] == 20
    assert ("peer_idle_seconds", "in", "10.0.7.99") not in found


def test_a_state_of_charon() -> None:
    """An IKE_SA's own state is a series where a peer has it."""
    found = samples(status(with_sa(VM, state="REKEYED")))

    assert found["peers", "established"] == 1


@pytest.mark.parametrize("shown", [STOPPED, {**STOPPED, "state": "starting"}])
def test_before_a_look(shown: dict[str, Any]) -> None:
    """Without an agent, and before it has looked, there is little; nothing is called healthy."""
    found = samples(shown, peers=True)

    assert found["up",] == (shown["state"] == "starting")
    assert found["healthy",] == 0
    assert found["state", shown["state"]] == 1
    assert ("charon_up",) not in found


def test_the_older_format() -> None:
    """node_exporter knows neither OpenMetrics' kinds nor its end; names and values are the same."""
    found = families(status(with_sa(VM)), peers=True)
    text, content_type = render(found, openmetrics=False)

    assert content_type.startswith("text/plain; version=0.0.4")
    kinds = set(re.findall(r"^# TYPE \S+ (\S+)$", text, re.MULTILINE))
    assert kinds == {"gauge", "counter"}
    assert read(from_older(text)) == samples(status(with_sa(VM)), peers=True)


def test_process() -> None:
    """What the agent itself uses is there, under a name that nobody else has."""
    text, _ = render((), openmetrics=True, process=True)

    found = read(from_openmetrics(text))
    assert found["process_cpu_seconds_total",] >= 0
    assert found["process_resident_memory_bytes",] > 1 << 20


@settings(max_examples=examples(40))
@given(name=st.text(max_size=20), version=st.text(max_size=20))
def test_any_text(name: str, version: str) -> None:
    """Whatever a certificate or charon is called, the text is valid and says just that."""
    shown = status(with_sa(VM))
    shown["charon"]["version"] = version
    shown["certificates"] = [{**shown["certificates"][0], "subject": name, "role": "instance"}]
    found = samples(shown)

    assert found["charon_info", version] == 1
    assert any(key[1:] == ("instance", name) for key in found)


def test_names() -> None:
    """Each name has the prefix, its unit at its end, a help text, and no other family has it."""
    found = families(status(with_sa(with_clear(loose_vm()))), peers=True)

    assert len({family.name for family in found}) == len(found)
    for family in found:
        assert re.fullmatch(r"ipsec_agent_[a-z]+(_[a-z]+)*", family.name)
        assert family.text.endswith(".")
        assert family.name.endswith(family.unit)
        assert not family.name.endswith(("_total", "_info"))
        if family.kind is not Kind.INFO:
            assert family.name.endswith(("_bytes", "_seconds", "_packets")) == bool(family.unit)


def test_words_of_the_status() -> None:
    """Its states and lists are the status'."""
    assert set(STATES) == {*(one.value for one in State), "stopped"}
    assert set(GUARD_STATES) == {one.value for one in GuardState}
    suspects = tuple(
        Suspect(
            f"10.0.9.{last}",
            (Fault(LogLine(code, "", f"10.0.9.{last}", "", NOW), NOW),),
            Hearing(farewell=bye),
        )
        for last, (code, bye) in enumerate(((SILENT, 0), (SILENT, NOW), ("peer-refuses-us", 0)))
    )
    found = peer_entries(VM.desired, VM.observed, (), suspects)
    assert [one["state"] for one in found] == ["silent", "gone", "refused"]
    assert {one["state"] for one in found} < set(PEER_STATES)
    numbers = {"dropped_in", "dropped_out"}
    assert set(GUARD_LISTS) == set(guard_counters(None)) - numbers


def test_nothing_of_one_status_stays() -> None:
    """The same status gives the same text; another one another."""
    shown = status(with_sa(VM))
    first = render(families(shown), openmetrics=True)

    assert render(families(shown), openmetrics=True) == first
    other = document(replace(snapshot(with_sa(VM)), passes=2))
    assert render(families(other), openmetrics=True) != first
