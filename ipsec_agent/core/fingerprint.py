"""Fingerprints of what must be equal on both VMs of a pair, by which `report` compares VMs.

They are made of public parts only: the lists, the settings, and certificates as each peer sees
them. Two that are equal mean the same, however it is written.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from ipsec_agent.core.config import DEFAULT_ESP, DEFAULT_IKE, Config
from ipsec_agent.core.derived import derived
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.ranges import BITS, Ranges, complement, joined, of_networks

LENGTH = 16
"""Hex digits of a fingerprint that only tells configs apart."""


@derived
def fingerprint(config: Config) -> dict[str, Any]:
    """What `status --json` shows of a config; worked out once for it.

    `lists` changes when any address is treated in another way: encrypted, in `no_ipsec_subnets`, or
    in neither list. `certificate` and `authorities` are as `certs show` has them.
    """
    lists = _lists(Promise.of(config))
    ike, esp = config.ike_proposals or DEFAULT_IKE, config.esp_proposals or DEFAULT_ESP
    parts = {
        "lists": _digest(lists),
        "proposals": _digest((*ike, "", *esp)),
        "optional": config.optional,
        "outside": config.agent.outside.value,
        "force_udp_encapsulation": config.force_udp_encapsulation,
    }
    return {
        "config": _digest(f"{name}={value}" for name, value in parts.items()),
        **parts,
        "certificate": _colons(config.certificate),
        "authorities": sorted(_colons(ca.certificate) for ca in config.credentials.authorities),
    }


def _lists(promise: Promise) -> Iterable[str]:
    """The addresses that are encrypted, and those that are exempt, as the fewest ranges."""
    for version in BITS:
        exempt = of_networks(promise.no_ipsec, version)
        # What is listed and not exempt: all but what is exempt or not listed.
        unlisted = complement(of_networks(promise.ipsec, version), version)
        encrypted = complement(joined((*exempt, *unlisted)), version)
        yield from _spelled(f"encrypt {version}", encrypted)
        yield from _spelled(f"exempt {version}", exempt)


def _spelled(what: str, ranges: Ranges) -> Iterable[str]:
    return (f"{what} {first:x}-{last:x}" for first, last in ranges)


def _digest(words: Iterable[str]) -> str:
    # No word has a line's end in it.
    return sha256("\n".join(words).encode()).hexdigest()[:LENGTH]


def _colons(der: bytes) -> str:
    return sha256(der).digest().hex(":")
