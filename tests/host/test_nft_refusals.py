"""Why nf_tables refuses, out of nft's complaint and of what else the kernel answers."""

import errno
from pathlib import Path

import pytest

from ipsec_agent.host import nft_refusals
from ipsec_agent.host.nft_refusals import _holder, owner, refusal
from ipsec_agent.host.socket_holders import Holder

UNSUPPORTED = "/dev/stdin:1:1-23: Error: Could not process rule: Operation not supported\n"
FORBIDDEN = "/dev/stdin:1:1-23: Error: Could not process rule: Operation not permitted\n"

NETLINK = """\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
00000000f8a5f1e8 12  0          00000000 0        0        0     2        0        4672353 \n\
00000000f8a5f1e9 4   4711       00000000 0        0        0     2        0        70 \n\
00000000df53afdd 12  4711       00000000 0        0        0     2        0        71 \n\
"""


def test_line_of_a_fault() -> None:
    """The file that nft was given is ours, and has no name that says anything."""
    complaint = "/proc/self/fd/6:12:5-5: Error: syntax error, unexpected newline\njunk\n"

    found = refusal("the guard's table does not load", complaint)

    assert found.message == (
        "the guard's table does not load: line 12: Error: syntax error, unexpected newline"
    )


@pytest.mark.parametrize(("answers", "hint"), [(True, "nft -c -f"), (False, "modprobe nf_tables")])
def test_not_supported(*, answers: bool, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a kernel without nf_tables only where nothing of them answers."""
    monkeypatch.setattr(nft_refusals, "has_nf_tables", lambda: answers)

    found = refusal("the guard's table does not load", UNSUPPORTED)

    assert found.code == errno.EOPNOTSUPP
    assert hint in found.hint


@pytest.mark.parametrize("told", [None, ("pid 7 (x) owns the table inet t", "end it")])
def test_not_permitted(told: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns the table is named; else root is lacking."""
    monkeypatch.setattr(nft_refusals, "owner", lambda: told)

    found = refusal("cannot remove the guard's table", FORBIDDEN)

    assert found.code == errno.EPERM
    assert (told[0] in found.message) if told else ("not permitted" in found.message)
    assert found.hint == (told[1] if told else nft_refusals.NOT_ROOT)


def test_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the netlink socket with the table's port, whatever the number is."""
    (tmp_path / "thread-self/net").mkdir(parents=True)
    (tmp_path / "thread-self/net/netlink").write_text(NETLINK)
    (tmp_path / "99/fd").mkdir(parents=True)
    (tmp_path / "99/fd/3").symlink_to("socket:[71]")
    (tmp_path / "99/comm").write_text("firewalld\n")

    assert _holder(4711, tmp_path) == Holder(99, "firewalld")
    assert _holder(4712, tmp_path) == Holder()
    monkeypatch.setattr(nft_refusals, "_port", lambda _family: 4711)
    told = owner(tmp_path)
    assert told is not None
    assert told[0].startswith("pid 99 (firewalld) owns the table inet ipsec_agent")
    assert "`kill 99`" in told[1]
    monkeypatch.setattr(nft_refusals, "_port", lambda _family: 0)
    assert owner(tmp_path) is None
