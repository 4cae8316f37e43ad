"""Which sockets of others matter to charon, what is said of them, and when another start helps."""

from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from ipsec_agent.core.desired import desired
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.ike_ports import in_the_way, reopens
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import Charon, IkePorts, Link, NetworkFacts, Observed, PortHolder
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.plan import plan
from ipsec_agent.core.problems.ike_ports import ike_port_problems
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.steps import KillCharon
from tests.configs import config
from tests.fakes import PROCESS

OWN, OWN6 = ip_address("10.0.0.5"), ip_address("fd00::5")
V4 = desired(config(), Placement(OWN, (OWN,)))
BOTH = desired(config(("10.0.0.0/24", "fd00::/64")), Placement(OWN, (OWN, OWN6)))
ALL = frozenset({(4, 500), (4, 4500), (6, 500), (6, 4500)})
NO_V4 = ALL - {(4, 500), (4, 4500)}


def seen(
    owned: frozenset[tuple[int, int]], *others: PortHolder, contested: bool = True
) -> Observed:
    """What a pass saw, with a charon."""
    return Observed(Charon(PROCESS), ike_ports=IkePorts(owned, others, (4, 6), contested=contested))


def holder(address: str, port: int = 500, pid: int = 812) -> PortHolder:
    """racoon has a port on an address."""
    found = ip_address(address)
    return PortHolder(found.version, port, found, pid, "racoon" if pid else "")


def said(wish: Desired, observed: Observed) -> list[tuple[str, str]]:
    """Codes and messages."""
    return [(one.code, one.message) for one in ike_port_problems(wish, observed)]


def test_well() -> None:
    """charon has all, or all that are used: nothing is said, nothing is done."""
    assert said(BOTH, seen(ALL)) == said(V4, seen(ALL)) == []
    assert said(V4, seen(ALL - {(6, 500), (6, 4500)}, holder("::1"))) == []
    assert not reopens(V4, seen(ALL - {(6, 500), (6, 4500)}))
    assert said(V4, Observed(Charon(PROCESS))) == []
    assert seen(ALL).ike_ports is not None


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.5", "::", "127.0.0.1"])
def test_taken(address: str) -> None:
    """Its holder is named; it is critical, and no other start helps."""
    observed = seen(NO_V4, holder(address))

    (problem,) = ike_port_problems(V4, observed)
    assert problem.code == "ike-port-taken"
    assert problem.severity is Severity.CRITICAL
    assert problem.message.startswith("UDP 500 is in use by pid 812 (racoon)")
    assert not reopens(V4, observed)
    assert not any(isinstance(step, KillCharon) for step in plan(Drift(V4, observed)))


def test_taken_by_a_user() -> None:
    """Whose program it is, and what keeps ordinary users from the port, where it is one's."""
    of_a_user = replace(holder("0.0.0.0", 4500), user=1000)

    (problem,) = ike_port_problems(V4, seen(NO_V4, of_a_user))
    assert problem.message.startswith("UDP 4500 is in use by pid 812 (racoon) of user 1000,")
    assert "ip_unprivileged_port_start=4501" in problem.hint
    (of_root,) = ike_port_problems(V4, seen(NO_V4, holder("0.0.0.0", 4500)))
    assert "unprivileged" not in of_root.hint


def test_taken_without_charon() -> None:
    """Before it runs, the port is taken, too."""
    observed = replace(seen(frozenset(), holder("0.0.0.0")), charon=None)

    assert [code for code, _ in said(V4, observed)] == ["ike-port-taken"]
    assert said(V4, replace(observed, ike_ports=IkePorts())) == []


def test_one_that_cannot_be_seen() -> None:
    """Its process is in a namespace of its own."""
    ((_, message),) = said(V4, seen(NO_V4, holder("0.0.0.0", pid=0)))

    assert "a process that the agent cannot see" in message


def test_each_holder_once() -> None:
    """A program with both families' sockets is named once a port."""
    observed = seen(frozenset(), holder("0.0.0.0"), holder("::"), holder("::", 4500))

    assert len(said(BOTH, observed)) == 2
    assert len(in_the_way(BOTH, observed)) == 3


def test_what_does_not_matter() -> None:
    """A loopback address that left charon its ports; the other family, also on `::` where charon
    has the port of this one."""
    assert in_the_way(V4, seen(ALL, holder("127.0.0.1"))) == ()
    assert in_the_way(V4, seen(NO_V4, holder("fd00::5"))) == ()
    assert in_the_way(BOTH, seen(ALL, holder("fd00::5"))) != ()
    v6_only = holder("::")
    assert in_the_way(V4, seen(ALL - {(6, 500)}, v6_only)) == ()
    assert in_the_way(BOTH, seen(ALL - {(6, 500)}, v6_only)) == (v6_only,)
    assert in_the_way(V4, seen(ALL - {(4, 500)}, v6_only)) == (v6_only,)


def test_free_again() -> None:
    """charon is started again, if somebody had the port since it began; else that helps nothing."""
    free = seen(NO_V4)

    assert [type(step) for step in plan(Drift(V4, free))] == [KillCharon]
    assert [code for code, _ in said(V4, free)] == ["ike-port-closed"] * 2
    never = seen(NO_V4, contested=False)
    assert not reopens(V4, never)
    assert [code for code, _ in said(V4, never)] == ["ike-port-closed"] * 2
    assert not reopens(V4, seen(ALL))


def test_nothing_to_encrypt() -> None:
    """A VM that speaks clear needs no port."""
    assert said(Desired(), seen(frozenset(), holder("0.0.0.0"))) == []
    assert not reopens(Desired(), seen(frozenset()))


def test_a_tunnels_port() -> None:
    """The kernel has it for a link, and no process: the link is named, and how to change it."""
    vx = Link(7, "vx0", 1450, up=True, kind="vxlan", port=4500)
    network = NetworkFacts((Link(2, "eth0", 1500, up=True), vx))
    observed = replace(seen(NO_V4, holder("0.0.0.0", 4500, pid=0)), network=network)

    (problem,) = ike_port_problems(V4, observed)

    assert problem.message == "UDP 4500 is in use by the vxlan link vx0, so charon cannot negotiate"
    assert "`ip -d link show vx0`" in problem.hint
    other = replace(observed, network=NetworkFacts((replace(vx, port=4789),)))
    assert "a process that the agent cannot see" in said(V4, other)[0][1]
    program = replace(seen(NO_V4, holder("10.0.0.5", 4500)), network=network)
    assert "pid 812 (racoon)" in said(V4, program)[0][1]


def test_a_link_that_does_not_tell_its_port() -> None:
    """The kernel has it for WireGuard, which says so to its own program only: it is named, too."""
    wg = Link(7, "wg0", 1420, up=True, kind="wireguard")
    observed = replace(seen(NO_V4, holder("0.0.0.0", 4500, pid=0)), network=NetworkFacts((wg,)))

    (problem,) = ike_port_problems(V4, observed)

    assert "a process that the agent cannot see, or the wireguard link wg0, so" in problem.message
    assert "`wg show`" in problem.hint
    (seen_one,) = ike_port_problems(
        V4, replace(observed, ike_ports=seen(NO_V4, holder("0.0.0.0", 4500)).ike_ports)
    )
    assert "wg" not in seen_one.message + seen_one.hint
