"""The status for a person."""

import json
import re
import sys

import pytest
from msgspec.structs import replace

from ipsec_agent.core.events import Event, EventKind
from ipsec_agent.core.observed_guard import ClearPeer
from ipsec_agent.core.problems.peer_faults import Fault, Suspect
from ipsec_agent.core.problems.problem import LogLine
from ipsec_agent.core.status import document
from ipsec_agent.core.status_view import Condition, peers
from ipsec_agent.core.words import size
from ipsec_agent.verbs.status_arguments import STATES
from ipsec_agent.verbs.status_events import as_json as events_json
from ipsec_agent.verbs.status_events import of_peer
from ipsec_agent.verbs.status_events import text as events_text
from ipsec_agent.verbs.status_peer import text as peer_text
from ipsec_agent.verbs.status_peers import COLUMNS, as_json, chosen, table
from ipsec_agent.verbs.status_text import MOST_COUNTED, text
from ipsec_agent.verbs.terminal import GREEN, PLAIN, RED, Part, Screen, a_screen, fitted, screen
from tests.core.test_status import snapshot, states
from tests.vm import NOW, PEER, Vm, healthy_vm, with_sa

VM = healthy_vm()


def lines(vm: Vm) -> list[str]:
    """What a person reads."""
    return text(json.loads(json.dumps(document(snapshot(vm))))).splitlines()


def row(vm: Vm, address: str = str(PEER)) -> str:
    """A peer's line of the table, with one blank between two columns."""
    (found,) = [
        line
        for line in table(peers(document(snapshot(vm)))).splitlines()
        if line.startswith(f"{address} ")
    ]
    return re.sub(" +", " ", found)


def test_healthy() -> None:
    """The first line says it; peers are folded; guard, charon and links have theirs."""
    vm = with_sa(VM).but(states=states(20, 30, used=int(NOW) - 40))
    shown = lines(vm)

    assert shown[0] == "ipsec-agent 0: running, healthy"
    assert shown[1:4] == [
        "peers      1 by ESP",
        "           1 up, 0 connecting, 0 refused",
        "           2.9 KiB in, 2.0 KiB out by their SAs",
    ]
    assert "charon     5.9.8, pid 4711, up 16 min, 1.0 MiB" in shown
    assert "guard      up, dropped 0 in, 0 out" in shown
    assert row(vm) == "10.0.0.9 up 20 s 2.9 KiB 40 s ago 2.0 KiB 40 s ago -"
    assert (
        "  eth0         MTU 1500, packets of 1466 bytes fit;"
        " guarded: it has this VM's address 10.0.0.5"
    ) in shown


def test_no_peer() -> None:
    """A VM that speaks with nobody yet says so."""
    assert lines(VM)[1] == "peers      none yet: an SA is made with the first packet"
    assert table(()) == "no peer\n"


def test_worst_first() -> None:
    """Problems by severity, whatever their order in the document."""
    status = document(snapshot(VM))
    status["problems"] = [
        {"code": code, "severity": severity, "message": "m", "hint": "h", "since": NOW - 90}
        for code, severity in (("i", "info"), ("c", "critical"), ("w", "warning"), ("e", "error"))
    ]
    found = [line.split(":")[0] for line in text(status).splitlines()[1:9:2]]

    assert found == ["  CRITICAL c", "  ERROR e", "  WARNING w", "  INFO i"]


