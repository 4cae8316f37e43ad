"""Fingerprints are equal for configs that mean the same, and for no others."""

import hashlib
import json
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.config import DEFAULT_ESP, DEFAULT_IKE, AgentConfig, Config, Outside
from ipsec_agent.core.fingerprint import fingerprint
from ipsec_agent.core.model import Credentials, Secret
from ipsec_agent.core.promise import Promise
from tests.configs import config

CORNER = int(IPv4Address("10.0.0.0"))
subnets = st.builds(
    lambda place, length: str(IPv4Network((CORNER | place, length), strict=False)),
    st.integers(0, 7),
    st.integers(29, 32),
)
lists = st.lists(subnets, max_size=5).map(tuple)


def treated(promise: Promise) -> tuple[tuple[bool, bool], ...]:
    """What becomes of each address of the corner: encrypted, exempt."""
    corner = (IPv4Address(CORNER + place) for place in range(8))
    return tuple(
        (promise.encrypted(one), promise.no_ipsec_subnet(one) is not None) for one in corner
    )


@given(lists, lists, lists, lists)
def test_lists(
    ipsec: tuple[str, ...],
    exempt: tuple[str, ...],
    others: tuple[str, ...],
    other_exempt: tuple[str, ...],
) -> None:
    """Two configs have the same fingerprint exactly where they treat each address alike."""
    one, other = config(ipsec, exempt), config(others, other_exempt)
    alike = treated(Promise.of(one)) == treated(Promise.of(other))

    assert (fingerprint(one)["lists"] == fingerprint(other)["lists"]) == alike
    assert (fingerprint(one)["config"] == fingerprint(other)["config"]) == alike


def test_spelling() -> None:
    """Order, host bits, halves and what is within another change nothing; an address does."""
    plain = fingerprint(config(("10.0.0.0/16", "fd00::/64"), ("10.0.0.1/32",)))
    spelled = ("fd00::7/64", "10.0.128.9/17", "10.0.0.0/17", "10.0.3.0/24")

    assert fingerprint(config(spelled, ("10.0.0.1/32", "10.0.0.1/32"))) == plain
    assert fingerprint(config(("fd00::/65", *spelled[1:]), ("10.0.0.1/32",))) != plain
    # The same numbers in the other version of IP are other addresses.
    six = str(IPv6Network((int(IPv4Address("10.0.0.0")), 112)))
    assert fingerprint(config((six,)))["lists"] != fingerprint(config())["lists"]


def test_settings() -> None:
    """Each setting that both VMs must share shows, and a default that is written out does not."""
    plain = config()
    others = (
        replace(plain, optional=True),
        replace(plain, force_udp_encapsulation=True),
        replace(plain, agent=AgentConfig(outside=Outside.CLEAR)),
        replace(plain, esp_proposals=("aes256gcm16",)),
        replace(plain, ike_proposals=DEFAULT_IKE[1:]),
        # What is of IKE is no ESP.
        replace(plain, ike_proposals=(*DEFAULT_IKE, *DEFAULT_ESP), esp_proposals=()),
    )
    digests = {fingerprint(one)["config"] for one in (plain, *others)}

    assert len(digests) == len(others) + 1
    written = replace(plain, ike_proposals=DEFAULT_IKE, esp_proposals=DEFAULT_ESP)
    assert fingerprint(written) == fingerprint(plain)
    assert fingerprint(replace(plain, stop_timeout=5.0)) == fingerprint(plain)


def with_key(plain: Config, key: bytes) -> Config:
    """The config with another private key."""
    old = plain.credentials
    return replace(plain, credentials=Credentials(old.key_id, Secret(key), old.authorities))


def test_public_parts_only() -> None:
    """The certificates are as `certs show` has them; nothing depends on the key."""
    plain = config()
    shown = fingerprint(plain)

    assert shown["certificate"] == hashlib.sha256(b"leaf-aa").digest().hex(":")
    assert shown["authorities"] == [hashlib.sha256(b"ca-aa").digest().hex(":")]
    assert fingerprint(with_key(plain, b"another")) == shown
    assert fingerprint(config(key="bb"))["config"] == shown["config"]
    assert json.loads(json.dumps(shown)) == shown


def test_once_for_each_config() -> None:
    """A pass does not work it out again."""
    plain = config()

    assert fingerprint(plain) is fingerprint(plain)
