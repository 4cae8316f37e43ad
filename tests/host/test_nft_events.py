"""Kernel messages about nftables are put together to transactions of one table."""

import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.host.nft_events import HEARD_WITHIN, INITIAL, Authors, Transactions

NEWRULE, NEWGEN = 6, 15


def message(kind: int, **attributes: bytes) -> bytes:
    """A message of nf_tables; attributes are named like a1, a2."""
    payload = struct.pack("=BBH", 1, 0, 0)
    for name, value in attributes.items():
        payload += struct.pack("=HH", 4 + len(value), int(name[1:])) + value
        payload += bytes(-len(value) % 4)
    header = struct.pack("=IHHII", 16 + len(payload), 10 << 8 | kind, 0, 0, 0)
    return header + payload


def rule(table: bytes) -> bytes:
    """A new rule in a table."""
    return message(NEWRULE, a1=table + b"\0", a2=b"out\0")


def end(pid: int) -> bytes:
    """The end of a transaction."""
    return message(NEWGEN, a1=b"\0\0\0\5", a2=pid.to_bytes(4, "big"), a3=b"nft\0")


def test_a_transaction_names_who_made_it() -> None:
    """Its messages may come in several datagrams; others' tables are not ours."""
    transactions = Transactions("ipsec_agent")

    assert list(transactions.feed(rule(b"ipsec_agent") + rule(b"other"))) == []
    assert list(transactions.feed(rule(b"other"))) == []
    assert list(transactions.feed(end(42))) == [42]
    assert list(transactions.feed(rule(b"other") + end(43))) == []
    assert list(transactions.feed(rule(b"ipsec_agent_2") + end(44))) == []
    two = rule(b"ipsec_agent") + end(45) + rule(b"x") + end(46)
    assert list(transactions.feed(two)) == [45]


def test_the_generation_that_was_heard_of() -> None:
    """Of any table's transaction; after the highest number comes 1."""
    transactions = Transactions("ipsec_agent")
    assert not transactions.reached(5)
    list(transactions.feed(end(42)))
    assert transactions.generation == 5
    assert [transactions.reached(number) for number in (4, 5, 6)] == [True, True, False]
    assert transactions.reached(2**32 - 1)
    transactions.generation = 2**32 - 1
    assert not transactions.reached(1)


def test_a_flowtable_counts_wherever_it_is() -> None:
    """Made or deleted, it decides whether packets get to the table at all."""
    transactions = Transactions("ipsec_agent")

    for kind in (22, 24):
        flowtable = message(kind, a1=b"fast\0", a2=b"f\0")
        assert list(transactions.feed(flowtable + end(42))) == [42]
    assert list(transactions.feed(message(18, a1=b"fast\0", a2=b"f\0") + end(43))) == []


def test_other_subsystems_are_left_alone() -> None:
    """nfnetlink carries conntrack and others with the same numbers."""
    foreign = bytearray(rule(b"ipsec_agent"))
    foreign[5] = 1

    assert list(Transactions("ipsec_agent").feed(bytes(foreign) + end(1))) == []


@given(st.binary(max_size=200), st.integers(0, 200))
def test_garbled_messages_end_quietly(garbage: bytes, cut: int) -> None:
    """No length sends the reader round in circles or beyond the end."""
    whole = rule(b"ipsec_agent") + end(7)

    list(Transactions("ipsec_agent").feed(garbage))
    list(Transactions("ipsec_agent").feed(whole[:cut] + garbage))


def authors(tmp_path: Path, namespace: str) -> Authors:
    """Those of an agent in a namespace of processes."""
    path = tmp_path / "pid"
    path.symlink_to(namespace)
    return Authors(path)


def test_an_author_is_ours_once(tmp_path: Path) -> None:
    """Whoever has the number of an nft that has ended is a stranger."""
    known = authors(tmp_path, INITIAL)
    known.expect(42)

    assert [known.made(number) for number in (43, 42, 42)] == [False, True, False]


def test_an_author_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has changed nothing after all leaves its number to others."""
    known = authors(tmp_path, INITIAL)
    known.expect(42)
    later = time.monotonic() + HEARD_WITHIN
    monkeypatch.setattr(time, "monotonic", lambda: later)

    assert not known.made(42)


def test_numbers_of_another_namespace(tmp_path: Path) -> None:
    """There the kernel means another process by our own number."""
    known = authors(tmp_path, "pid:[4026532999]")
    known.expect(42)

    assert not known.made(42)
    assert not Authors(tmp_path / "none").made(42)
