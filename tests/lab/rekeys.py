"""What happens to SAs: they are rekeyed, by one VM or both at once, or end without it."""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

from tests.charon.nodes import SCALE, Node, ip, until
from tests.lab.bed import Bed
from tests.lab.deployment import double
from tests.lab.faults import nft
from tests.lab.truth import Sa, charon_of, child_sas, sas

REKEYINGS = 5
"""So many in a row of the matrix: what is lost once in 40 is not seen in one."""

SHORT = 4
"""Seconds that an SA lives whose life ends without a rekey."""

CLOSED = (
    "table ip closed { chain in { type filter hook input priority -400; policy accept;"
    " udp dport { 500, 4500 } drop; }; }"
)


def rekey_children(bed: Bed) -> None:
    """VM a's charon rekeys its CHILD_SAs with the peer, one time after another."""
    for _ in range(REKEYINGS):
        with _all_new(bed, _children):
            _rekey(bed.a, "child-id", _children(bed, bed.a))


def rekey_children_of_both(bed: Bed) -> None:
    """Both charons rekey the same CHILD_SA at once."""
    with _all_new(bed, _children), _collision(bed, "CHILD_REKEY"):
        for node in (bed.a, bed.b):
            _rekey(node, "child-id", _children(bed, node))


def rekey_ike(bed: Bed) -> None:
    """VM a's charon rekeys its IKE_SAs with the peer, one time after another."""
    for _ in range(REKEYINGS):
        with _all_new(bed, _ike):
            _rekey(bed.a, "ike-id", _ike(bed, bed.a))


def rekey_ike_of_both(bed: Bed) -> None:
    """Both charons rekey the same IKE_SA at once."""
    with _all_new(bed, _ike), _collision(bed, "IKE_REKEY"):
        for node in (bed.a, bed.b):
            _rekey(node, "ike-id", _ike(bed, node))


def rekey_while_the_link_bounces(bed: Bed) -> float:
    """The link goes down, charon begins to rekey, and the link comes up again."""
    bed.ended = child_sas(bed.a)
    ip("link", "set", "eth0", "down", netns=bed.a.name)
    _rekey(bed.a, "child-id", bed.ended)
    time.sleep(0.3 * SCALE)
    ip("link", "set", "eth0", "up", netns=bed.a.name)
    return time.monotonic()


def peer_ends_children(bed: Bed) -> float:
    """The peer ends the CHILD_SAs, as an administrator there may."""
    bed.ended = child_sas(bed.a)
    _end(bed.b, _children(bed, bed.b))
    return _over(bed)


def outlive_children(bed: Bed) -> float:
    """The only SA with the peer ends its hard life, and nobody has rekeyed it."""
    old = child_sas(bed.a)
    double(bed.a, bed.one, bed.other, rekey_time="0", life_time=f"{SHORT}s", rand_time="0")
    _end(bed.a, old)
    bed.ended = child_sas(bed.a)
    return _over(bed)


def _end(node: Node, numbers: set[int]) -> None:
    with charon_of(node) as session:
        for number in numbers:
            list(session.terminate({"child-id": number}))


def _over(bed: Bed) -> float:
    until(lambda: not child_sas(bed.a) & bed.ended, "these SAs have ended", SHORT + 5 * SCALE)
    return time.monotonic()


def _between(bed: Bed, node: Node) -> list[Sa]:
    """The IKE_SAs in force of one of the two VMs with the other, not with a third one."""
    other = bed.b if node is bed.a else bed.a
    shown = json.loads(ip("-j", "addr", "show", netns=other.name))
    peers = {str(ip_address(one["local"])) for link in shown for one in link["addr_info"]}
    return [sa for sa in sas(node) if sa.established and str(ip_address(sa.peer)) in peers]


def _ike(bed: Bed, node: Node) -> set[int]:
    """Their numbers."""
    return {sa.number for sa in _between(bed, node)}


def _children(bed: Bed, node: Node) -> set[int]:
    """The numbers of their CHILD_SAs."""
    return {child for sa in _between(bed, node) for child in sa.children}


def _rekey(node: Node, kind: str, numbers: set[int]) -> None:
    assert numbers, f"{node.name} has no SA"
    with charon_of(node) as session:
        for number in numbers:
            assert int(session.rekey({kind: number})["matches"]) == 1


@contextlib.contextmanager
def _all_new(bed: Bed, found: Callable[[Bed, Node], set[int]]) -> Iterator[None]:
    """Wait at the end until both VMs have others than they had at the beginning."""
    old = {node.name: found(bed, node) for node in (bed.a, bed.b)}
    yield

    def shown() -> str:
        has = {node.name: sas(node) for node in (bed.a, bed.b)}
        return f"new SAs only: had {old}, has {has}: {bed.b.charon_log[-3000:]}"

    for node in (bed.a, bed.b):
        until(
            functools.partial(_are_others, functools.partial(found, bed, node), old[node.name]),
            shown,
            10 * SCALE,
        )


def _are_others(found: Callable[[], set[int]], old: set[int]) -> bool:
    now = found()
    return bool(now) and not now & old


@contextlib.contextmanager
def _collision(bed: Bed, task: str) -> Iterator[None]:
    """Both begin what is done here, since neither hears the other's IKE before the end of it."""
    said = f"detected {task} collision with {task}"
    heard = {node.name: node.charon_log.count(said) for node in (bed.a, bed.b)}
    for node in (bed.a, bed.b):
        nft(node, "add", CLOSED)
    yield
    for node in (bed.a, bed.b):
        nft(node, "delete", "table", "ip", "closed")
    until(
        lambda: any(node.charon_log.count(said) > heard[node.name] for node in (bed.a, bed.b)),
        lambda: f"charon tells of a collision: {[n.charon_log[-3000:] for n in (bed.a, bed.b)]}",
        10 * SCALE,
    )