def test_peers_without_esp() -> None:
    """Who sends clear comes first, and with it, when: unless an SA was made since."""
    vm = with_sa(with_sa(with_sa(VM, "10.0.0.20"), "10.0.0.21"), state="REKEYING")
    clear = (
        ClearPeer(PEER + 1, 5, 500, 12),
        ClearPeer(PEER + 2, 5, 500, 700),
        ClearPeer(PEER + 11, 5, 500, 300),
        ClearPeer(PEER + 12, 5, 500, 3),
    )
    found = text(document(snapshot(vm.table(clear_in=clear))))

    assert (
        "peers      1 by ESP, 3 not: 10.0.0.10 sends clear (12 s ago), 10.0.0.21 sends clear"
        " (3 s ago), 10.0.0.9 is connecting\n"
        "           1 up, 1 connecting, 0 refused, 2 clear\n"
    ) in found
    assert row(vm.table(clear_in=clear), "10.0.0.10").startswith(
        "10.0.0.10 clear - - - - - - sends"
    )
    many = tuple(ClearPeer(PEER + n, 5, 500, 12) for n in range(1, 8))
    assert "10.0.0.12 sends clear (12 s ago) and 5 more\n" in text(
        document(snapshot(vm.table(clear_in=many)))
    )


@pytest.mark.parametrize(
    ("clear", "esp", "refused", "first"),
    [
        (300, None, 20, "refused, NOT BY ESP, sent clear 5 min ago"),
        (90, None, 200, "clear, sends clear (90 s ago)"),
        (40, None, 20, "clear, sends clear (40 s ago)"),
        (300, 20, None, "up, by ESP, sent clear 5 min ago"),
        (90, 200, None, "clear, sends clear (90 s ago)"),
        (40, 20, None, "clear, sends clear (40 s ago)"),
        (5000, 20, None, "up, by ESP"),
    ],
)
def test_the_newest_leads(clear: int, esp: int | None, refused: int | None, first: str) -> None:
    """After a minute, a clear packet says less than ESP or a refusal since, and is only a note."""
    vm = VM.table(clear_in=(ClearPeer(PEER, 1, 100, clear),))
    if esp is not None:
        vm = with_sa(vm, age=3600).but(states=states(2, 3, used=int(NOW) - esp))
    seen = snapshot(vm)
    if refused is not None:
        line = LogLine("peer-not-trusted", "m", str(PEER), "h", NOW - refused)
        seen = replace(seen, suspects=(Suspect(str(PEER), (Fault(line, NOW - 900),)),))
    status = document(seen)
    (one,) = peers(status)
    condition, *_, note = first.split(", ")

    assert peer_text(status, one).splitlines()[0] == f"10.0.0.9  {first}"
    assert one.condition == condition
    assert (note in table([one])) == ("clear" in note)
    assert f"1 {condition}" in text(status)


def test_silence_is_no_sign() -> None:
    """A peer without IPsec answers no IKE; its clear packets still say how it is."""
    vm = VM.table(clear_in=(ClearPeer(PEER, 1, 100, 300),))
    line = LogLine("peer-silent", "m", str(PEER), "h", NOW - 5)
    suspects = (Suspect(str(PEER), (Fault(line, NOW - 900),)),)
    status = document(replace(snapshot(vm), suspects=suspects))

    assert [one.condition for one in peers(status)] == ["clear"]
    assert status["peers"][0]["problem_age"] == 5


def test_in_clear_while_optional() -> None:
    """Also whom only this VM sends clear packets."""
    status = document(snapshot(VM))
    talk = {"address": str(PEER), "since": NOW - 50, "last": NOW - 5, "way": "out"}
    status["optional"] = {
        "counted": True,
        "would_cut_off": [{**talk, "encrypted": 0}],
        "unseen": [],
    }

    assert "0 by ESP, 1 not: 10.0.0.9 is sent clear packets (5 s ago)\n" in text(status)


def test_filter() -> None:
    """Only the peers in a state; the words are those of the options, each with its meaning."""
    vm = with_sa(VM).table(clear_in=(ClearPeer(PEER + 1, 5, 500, 12),))
    status = document(snapshot(vm))

    assert [one.address for one in chosen(status, None)] == ["10.0.0.9", "10.0.0.10"]
    assert [one.address for one in chosen(status, "clear")] == ["10.0.0.10"]
    assert chosen(status, "refused") == ()
    assert list(STATES) == list(Condition)
    found = as_json(status, chosen(status, "up"))
    assert [(one["address"], one["condition"], one["age"]) for one in found["peers"]] == [
        ("10.0.0.9", "up", 20)
    ]
    (clear,) = as_json(status, chosen(status, "clear"))["peers"]
    assert clear == {"address": "10.0.0.10", "condition": "clear"}


