"""A connection in VICI's words."""

from ipaddress import ip_address

from msgspec.structs import replace

from ipsec_agent.core.desired import desired
from ipsec_agent.core.handover import LEVELS
from ipsec_agent.core.model import Action, Connection
from ipsec_agent.core.orphans import renewal
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.rehearsal import rehearsal
from ipsec_agent.core.swanctl import connection_message, fingerprint, renewal_message
from tests.configs import config


def connections(*own: str, **more: object) -> tuple[Connection, ...]:
    """The connections of a VM with these addresses."""
    addresses = tuple(ip_address(text) for text in own)
    settings = config(("10.0.0.0/16", "fd00::/64"), ("10.0.9.0/24",))
    return desired(replace(settings, **more), Placement(addresses[0], addresses)).connections


def test_trap() -> None:
    """A trap: IKEv2 with anyone, transport mode, from the VM's own address."""
    trap = connections("10.0.0.5")[-1]

    body = connection_message(trap)["ipsec-10.0.0.0/16"]
    child = body["children"]["ipsec-10.0.0.0/16-10.0.0.5"]

    assert (body["version"], body["unique"], body["mobike"]) == ("2", "never", "no")
    assert (body["local_addrs"], body["remote_addrs"]) == (
        ["0.0.0.0"],
        ["0.0.0.0", "10.0.0.0/16"],
    )
    assert body["local"] == {"auth": "pubkey", "certs": [b"leaf-aa"]}
    assert body["remote"] == {"auth": "pubkey", "cacerts": [b"ca-aa"]}
    assert (child["mode"], child["start_action"]) == ("transport", "trap")
    assert (child["local_ts"], child["remote_ts"]) == (["10.0.0.5/32"], ["10.0.0.0/16"])


def test_one_reqid_whoever_begins() -> None:
    """Each trap names its own reqid, the same in every life of the agent, and no shunt has one."""
    numbers = [
        child.get("reqid")
        for connection in connections("10.0.0.5", "10.0.0.6", "fd00::5")
        for child in connection_message(connection)[connection.name]["children"].values()
        if child["mode"] == "transport"
    ]

    # What answers for a second SA (handover.py) has it, too: the policy in demands it.
    assert numbers == [
        number for number in ("3098817370", "3893493005", "2590605440") for _ in range(1 + LEVELS)
    ]
    for shunt in connections("fd00::5")[:-1]:
        for child in connection_message(shunt)[shunt.name]["children"].values():
            assert "reqid" not in child


def test_what_answers_for_a_second_sa() -> None:
    """Behind each trap: it wants a label, traps nothing, and its SA is sent on after all others."""
    for own, first in (("10.0.0.5", 367231), ("fd00::5", 268927)):
        trap = connections(own)[-1]
        names = [child.name for child in trap.children]
        children = connection_message(trap)[trap.name]["children"]
        assert list(children) == [
            f"{name}{more}" for name in names for more in ("", "-later-1", "-later-2")
        ]
        plain, *later = children.values()
        for level, child in enumerate(later, 1):
            assert child == {
                **plain,
                "label": f"ipsec-agent-later-{level}",
                "label_mode": "simple",
                "start_action": "none",
                "priority": str(first + level),
            }
    for shunt in connections("10.0.0.5")[:-1]:
        assert len(connection_message(shunt)[shunt.name]["children"]) == len(shunt.children)


def test_a_renewal_asks_for_it() -> None:
    """By the label alone: at its own end the new SA is sent on at once. Without it nothing does."""
    own, peer = ip_address("10.0.0.5"), ip_address("10.0.0.7")
    wish = desired(config(("10.0.0.0/16",)), Placement(own, (own,)))
    asking, ordinary = (renewal(wish, (own, peer), level) for level in (2, 0))
    assert asking is not None
    assert ordinary is not None

    body = renewal_message(asking)[asking.name]
    plain, labelled = (body["children"][name] for name in (asking.name, f"{asking.name}-after-2"))
    assert labelled == {**plain, "label": "ipsec-agent-later-2", "label_mode": "simple"}
    assert "label" not in plain
    assert plain["start_action"] == "none"
    assert "priority" not in labelled
    assert (body["local_addrs"], body["remote_addrs"]) == (["10.0.0.5"], ["10.0.0.7"])
    without = {name: one for name, one in body["children"].items() if one is not labelled}
    assert renewal_message(ordinary)[asking.name] == {**body, "children": without}


def test_a_renewal_answers_as_its_trap_does() -> None:
    """Where the peer begins in the same moment charon takes it instead: the child that answers to
    a label comes before the one that asks with it, whose SA would be sent on too early.
    """
    own, peer = ip_address("10.0.0.5"), ip_address("10.0.0.7")
    wish = desired(config(("10.0.0.0/16",)), Placement(own, (own,)))
    trap = wish.connections[-1]
    answers = list(connection_message(trap)[trap.name]["children"].values())

    renewals = [renewal(wish, (own, peer), level) for level in range(LEVELS + 2)]
    for made in (*renewals, rehearsal(wish, (own, peer))):
        assert made is not None
        level = made.children[-1].level
        children = renewal_message(made)[made.name]["children"]
        first = {one["label"]: name for name, one in reversed(children.items()) if "label" in one}
        levels = range(1, max(LEVELS, level) + 1)
        assert first == {
            f"ipsec-agent-later-{number}": f"{made.name}-later-{number}" for number in levels
        }
        for trapped, mine in zip(answers, children.values(), strict=False):
            assert mine == {**trapped, "remote_ts": ["10.0.0.7/32"], "start_action": "none"}


def test_ipv6() -> None:
    """IPv6 needs an address of its own family first, or the trap is silently not installed."""
    trap = connections("fd00::5")[-1]

    body = connection_message(trap)["ipsec-fd00::/64"]

    assert (body["local_addrs"], body["remote_addrs"]) == (["::"], ["::", "fd00::/64"])


def test_shunt_matches_no_peer() -> None:
    """A shunt bears an address that no peer has: charon would select it for one, and refuse."""
    for shunt in connections("10.0.0.5", "fd00::5"):
        if shunt.action is Action.PASS:
            body = connection_message(shunt)[shunt.name]
            assert body["remote_addrs"] in (["127.0.0.1"], ["::1"])
            assert all(child["mode"] == "pass" for child in body["children"].values())


def test_neighbour_discovery() -> None:
    """The ICMPv6 types stand in the selectors as charon reads them."""
    shunt = next(c for c in connections("fd00::5") if c.name == "no-ipsec-neighbour-discovery")

    children = connection_message(shunt)[shunt.name]["children"].values()

    assert [child["local_ts"] for child in children] == [
        ["::/0[ipv6-icmp/135]"],
        ["::/0[ipv6-icmp/136]"],
    ]


def test_fingerprint() -> None:
    """It tells every change of what is loaded, the certificate's bytes included."""
    before = connections("10.0.0.5")[-1]
    assert before.settings is not None
    changed = (
        connections("10.0.0.5", force_udp_encapsulation=True)[-1],
        connections("10.0.0.5", esp_proposals=("aes256gcm16",))[-1],
        connections("10.0.0.6")[-1],
        replace(before, settings=replace(before.settings, certificate=b"other")),
        replace(before, settings=replace(before.settings, authorities=(b"other",))),
    )

    assert fingerprint(before) == fingerprint(connections("10.0.0.5")[-1])
    assert len({fingerprint(before), *map(fingerprint, changed)}) == 6
