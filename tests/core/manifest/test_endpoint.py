"""`agent.metrics`: an address and a port."""

from datetime import UTC, datetime

import pytest

from ipsec_agent.core.manifest.complaint import Complaint
from ipsec_agent.core.manifest.parser import parse
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest

CA = make_ca()
TEXT = manifest(leaf=make_leaf(CA), cas=[CA], form="rendered")


def read(value: str) -> tuple[str | None, tuple[Complaint, ...]]:
    """The endpoint as text, and the complaints."""
    found = parse(f"{TEXT}agent:\n  metrics: {value}\n", file="ipsec.yml", now=datetime.now(UTC))
    return (str(found.config.agent.metrics) if found.config else None), found.complaints


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("10.0.1.7:9815", "10.0.1.7:9815"),
        ("0.0.0.0:1024", "0.0.0.0:1024"),
        ('"[::1]:9815"', "[::1]:9815"),
        ('"[FD00:0::7]:65535"', "[fd00::7]:65535"),
        ("", "None"),
        ("null", "None"),
    ],
)
def test_good(written: str, means: str) -> None:
    """IPv4, IPv6 in brackets, or nothing."""
    assert read(written) == (means, ())


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("9815", "must be an IP address and a port"),
        ("true", "must be an IP address and a port"),
        ("[a, b]", "must be an IP address and a port"),
        ("localhost:9815", "must be an IP address and a port"),
        ("10.0.1.7", "must be an IP address and a port"),
        ('":9815"', "must be an IP address and a port"),
        ('"::1:9815"', "must be an IP address and a port"),
        ("10.0.1.777:9815", "must be an IP address and a port"),
        ("224.0.0.1:9815", "must be an IP address and a port"),
        ("10.0.1.7:80", "the port must be from 1024 to 65535"),
        ("10.0.1.7:99999", "the port must be from 1024 to 65535"),
    ],
)
def test_bad(written: str, says: str) -> None:
    """Each with its line, and what to write instead."""
    config, (complaint,) = read(written)

    assert config is None
    assert says in str(complaint)
    assert "agent.metrics" in str(complaint)
    assert "metrics: 127.0.0.1:9815" in str(complaint)