def test_folded() -> None:
    """Of many lines the first are shown; a connection that is not in the kernel always is."""
    status = document(snapshot(VM))
    one = {"name": "n", "action": "encrypt", "enforced": True}
    status["connections"] = [*[one] * 12, {**one, "name": "bad", "enforced": False}]
    found = text(status).splitlines()
    first = found.index("connections") + 1

    assert found[first].split() == ["encrypt", "bad", "NOT", "IN", "THE", "KERNEL"]
    assert found[first + 11] == "  … and 2 more; see --json"
    assert found[first + 12] == "certificates"


def test_fits_a_terminal() -> None:
    """Lines are wrapped between words, commands stay whole; rows are cut; a pipe gets all."""
    said = "  WARNING a: one two three `ipsec-agent status --peers` seven eight nine\n"

    assert fitted(said, Screen()) == said
    wrapped = fitted(said, Screen(width=44)).splitlines()
    assert wrapped == [
        "  WARNING a: one two three",
        "    `ipsec-agent status --peers` seven eight",
        "    nine",
    ]


def test_colours() -> None:
    """The verdict, problems and rows have one where there is colour; each part of a line does."""
    on = Screen(width=44, colour=True)

    assert fitted("ipsec-agent 0: running, healthy\n", on).startswith(GREEN)
    assert fitted("ipsec-agent 0: degraded, NOT HEALTHY\n", on).startswith(RED)
    parts = fitted(f"  ERROR code: {'word ' * 20}\n", on).splitlines()
    assert len(parts) > 1
    assert all(part.startswith(RED) and part.endswith(PLAIN) for part in parts)
    assert fitted("10.0.0.9  clear  -\n", on).startswith(RED)
    assert "\x1b" not in fitted("ipsec-agent 0: running, healthy\n", Screen(width=44))


