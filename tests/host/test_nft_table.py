"""The kernel's bytes of the guard are read into records."""

import errno
from ipaddress import ip_address
from typing import Any, cast

import pytest

from ipsec_agent.core.model import LinkId
from ipsec_agent.core.observed_guard import ClearLink, ClearPeer, GuardTable
from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft_image import read_image
from ipsec_agent.host.nft_table import SETS, flowtable, guard_table
from ipsec_agent.host.nft_tables import _refused, _tables, _told
from ipsec_agent.host.nft_wire import NFPROTO_INET
from tests.host.nft_tables_made import Kernel, big, chain, counter, element, guard, index, packed


def table(kernel: Kernel) -> GuardTable:
    """The record."""
    image = read_image(cast("Any", kernel), NFPROTO_INET, "ipsec_agent", SETS)
    assert image is not None
    return guard_table(image, {3: "veth1"})


def test_read() -> None:
    """Peers by address, links by index and name, totals by direction."""
    found = table(guard())

    assert found == GuardTable(
        form=found.form,
        exempt=(LinkId(3, "veth1"), LinkId(17, "gone")),
        overlay_ports=(4789,),
        dropped_in=12,
        dropped_out=13,
        tunnelled_in=3,
        disguised_in=1,
        disguised_out=2,
        clear_in=(
            ClearPeer(ip_address("10.0.1.6"), 1, 100, 0),
            ClearPeer(ip_address("10.0.1.7"), 5, 500, 5),
            ClearPeer(ip_address("fd00::7"), 2, 200, 3600),
        ),
        misplaced=(ClearPeer(ip_address("192.168.77.1"), 4, 400, 0),),
        tunnelled=(ClearPeer(ip_address("10.0.1.9"), 3, 300, 0),),
        unguarded=(ClearLink("99", 1, 100, 0), ClearLink("veth1", 7, 700, 1)),
    )
    assert len(found.form) == 32


def test_exempt_links_of_another_version() -> None:
    """It had indexes only: no link of ours is one without a name."""
    kernel = guard()
    kernel.elements = {**kernel.elements, "exempt": (element(index(3)),)}

    assert table(kernel).exempt == (LinkId(3, ""),)


def test_an_element_may_last_longer_than_its_set_says() -> None:
    """Silence is counted from its own time."""
    kernel = guard()
    lasting = element(
        bytes((10, 0, 1, 7)), a4=big(7_200_000, 8), a5=big(7_000_500, 8), a7=counter(1)
    )
    kernel.elements = {**kernel.elements, "clear_in4": (lasting,), "clear_in6": ()}

    assert [peer.idle for peer in table(kernel).clear_in] == [199]


def test_a_closed_table() -> None:
    """By its chain."""
    assert table(guard(chains=(chain("closed_out"),))).closed


def test_flowtables() -> None:
    """By family, table and name; one without links carries nothing."""

    def told(name: bytes, devices: bytes) -> bytes:
        return packed({1: b"fast\0", 2: name + b"\0", 3: packed({1: bytes(4), 3: devices})})

    listed = ((1, told(b"f", packed({1: b"eth0\0"}))), (10, told(b"g", packed({1: b"eth0\0"}))))
    found = _tables(cast("Any", guard(flowtables=(*listed, (1, told(b"idle", b""))))), None)

    assert found is not None
    assert found.flowtables == ("inet fast f", "ip6 fast g")
    assert flowtable(1, packed({1: b"fast\0", 2: b"f\0"})) is None


ODD = (
    {"elements": {"clear_in4": (element(b"\x0a\0\0\1", a7=b"\3\0"),)}},
    {"elements": {"clear_in4": (element(b"\x0a\0", a5=bytes(8)),)}},
    {"rules": ({1: b"ipsec_agent\0", 4: packed({1: packed({1: b"counter\0"})}), 2: b"in\0"},)},
)
BROKEN = ({"rules": ({2: b"in\0"},)}, {"sets": ({1: b"ipsec_agent\0"},)}, {"table": {2: bytes(4)}})


@pytest.mark.parametrize("broken", BROKEN)
def test_another_language(broken: dict[str, Any]) -> None:
    """What is not understood is one sentence, and no guard that is good."""
    kernel = cast("Any", guard(**{"elements": {}, **broken}))
    with (
        pytest.raises(KernelError, match="cannot read the guard's table: not understood: "),
        _told("cannot read the guard's table"),
    ):
        _tables(kernel, None)


@pytest.mark.parametrize("odd", ODD)
def test_what_somebody_made_need_not_be_understood(odd: dict[str, Any]) -> None:
    """It is a guard that was altered, and is replaced."""
    found = _tables(cast("Any", guard(**{"elements": {}, **odd})), None)

    assert found is not None
    assert found.guard == GuardTable(form="")


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (OSError(errno.ENOENT, "no"), errno.ENOENT, ""),
        (OSError(errno.EPERM, "no"), errno.EPERM, "run as root"),
        (OSError(errno.EINVAL, "no"), errno.EOPNOTSUPP, "modprobe nf_tables"),
        (OSError(errno.EPROTONOSUPPORT, "no"), errno.EOPNOTSUPP, "modprobe nf_tables"),
        (TimeoutError("timed out"), errno.ETIMEDOUT, "overloaded"),
    ],
)
def test_refusals(error: OSError, code: int, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its remedy."""
    monkeypatch.setattr("ipsec_agent.host.nft_tables.has_nf_tables", lambda: False)
    refused = _refused("cannot read the guard's table", error)

    assert refused.code == code
    assert hint in refused.hint


def test_a_kernel_with_nf_tables_is_not_told_to_lack_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it answers something else about tables, the refusal is about this one."""
    monkeypatch.setattr("ipsec_agent.host.nft_tables.has_nf_tables", lambda: True)

    refused = _refused("cannot read the guard's table", OSError(errno.EINVAL, "no"))

    assert (refused.code, refused.hint) == (errno.EINVAL, "")
