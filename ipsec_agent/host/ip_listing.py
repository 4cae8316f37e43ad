"""This VM's addresses and default gateways by the program ip, for verbs that must start at once.

links.py reads the same by netlink, and watches it; importing its library takes longer than this.
"""

import errno
import json
import subprocess
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Any

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import NetworkFacts, OwnAddress
from ipsec_agent.errors import KernelError
from ipsec_agent.host.exhausted import NO_START, refused
from ipsec_agent.host.program import find_program
from ipsec_agent.host.understood import understood

DEADLINE = 10.0
"""Seconds that ip may take; it needs some 3 ms."""


def read_addresses() -> NetworkFacts:
    """The addresses of every link and the default routes; links are left out.

    Raises:
        KernelError: ip is not installed, refuses, or says what is not understood.
    """
    addresses = _ip("address", "show")
    routes = [*_ip("-4", "route", "show", "default"), *_ip("-6", "route", "show", "default")]
    return facts_of(addresses, routes)


def facts_of(addresses: list[Any], routes: list[Any]) -> NetworkFacts:
    """The same of what ip listed.

    Raises:
        KernelError: it is not understood.
    """
    with understood(lambda _error: _not_understood()):
        return NetworkFacts(
            addresses=tuple(_addresses(addresses)),
            default_links=tuple(dict.fromkeys(_default_links(addresses, routes))),
            gateways=tuple(dict.fromkeys(_gateways(routes))),
        )


def _addresses(links: Iterable[Any]) -> Iterator[OwnAddress]:
    for link in links:
        for own in link.get("addr_info", ()):
            # A link without a family of its own is listed as an empty object.
            if "local" in own:
                yield OwnAddress(
                    ip_address(own["local"]), int(own["prefixlen"]), int(link["ifindex"])
                )


def _default_links(links: Iterable[Any], routes: Iterable[Any]) -> Iterator[int]:
    indexes = {link.get("ifname"): int(link["ifindex"]) for link in links if "ifindex" in link}
    for route in routes:
        for hop in route.get("nexthops") or [route]:
            if hop.get("dev") in indexes:
                yield indexes[hop["dev"]]


def _gateways(routes: Iterable[Any]) -> Iterator[Address]:
    for route in routes:
        for hop in route.get("nexthops") or [route]:
            gateway = hop.get("gateway") or hop.get("via", {}).get("host")
            if gateway:
                yield ip_address(gateway)


def _ip(*arguments: str) -> list[Any]:
    program = find_program("ip")
    if program is None:
        raise KernelError(
            "the program ip is not installed", code=errno.ENOENT, hint="apt install iproute2"
        )
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and our own words
            [program, "-j", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise KernelError(
            f"ip did not answer within {DEADLINE:g} s",
            code=errno.ETIMEDOUT,
            hint="the machine is overloaded; try again",
        ) from error
    except OSError as error:
        raise refused(f"cannot start {program}", error, NO_START) from error
    if done.returncode != 0:
        # Without IPv6 in the kernel there is nothing of it to list.
        if "-6" in arguments:
            return []
        reason = done.stderr.decode(errors="replace").strip() or "no reason given"
        raise KernelError(f"ip {' '.join(arguments)}: {reason}")
    with understood(lambda _error: _not_understood()):
        found = json.loads(done.stdout or "[]")
    return found if isinstance(found, list) else []


def _not_understood() -> KernelError:
    return KernelError("cannot understand the output of `ip`", hint="see `ip -j address`")
