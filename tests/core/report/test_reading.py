"""What is read of files, and what is said of those that cannot be."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsec_agent.core.report import reading
from ipsec_agent.core.report.examined import document, examined
from ipsec_agent.core.report.page import page
from ipsec_agent.core.report.reading import KEYS, LARGEST, TOO_MANY, Read, read
from ipsec_agent.core.report.said import MOST
from ipsec_agent.core.report.text import text
from tests.examples import examples
from tests.fleet_documents import status

GOOD = status("10.0.0.1", ("10.0.0.2",), clear=("10.0.0.3",))


def raw(found: Any) -> bytes:
    """As a file has it."""
    return json.dumps(found).encode()


def flaws(content: bytes, file: str = "a.json") -> list[str]:
    """What is wrong with a file."""
    return [str(one) for one in read(file, content).flaws]


def test_what_a_real_status_says() -> None:
    """Each key that is read is one of the real document; nothing of it is missing."""
    (vm,) = read("a.json", raw(GOOD)).vms

    assert (vm.name, vm.missing, vm.said.version) == ("10.0.0.1", (), "0.2.0")
    assert set(vm.said.__struct_fields__) <= set(GOOD)
    assert set(vm.said.peers[0].__struct_fields__) <= set(GOOD["peers"][0])
    assert set(vm.said.guard.__struct_fields__) <= set(GOOD["guard"])
    assert vm.said.optional
    assert set(vm.said.optional.__struct_fields__) == set(GOOD["optional"])
    talk = vm.said.optional.would_cut_off[0]
    assert set(talk.__struct_fields__) <= set(GOOD["optional"]["would_cut_off"][0])
    assert vm.said.fingerprint
    assert set(vm.said.fingerprint.__struct_fields__) == set(GOOD["fingerprint"])
    assert set(vm.said.certificates[0].__struct_fields__) <= set(GOOD["certificates"][0])
    assert set(vm.said.rotation.__struct_fields__) <= set(GOOD["rotation"])


def test_forms_of_a_file() -> None:
    """One document, written in one line or in many, or one document a line."""
    other = status("10.0.0.2")
    wide = json.dumps(GOOD, indent=2).encode()
    lines = b"\xef\xbb\xbf\n" + raw(GOOD) + b"\r\n\n" + raw(other)

    assert [vm.name for vm in read("a", wide).vms] == ["10.0.0.1"]
    assert [str(vm.source) for vm in read("a", wide).vms] == ["a"]
    found = read("a", lines)
    assert [(vm.name, str(vm.source)) for vm in found.vms] == [
        ("10.0.0.1", "a, line 2"),
        ("10.0.0.2", "a, line 4"),
    ]
    assert found.flaws == ()


def test_one_bad_line() -> None:
    """The others are read; it is named by file, line and key, or column."""
    bad = status("10.0.0.3")
    bad["peers"] = [{"address": "10.0.0.1"}, {"address": "10.0.0.2", "age": "old"}]
    found = read(
        "a", b"\n".join((raw(GOOD), raw(bad), b'{"schema": 1, }', raw(status("10.0.0.4"))))
    )

    assert [vm.name for vm in found.vms] == ["10.0.0.1", "10.0.0.4"]
    assert [str(one) for one in found.flaws] == [
        "a, line 2: peers[1].age: expected int, got str",
        "a, line 3, column 15: is not JSON of `ipsec-agent status --json`: trailing comma in"
        " object",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b" \n\t", "a.json: is empty; did `ipsec-agent status --json` run on that VM?"),
        (b"[]", "a.json: is not a status: expected object, got array"),
        (b'{"schema": 1}', "a.json: is not a status: object missing required field state"),
        (b'{"schema": 0, "state": "running"}', "a.json: schema: expected int >= 1"),
        (b'{\n"schema": x}', "a.json, line 2, column 11: is not JSON of"),
        (
            b'{"schema": 1, "state": "runn',
            "a.json: is not JSON of `ipsec-agent status --json`: input",
        ),
        (b'{"schema": 1, "state": "\xff"}', "a.json: is not UTF-8 text"),
        (b"\x00\x01", "a.json, line 1, column 1: is not JSON of"),
        (b"[" * 100_000, "a.json: is not a status: expected object, got array"),
        (b'{"x":' + b"[" * 100_000, "a.json: is nested too deeply for a status"),
    ],
)
def test_bad_files(content: bytes, says: str) -> None:
    """What is wrong, and where."""
    (found,) = flaws(content)

    assert found.startswith(says)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("address", "10.0.0.256", "address: expected an address"),
        ("address", 167772161, "address: expected an address"),
        ("address", "fe80::1%<b>", "address: expected an address without a zone"),
        ("addresses", ["10.0.0.1", ""], "addresses[1]: expected an address"),
        ("time", -1, "time: expected float >= 0.0"),
        ("time", 1e300, "time: expected float <= 137438953472.0"),
        ("healthy", "yes", "healthy: expected bool, got str"),
        ("peers", [{"address": "10.0.0.2", "age": 2**70}], "peers[0].age: "),
        ("certificates", [{"subject": "CN=a", "not_after": "soon"}], "certificates[0].not_after: "),
        ("certificates", [{"subject": "CN=a", "not_after": "2026-01-01T00:00:00"}], "certificates"),
        ("fingerprint", {}, "fingerprint: object missing required field config"),
    ],
)
def test_bad_values(key: str, value: Any, says: str) -> None:
    """A value that no agent writes is named by its key."""
    (found,) = flaws(raw({**GOOD, key: value}))

    assert found.startswith(f"a.json: {says}")


def test_addresses_have_one_spelling() -> None:
    """However a file writes an address of IPv6."""
    found = read("a", raw({**GOOD, "address": "FD00:0::00:1", "addresses": ["fd00::1"]}))

    assert found.vms[0].addresses == ("fd00::1",)


def test_older_and_missing() -> None:
    """Keys that an older agent does not have are told; a VM without an agent has none of them."""
    old = {key: value for key, value in GOOD.items() if key not in {"fingerprint", "optional"}}
    stopped = {"schema": 1, "state": "stopped", "healthy": False, "problems": []}

    assert read("a", raw(old)).vms[0].missing == ("optional", "fingerprint")
    assert read("a", raw(stopped)).vms[0].missing == ()
    assert read("a", raw({"schema": 1, "state": "running"})).vms[0].missing == KEYS


def test_name_of_a_vm() -> None:
    """Its address; where it tells none, that of the file's name, or the file."""
    stopped = raw({"schema": 1, "state": "stopped"})
    names = {
        "in/10.0.0.9.json": "10.0.0.9",
        "in/10.0.0.9": "10.0.0.9",
        "fd00::9.json": "fd00::9",
        "web-3.json": "web-3.json",
    }

    for file, name in names.items():
        assert read(file, stopped).vms[0].name == name
        assert read(file, raw(GOOD)).vms[0].name == "10.0.0.1"


odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["10.0.0.1", "10.0.0.9", "0001-01-01T00:00:00+14:00", "out", "installed"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=examples(60))
@given(st.sampled_from(sorted(GOOD)), st.lists(st.integers(0, 12), max_size=4), odd)
def test_whatever_a_file_says(key: str, way: list[int], value: Any) -> None:
    """It is read or it is a flaw; then the report, in each form, is made of it."""
    changed = json.loads(json.dumps(GOOD))
    place: Any = changed
    at: Any = key
    for step in way:
        inner = place[at]
        if isinstance(inner, dict) and inner:
            place, at = inner, sorted(inner)[step % len(inner)]
        elif isinstance(inner, list) and inner:
            place, at = inner, step % len(inner)
        else:
            break
    place[at] = value
    found = read("a", raw(changed))
    beside = read("b", raw(status("10.0.0.2", ("10.0.0.1",))))

    assert len(found.vms) + len(found.flaws) == 1
    report = examined(Read(found.vms + beside.vms, found.flaws))
    assert json.loads(json.dumps(document(report)))
    assert text(report)
    assert page(report)


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_the_first_and_the_last_day(end: str) -> None:
    """A certificate may say so."""
    found = {**GOOD, "certificates": [{"subject": "CN=a", "not_after": end}]}

    assert "CN=a" in text(examined(read("a", raw(found))))


def with_many(path: tuple[str, ...], count: int) -> bytes:
    """A document with so many entries of a list."""
    entry: Any = {
        "certificates": {"subject": "x", "not_after": "2027-01-01T00:00:00Z"},
        "problems": {"code": "x"},
        "addresses": "10.0.0.1",
        "unseen": "10.0.0.1",
        "authorities": "x",
    }.get(path[-1], {"address": "10.0.0.1"})
    found = status("10.0.0.1", clear=("10.0.0.2",))
    within = found
    for key in path[:-1]:
        within = within[key]
    within[path[-1]] = [entry] * count
    return raw(found)


@pytest.mark.parametrize("path", MOST, ids=".".join)
def test_too_many_entries(path: tuple[str, ...]) -> None:
    """The limit is named, with the file and the list; just so many are read."""
    most = MOST[path]

    assert flaws(with_many(path, most)) == []
    (flaw,) = flaws(with_many(path, most + 1))
    assert flaw == (
        f"a.json: {'.'.join(path)}: has more than {most:,} entries, the most that are read"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"schema": 1, "state": "' + b"x" * LARGEST + b'"}', "is larger than 8 MiB"),
        (raw({"schema": 1, "state": "x" * ((1 << 16) + 1)}), "state: expected str of length"),
        (
            b'{"schema": 1, "state": "x", "peers": ['
            + b"0," * 50_000
            + b'0], "peers": [], "state": "running"}',
            "has a key twice",
        ),
        (
            b'{"schema": 1, "state": "x", "guard": {"clear_in": ['
            + b"0," * 50_000
            + b'0], "clear_in": []}}',
            "has a key twice",
        ),
        (raw({"schema": 1, "state": "x"} | {f"k{n}": 0 for n in range(1000)}), "1,000 keys"),
        (b'{"schema": 1, "x": ' + b"[" * 10**6 + b"]" * 10**6 + b"}", "nested too deeply"),
    ],
    ids=["bytes", "letters", "a key twice", "a key twice within", "keys", "nesting"],
)
def test_too_large(content: bytes, says: str) -> None:
    """Each bound is told, and nothing is made of what is beyond it."""
    (flaw,) = flaws(content)

    assert flaw.startswith("a.json: ")
    assert says in flaw
    assert len(flaw) < 300


def test_too_many_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before is read, and what follows is told to be left out."""
    line = raw(status("10.0.0.1", up=("10.0.0.2", "10.0.0.3")))
    monkeypatch.setattr(reading, "MOST_DOCUMENTS", 3)

    found = read("a.json", b"\n".join([line] * 9))

    assert len(found.vms) == 3
    assert [str(one) for one in found.flaws] == [f"a.json, line 4: {TOO_MANY}"]

    monkeypatch.setattr(reading, "MOST_DOCUMENTS", 100)
    monkeypatch.setattr(reading, "MOST_TOGETHER", found.vms[0].said.entries)
    assert len(read("a.json", b"\n".join([line] * 9)).vms) == 2
