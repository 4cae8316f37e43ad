"""From a config to the table that should stand: the same text on every VM, and its mark."""

import hashlib
from ipaddress import ip_address

from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, GuardMode
from ipsec_agent.core.desired import desired
from ipsec_agent.core.desired_guard import desired_guard, guard_of, judging_all, lockouts
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.model import Desired, LinkId
from ipsec_agent.core.placement import Placement
from tests.configs import config
from tests.core.test_guard import PLACE


def test_text_mark_and_links() -> None:
    """The mark is the digest of the text; the links are those that stay inside the VM."""
    wanted = desired_guard(config(), PLACE)

    assert wanted is not None
    assert wanted.mark == hashlib.sha256(wanted.text.encode()).hexdigest()
    assert "10.0.0.0" not in wanted.text  # the set holds what is outside
    assert "9.255.255.255" in wanted.text
    assert wanted.exempt == (LinkId(3, "docker0"), LinkId(9, "veth1"))


def test_the_same_on_every_vm() -> None:
    """Neither the address nor the role of a VM is in the text."""
    other = Placement(ip_address("10.9.9.9"), (ip_address("10.9.9.9"),))

    one, two = desired_guard(config(), PLACE), desired_guard(config(), other)

    assert one is not None
    assert two is not None
    assert (one.text, one.mark) == (two.text, two.mark)
    assert two.exempt == ()


def test_an_unclear_place_judges_every_link() -> None:
    """The same guard, without an exemption; one that is not wanted is not made."""
    wanted = desired_guard(config(), PLACE)
    assert wanted is not None

    def judged(wish: Desired, *, lowered: bool = False) -> Desired:
        return judging_all(wish, config(), lowered=lowered)

    assert judged(Desired(guard=wanted)).guard == replace(wanted, exempt=())
    assert judged(Desired(guard=wanted), lowered=True).guard is None


def test_what_an_earlier_config_let_pass_does_not_outlast_it() -> None:
    """The place is unclear by the new config: its guard drops all the same."""
    relaxed = config(optional=True)
    before = desired(relaxed, PLACE)
    assert before.optional

    after = judging_all(before, config(), lowered=False)

    assert after.guard is not None
    assert after.guard.enforces
    assert not after.optional
    assert after.connections == before.connections


def test_encapsulation_is_in_the_text() -> None:
    """ESP in UDP passes where the config forces it."""
    plain = desired_guard(config(), PLACE)
    forced = desired_guard(config(force_udp_encapsulation=True), PLACE)

    assert plain is not None
    assert forced is not None
    assert "ESP in UDP" not in plain.text
    assert "ESP in UDP" in forced.text


def test_none_is_wanted() -> None:
    """`agent.guard: none` wants no table."""
    assert desired_guard(config(agent=AgentConfig(guard=GuardMode.NONE)), PLACE) is None


def test_the_lists_of_the_config_are_judged() -> None:
    """Host bits and no-ipsec subnets are understood."""
    guard = guard_of(config(("10.0.1.1/16",), ("10.0.9.0/24",)))

    assert guard.judges(ip_address("10.0.0.1"), ip_address("10.0.255.1"))
    assert not guard.judges(ip_address("10.0.0.1"), ip_address("10.0.9.1"))


def test_lockouts_of_a_config() -> None:
    """The gateway inside the encrypted set is found, with and without a guard."""
    for mode in GuardMode:
        (found,) = lockouts(
            config(agent=AgentConfig(guard=mode)),
            (ip_address("10.0.0.5"),),
            (ip_address("10.0.0.1"),),
            EssentialAddresses(),
        )
        assert found.line == "- 10.0.0.1/32"
