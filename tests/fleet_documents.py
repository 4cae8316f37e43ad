"""What `status --json` says on the VMs of a fleet: real documents, with other addresses."""

import json
from functools import lru_cache
from typing import Any

from msgspec.structs import replace

from ipsec_agent.core.config import Config
from ipsec_agent.core.health import Memory
from ipsec_agent.core.report.examined import Report, examined
from ipsec_agent.core.report.findings import Finding, Kind
from ipsec_agent.core.report.reading import Read, read
from ipsec_agent.core.status import document
from tests.configs import config
from tests.core.test_optional import loose_vm, with_clear
from tests.core.test_status import snapshot
from tests.vm import NOW, Vm, healthy_vm, with_sa

Document = dict[str, Any]


@lru_cache
def _made(*, optional: bool) -> tuple[str, str, str]:
    """A document without peers, a peer with SAs, and one that speaks clear; as JSON."""
    plain: Vm = loose_vm() if optional else healthy_vm()
    whole = document(replace(snapshot(plain, Memory()), version="0.2.0"))
    peer = document(snapshot(with_sa(healthy_vm(), age=200)))["peers"][0]
    clear = document(snapshot(with_clear(loose_vm())))["optional"]["would_cut_off"][0]
    return json.dumps(whole), json.dumps(peer), json.dumps(clear)


def status(
    address: str,
    up: tuple[str, ...] = (),
    *,
    clear: tuple[str, ...] = (),
    settings: Config | None = None,
    time: float = NOW,
    **more: Any,
) -> Document:
    """The document of a VM with SAs with some peers; with `clear` others IPsec is optional."""
    settings = settings or config(optional=bool(clear))
    whole, peer, talk = _made(optional=settings.optional)
    found: Document = json.loads(whole)
    if settings != config(optional=settings.optional):
        found["fingerprint"] = document(snapshot(healthy_vm(settings)))["fingerprint"]
    found |= {"address": address, "addresses": [address], "time": time}
    carried = {"idle_in": 4, "idle_out": 4}
    found["peers"] = [{**json.loads(peer), **carried, "address": one} for one in up]
    if found["optional"] is not None:
        found["optional"]["would_cut_off"] = [
            {**json.loads(talk), "address": one, "last": time - 3} for one in clear
        ]
    return {**found, **more}


def fleet(count: int = 8, **more: Any) -> list[Document]:
    """VMs of which each speaks ESP with each other one."""
    addresses = [f"10.0.0.{number}" for number in range(1, count + 1)]
    return [
        status(one, tuple(other for other in addresses if other != one), **more)
        for one in addresses
    ]


def report(documents: list[Document]) -> Report:
    """The report of them, each from a file of its own."""
    found = Read()
    for number, one in enumerate(documents, start=1):
        new = read(f"vm-{number}.json", json.dumps(one).encode())
        found = Read(found.vms + new.vms, found.flaws + new.flaws)
    return examined(found)


def of(found: Report, kind: Kind) -> list[Finding]:
    """The findings of a kind."""
    return [one for one in found.findings if one.kind is kind]
