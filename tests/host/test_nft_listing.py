"""nft's JSON is read into records, and a form tells a table from an altered one."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.model import LinkId
from ipsec_agent.core.observed_guard import ClearLink, ClearPeer, GuardTable
from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft_listing import read_flowtables, read_form, read_table


def part(kind: str, **value: object) -> dict[str, Any]:
    """One object of a listing."""
    return {kind: {"family": "inet", "table": "ipsec_agent", "handle": 4, **value}}


def element(value: str, packets: int, expires: int) -> dict[str, Any]:
    """One element of a counting set, as nft 1.0.6 writes it."""
    counter = {"packets": packets, "bytes": packets * 100}
    return {"elem": {"val": value, "expires": expires, "counter": counter}}


def counting(name: str, *elements: dict[str, Any]) -> dict[str, Any]:
    """A counting set."""
    return part("set", name=name, timeout=86400, elem=list(elements))


def drop(chain: str, packets: int, handle: int = 9) -> dict[str, Any]:
    """The rule that counts and drops."""
    counter = {"packets": packets, "bytes": 1}
    return part("rule", chain=chain, handle=handle, expr=[{"counter": counter}, {"drop": None}])


def listing(*parts: dict[str, Any]) -> str:
    """What nft writes."""
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *parts]})


OUTSIDE = part(
    "set", name="outside4", elem=["10.0.0.1", {"prefix": {"addr": "11.0.0.0", "len": 8}}]
)
TABLE = (
    part("table", name="ipsec_agent"),
    OUTSIDE,
    part("set", name="exempt", elem=[{"concat": ["veth1", "veth1"]}, {"concat": ["17", "gone"]}]),
    counting("clear_in4", element("10.0.1.7", 5, 86395), element("10.0.1.6", 1, 86400)),
    counting("clear_in6", element("fd00::7", 2, 0)),
    counting("misplaced4", element("192.168.77.1", 4, 86400)),
    counting("unjudged_in", element("veth1", 3, 86390)),
    counting("unjudged_out", element("veth1", 4, 86399), element("99", 1, 86400)),
    part("chain", name="clear_in4"),
    drop("clear_in4", 6),
    drop("clear_in6", 2),
    drop("misplaced4", 4),
    drop("disguised_in", 1),
    drop("disguised_out", 2),
    counting("tunnel4", element("10.0.1.9", 3, 86400)),
    drop("tunnel_in4", 3),
    drop("clear_out4", 7),
)


def test_flowtables() -> None:
    """By family, table and name; one without links carries nothing."""
    shared = {"family": "inet", "table": "fast", "hook": "ingress", "prio": 0}
    text = listing(
        part("flowtable", name="f", dev=["eth0", "veth1"], **shared),
        part("flowtable", name="g", dev="eth0", **shared),
        part("flowtable", name="idle", **shared),
    )

    assert read_flowtables(text) == ("inet fast f", "inet fast g")
    with pytest.raises(KernelError, match="cannot understand"):
        read_flowtables("{}")


def test_read() -> None:
    """Peers by address, links by index or name, totals by direction."""
    table = read_table(listing(*TABLE), {"veth1": 3})

    assert table == GuardTable(
        form=table.form,
        exempt=(LinkId(3, "veth1"), LinkId(17, "gone")),
        dropped_in=12,
        dropped_out=13,
        tunnelled_in=3,
        disguised_in=1,
        disguised_out=2,
        clear_in=(
            ClearPeer(ip_address("10.0.1.6"), 1, 100, 0),
            ClearPeer(ip_address("10.0.1.7"), 5, 500, 5),
            ClearPeer(ip_address("fd00::7"), 2, 200, 86400),
        ),
        misplaced=(ClearPeer(ip_address("192.168.77.1"), 4, 400, 0),),
        tunnelled=(ClearPeer(ip_address("10.0.1.9"), 3, 300, 0),),
        unjudged=(ClearLink("99", 1, 100, 0), ClearLink("veth1", 7, 700, 1)),
    )


def test_an_unknown_link_matches_no_index() -> None:
    """A link that was renamed while the table was listed is no known exemption."""
    assert read_table(listing(*TABLE), {}).exempt == (
        LinkId(0, "veth1"),
        LinkId(17, "gone"),
    )


def test_the_echo_of_a_load_has_the_form_of_the_listing() -> None:
    """There, elements come one by one, and the table that went is named, too."""
    echo = [
        part("table", name="ipsec_agent", handle=1),
        part("table", name="ipsec_agent", handle=2),
        part("chain", name="clear_in4", handle=7),
        part("set", name="outside4", handle=8),
        part(
            "element", name="outside4", elem={"set": [{"prefix": {"addr": "11.0.0.0", "len": 8}}]}
        ),
        part("element", name="outside4", elem={"set": ["10.0.0.1"]}),
        part("set", name="exempt"),
        part("element", name="exempt", elem={"set": ["17"]}),
        part("rule", chain="clear_in4", expr=[{"counter": {"packets": 0}}, {"drop": None}]),
    ]
    listed = listing(
        part("table", name="ipsec_agent"),
        OUTSIDE,
        part("set", name="exempt", elem=["veth1"]),
        part("chain", name="clear_in4"),
        drop("clear_in4", 12),
    )

    form = read_form(json.dumps({"nftables": [{"add": item} for item in echo]}))

    assert form == read_form(listed)


@pytest.mark.parametrize(
    "altered",
    [
        [*TABLE, part("rule", chain="clear_in4", expr=[{"accept": None}])],
        [part("rule", chain="clear_in4", expr=[{"accept": None}]), *TABLE],
        [item for item in TABLE if item != OUTSIDE],
        [*TABLE[:1], part("set", name="outside4", elem=["10.0.0.1"]), *TABLE[2:]],
        [part("table", name="ipsec_agent", flags=["dormant"]), *TABLE[1:]],
        [*TABLE, part("chain", name="other", hook="output")],
        TABLE[:-1],
    ],
)
def test_an_altered_table_has_another_form(altered: list[dict[str, Any]]) -> None:
    """A rule more, less or elsewhere, an element less, a dormant table, a new chain."""
    assert read_form(listing(*TABLE)) != read_form(listing(*altered))


def test_handles_and_counters_are_no_alteration() -> None:
    """They differ each time, and with each packet."""
    moved = [*TABLE[:-1], drop("clear_out4", 99, handle=77)]

    assert read_form(listing(*TABLE)) == read_form(listing(*moved))


@given(
    st.integers(0, len(TABLE) - 1),
    st.text("abcdefghij-", min_size=1).map("new-{}".format),
    st.none() | st.integers() | st.text() | st.lists(st.integers()),
)
def test_what_a_newer_nft_adds_is_no_alteration(at: int, key: str, value: object) -> None:
    """A key more in any object, and an object of another kind: nft 1.1.7 tells a set's `count`."""
    ((kind, old),) = TABLE[at].items()
    for name in ("count", key):
        wider = [*TABLE[:at], {kind: {**old, name: value}}, *TABLE[at + 1 :], {key: {name: value}}]

        assert read_table(listing(*wider), {}) == read_table(listing(*TABLE), {})


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("table", "flags"),
        *(("chain", key) for key in ("type", "hook", "prio", "policy", "dev")),
        *(("set", key) for key in ("type", "flags", "timeout", "size", "policy", "stmt")),
        ("rule", "expr"),
        ("rule", "comment"),
    ],
)
def test_what_we_write_belongs_to_the_form(kind: str, key: str) -> None:
    """Each key that a load can say is noticed when it is changed or removed."""
    at = next(place for place, item in enumerate(TABLE) if kind in item)
    old = {**TABLE[at][kind], key: [{"one": 1}]}
    without = {name: value for name, value in old.items() if name != key}
    forms = {
        read_form(listing(*TABLE[:at], {kind: one}, *TABLE[at + 1 :], drop("in4", 0)))
        for one in (old, {**old, key: [{"two": 2}]}, {"chain": "in4", **without})
    }

    assert len(forms) == 3


def test_a_listing_that_breaks_off() -> None:
    """As nft 1.0.6 lists a dormant table: there is one, and it is not what anybody loaded."""
    text = (
        '{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},'
        ' {"table": {"family": "inet", "name": "ipsec_agent", "handle": 3, "flags": \n'
    )

    assert read_table(text, {}) == GuardTable(form="")


def test_no_rules_have_no_form() -> None:
    """An echo that says nothing is told from a table."""
    assert read_form('{"nftables": []}') is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nftables": 7}', '{"nftables": [{"set": {}}]}'])
def test_another_language(text: str) -> None:
    """What is not nft's JSON is one sentence with a hint, not a traceback."""
    with pytest.raises(KernelError, match="cannot understand") as caught:
        read_table(text, {})

    assert "nft --version" in caught.value.hint
