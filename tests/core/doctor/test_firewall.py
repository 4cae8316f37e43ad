"""The rules for a platform's firewall, from the config's own subnets."""

import shlex

import pytest

from ipsec_agent.core.doctor.firewall import Platform, rules
from ipsec_agent.verbs.diagnosis import PLATFORMS
from tests.configs import config

BOTH = ("10.0.1.1/20", "fd00::/64")


@pytest.mark.parametrize("platform", Platform)
def test_each_subnet_has_its_rules(platform: Platform) -> None:
    """Every subnet, normalised; both ports of IKE, and ESP unless that travels in UDP."""
    text = "\n".join(rules(platform, config(BOTH)))
    in_udp = "\n".join(rules(platform, config(BOTH, force_udp_encapsulation=True)))

    for shown in (text, in_udp):
        assert "10.0.0.0/20" in shown
        assert "fd00::/64" in shown
        assert "500" in shown
        assert "4500" in shown
    commands = [line for line in text.splitlines() if not line.startswith("#")]
    encapsulated = [line for line in in_udp.splitlines() if not line.startswith("#")]
    assert len(encapsulated) < len(commands) or platform in {Platform.GCP, Platform.VSPHERE}
    assert not any("esp" in line.lower() or "=50," in line for line in encapsulated)


@pytest.mark.parametrize("platform", Platform)
def test_they_are_commands(platform: Platform) -> None:
    """A shell takes each line."""
    for line in rules(platform, config(BOTH)):
        assert shlex.split(line, comments=True) or line.startswith("#")


def test_aws() -> None:
    """Protocol 50 for both families in one rule."""
    assert rules(Platform.AWS, config(BOTH))[-1] == (
        "aws ec2 authorize-security-group-ingress --group-id $GROUP --ip-permissions"
        " 'IpProtocol=50,IpRanges=[{CidrIp=10.0.0.0/20}],Ipv6Ranges=[{CidrIpv6=fd00::/64}]'"
    )


def test_the_option_knows_all() -> None:
    """The command line offers each platform, and no other."""
    assert tuple(Platform) == PLATFORMS