@pytest.mark.parametrize(
    ("environment", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_screen(environment: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour only on a terminal that has it, and where nobody refuses it; a pipe has no width."""
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**environment, "COLUMNS": "77", "LINES": "20"}.items():
        monkeypatch.setenv(name, value)

    assert screen() == Screen()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert screen() == Screen(77, colour)


def test_sizes() -> None:
    """Three digits at the most, and never 1024 of a unit."""
    said = [
        size(number) for number in (0, 999, 1023.4, 1023.6, 1024, 10188, 10189, 1 << 20, 1 << 70)
    ]

    assert said == [
        *("0 B", "999 B", "1023 B", "1.0 KiB", "1.0 KiB", "9.9 KiB", "10 KiB", "1.0 MiB"),
        "1048576 PiB",
    ]


def test_key_exchanges() -> None:
    """They are named where there is more than one."""
    vm = with_sa(VM)

    def shown(algorithms: str) -> str:
        assert vm.observed.charon is not None
        sas = tuple(replace(sa, algorithms=algorithms) for sa in vm.observed.charon.sas)
        return row(vm.but(charon=replace(vm.observed.charon, sas=sas)))

    usual = shown("AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048")
    assert "MODP" not in usual
    assert shown("AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384/ML_KEM_768").endswith(
        " ECP_384 + ML_KEM_768"
    )


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


def test_events() -> None:
    """One line each, in the order of time, with how often; the status says that there are some."""
    events = (
        Event(
            EventKind.REPAIR, "repaired: load the guard", "load the guard", NOW - 4000, NOW - 4000
        ),
        Event(
            EventKind.LOST,
            "no SA any more with 10.0.0.9",
            "10.0.0.9",
            NOW - 60,
            NOW - 600,
            12,
            "10.0.0.9",
        ),
    )
    status = json.loads(json.dumps(document(replace(snapshot(VM), events=events))))

    assert events_text(status).splitlines() == [
        "2027-01-15 06:53:20 UTC  repair          repaired: load the guard",
        "2027-01-15 07:59:00 UTC  peer-lost       no SA any more with 10.0.0.9"
        " (12 times since 2027-01-15 07:50:00 UTC)",
    ]
    says = "events     1 in the last hour; `ipsec-agent status --events` shows what"
    assert text(status).splitlines()[-1] == says
    status["events"].append(status["events"][0] | {"time": NOW, "count": 3})
    assert text(status).splitlines()[-2:] == [
        says.replace(" 1 ", " 2 "),
        "  repaired: load the guard, 3 times since 2027-01-15 06:53:20 UTC: find what undoes it",
    ]
    assert events_json(status)["events"] == status["events"]
    assert [one["kind"] for one in of_peer(status, "10.0.0.9")] == ["peer-lost"]
    assert of_peer(status, "10.0.0.99") == []
    assert events_text(document(snapshot(VM))) == "no event yet\n"
    assert "events" not in text(document(snapshot(VM)))


@pytest.mark.parametrize("width", [*range(40, 130, 11), 200])
@pytest.mark.parametrize("peer", [str(PEER), "2001:db8:1111:2222:3333:4444:5555:6666"])
def test_a_narrow_table(width: int, peer: str) -> None:
    """Nothing is lost without a word: notes go below their line, columns are left out by name."""
    status = document(snapshot(with_sa(VM).but(states=states(20, 30, used=int(NOW) - 40))))
    status["peers"][0] |= {"address": peer, "one_way": "in", "certificate_state": "old"}
    whole = table(peers(status))
    said = fitted(table(peers(status), width), Screen(width))

    words = said.split()
    told = " ".join(said.partition("no room for: ")[2].partition(";")[0].split())
    head = set(re.split("  +", table(peers(status), width).splitlines()[0]))
    assert head | set(told.split(", ")) >= set(COLUMNS[:-1])
    assert not head & set(told.split(", "))
    for note in ("ONE WAY (in only)", "on the old certificate"):
        assert note in " ".join(words)
    assert {peer, "up"} <= set(words)
    assert all(
        len(line) <= max(width, len(peer) + 2) for line in said.splitlines() if "`" not in line
    )
    assert (said == whole) is (width > max(map(len, whole.splitlines())) - 1)


def test_a_low_terminal() -> None:
    """With --watch nothing scrolls away: the beginning stays, or the end of the events."""
    lines = [f"line {number}" for number in range(30)]
    whole = "".join(f"{line}\n" for line in lines)

    first, last = (a_screen(whole, 10, part).splitlines() for part in (Part.FIRST, Part.LAST))

    told = "(22 more lines; without --watch all are shown)"
    assert first == [*lines[:8], told]
    assert last == [told, *lines[-8:]]
    assert a_screen(whole, 10, Part.ALL) == a_screen(whole, 31, Part.FIRST) == whole
    assert a_screen(whole, 30, Part.FIRST) != whole, "the cursor has a line, too"


def test_what_is_left_out_first() -> None:
    """In a stated order; the last packet that came is the last to go."""
    status = document(snapshot(with_sa(VM).but(states=states(20, 30, used=int(NOW) - 40))))
    lines = table(peers(status), 40).splitlines()

    assert lines[0].split("  ")[0] == "PEER"
    assert "LAST IN" in lines[0]
    assert lines[-1].startswith("no room for: REKEY IN, AGE, OUT")
    assert table(peers(status), 0) == table(peers(status))


def test_older_agent() -> None:
    """A status without what this version added is shown all the same."""
    status = document(snapshot(with_sa(VM)))
    for key in ("guard", "counters", "events"):
        del status[key]
    status["charon"]["ports"] = [{"version": 4, "port": 500}]
    for key in ("idle_in", "idle_out", "one_way"):
        del status["peers"][0][key]

    assert "1 by ESP" in text(status)
    assert "listens on IPv4 UDP 500\n" in text(status)
    del status["charon"]["ports"]
    assert "listens" not in text(status)
    assert "10.0.0.9" in table(peers(status))
