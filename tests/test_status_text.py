"""The status for a person."""

import json

from msgspec.structs import replace

from ipsec_agent.core.observed_guard import ClearPeer
from ipsec_agent.core.status import document
from ipsec_agent.verbs.status import MOST_COUNTED, text
from tests.core.test_status import snapshot, states
from tests.vm import NOW, PEER, Vm, healthy_vm, with_sa

VM = healthy_vm()


def lines(vm: Vm) -> list[str]:
    """What a person reads."""
    return text(json.loads(json.dumps(document(snapshot(vm))))).splitlines()


def test_healthy() -> None:
    """The first line says it; guard, peers and links have theirs."""
    shown = lines(with_sa(VM).but(states=states(20, 30, used=int(NOW) - 40)))

    assert shown[0] == "ipsec-agent 0: running, healthy"
    assert "guard      up, dropped 0 in, 0 out" in shown
    assert (
        "  10.0.0.9                 installed    age 20 s, in 30 packets (40 s ago),"
        " out 20 packets (40 s ago)"
    ) in shown
    assert (
        "  eth0         MTU 1500, packets of 1466 bytes fit;"
        " guarded: it has this VM's address 10.0.0.5"
    ) in shown


def test_key_exchanges() -> None:
    """They are named where there is more than one."""
    vm = with_sa(VM)
    assert vm.observed.charon is not None

    def shown(algorithms: str) -> str:
        assert vm.observed.charon is not None
        sas = tuple(replace(sa, algorithms=algorithms) for sa in vm.observed.charon.sas)
        found = lines(vm.but(charon=replace(vm.observed.charon, sas=sas)))
        return next(line for line in found if "10.0.0.9 " in line)

    usual = shown("AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048")
    assert "MODP" not in usual
    assert ", ECP_384 + ML_KEM_768" in shown("AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384/ML_KEM_768")


def test_the_age_of_the_last_look() -> None:
    """Where it is not of now, the first line says so, and no age is too short for that."""
    now = snapshot(with_sa(VM))

    for age, says in ((0.02, "1 s"), (4.3, "4 s"), (300, "5 min")):
        first = text(document(now, age)).splitlines()[0]
        assert first == f"ipsec-agent 0: running, healthy, as of {says} ago"


def test_problem() -> None:
    """A problem says how long it stands and what to do."""
    memory = VM.but(charon=None, time=NOW - 300).assess().memory
    problems = VM.but(charon=None).assess(memory).problems
    shown = text(document(replace(snapshot(VM.but(charon=None)), problems=problems)))

    assert "  CRITICAL charon-down: charon is not running; no new SA can be negotiated\n" in shown
    assert "    for 5 min. the agent restarts it" in shown


def test_guard_is_loud() -> None:
    """A guard that does not stand is in capitals; who sends clear is named, the latest first."""
    peers = tuple(ClearPeer(PEER + n, 5, 500, 200 - n) for n in range(MOST_COUNTED + 2))

    assert any(
        line.startswith("guard      DOWN: no table is loaded") for line in lines(VM.but(guard=None))
    )
    shown = lines(VM.table(clear_in=peers))
    first = shown.index("guard      up, dropped 0 in, 0 out") + 1
    assert shown[first] == ("  clear packets from 10.0.0.20: 5 packets, last 3 min ago")
    assert shown[first + MOST_COUNTED] == "  … and 2 more; see --json"


def test_counters() -> None:
    """What the kernel counted is listed by its names, if there is any."""
    shown = lines(VM.but(counters=(("XfrmInNoStates", 5), ("XfrmInError", 0))))

    assert shown[-2:] == [
        "packets dropped by IPsec (kernel counters)",
        "  XfrmInNoStates           5",
    ]


def test_older_agent() -> None:
    """A status without what this version added is shown all the same."""
    status = document(snapshot(with_sa(VM)))
    for key in ("guard", "counters"):
        del status[key]
    for key in ("idle_in", "idle_out", "one_way"):
        del status["peers"][0][key]

    assert "10.0.0.9" in text(status)
