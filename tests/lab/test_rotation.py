"""Certificates and CAs are rotated by `reload`, in a mesh of four under flood."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from ipsec_agent.host.control_client import ask
from tests.certificates import Issued, ec_key, make_ca, make_leaf
from tests.charon.nodes import SCALE, Node, network, until
from tests.lab.deployment import A, B, C, hub_of, start
from tests.lab.floods import flood
from tests.lab.frames import Kind
from tests.lab.judge import end
from tests.lab.traffic import Flow, first_answer
from tests.lab.wire import Capture
from tests.manifests import manifest

pytestmark = [pytest.mark.esp, pytest.mark.timeout(500)]

D = "10.9.0.4"
ALL = (A, B, C, D)
RATE = 100

FIRST, SECOND = make_ca("First CA", key=ec_key(60)), make_ca("Second CA", key=ec_key(61))
OLD = make_leaf(FIRST, "vm", key=ec_key(62))
NEXT = make_leaf(FIRST, "vm", key=ec_key(63))
LAST = make_leaf(SECOND, "vm", key=ec_key(64))


def configure(nodes: Sequence[Node], leaf: Issued, *cas: Issued) -> None:
    """Give every node this certificate and these CAs."""
    for node in nodes:
        node.config.write_text(
            manifest(
                ["10.9.0.0/24"],
                [],
                leaf=leaf,
                cas=cas,
                agent=node.agent_section(),
                prestart_timeout=100,
            )
        )


def reload(nodes: Sequence[Node]) -> None:
    """All in the same second."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(
            pool.map(
                lambda node: ask(str(node.run_dir / "control.sock"), "reload", deadline=30 * SCALE),
                nodes,
            )
        )


def moved(node: Node, others: int) -> bool:
    """Whether every SA that carries traffic is of what is in force, and none is left beside it."""
    status = node.status()
    peers = [peer for peer in status["peers"] if peer["child_sas"]]
    return (
        len(peers) == others
        and not status["rotation"]["behind"]
        and all(peer["child_sas"] == 1 and peer["certificate_state"] == "current" for peer in peers)
    )


@contextlib.contextmanager
def floods(nodes: Sequence[Node]) -> Iterator[Callable[[], list[Flow]]]:
    """Both ways between the first two, and between the others; how to end them."""
    with contextlib.ExitStack() as stack:
        pairs = [(0, 1), (1, 0), (2, 3), (3, 2)][: len(nodes)]
        running = [
            stack.enter_context(
                flood(nodes[one].name, nodes[other].name, ALL[other], rate=RATE, seconds=600)
            )
            for one, other in pairs
        ]
        yield lambda: [one.end() for one in running]


Step = tuple[str, Issued, tuple[Issued, ...]]

STEPS: tuple[Step, ...] = (
    ("1: certificate", NEXT, (FIRST,)),
    ("2: CA added", NEXT, (FIRST, SECOND)),
    ("2: certificate", LAST, (FIRST, SECOND)),
    ("2: CA removed", LAST, (SECOND,)),
)


@pytest.mark.parametrize(
    ("count", "steps"), [(2, STEPS[:1]), pytest.param(4, STEPS, marks=pytest.mark.long)]
)
def test_rotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, steps: tuple[Step, ...]
) -> None:
    """Both procedures, all VMs in the same second: each SA is moved, and nothing is in clear."""
    with network(tmp_path, count, "ro") as nodes:
        configure(nodes, OLD, FIRST)
        start(nodes)
        for (_, node), (peer, _) in itertools.combinations(zip(ALL, nodes, strict=False), 2):
            first_answer(node, peer)
        for node in nodes:
            until(partial(moved, node, count - 1), f"{node.name} is at rest", 60 + 60 * SCALE)
        rows = []
        for name, leaf, cas in steps:
            with Capture(hub_of(nodes)) as capture, floods(nodes) as ended:
                configure(nodes, leaf, *cas)
                reload(nodes)
                for node in nodes:
                    until(
                        partial(moved, node, count - 1),
                        lambda: str(nodes[0].status()),
                        120 + 30 * SCALE,
                    )
                flows = ended()
                end(capture, nodes[0].name, A, B)
            clear = sum(
                capture.between(*pair, Kind.CLEAR) for pair in itertools.combinations(ALL, 2)
            )
            rows.append((name, [f.sent for f in flows], [f.lost for f in flows], clear))
        with capsys.disabled():
            for name, sent, lost, clear in rows:
                print(f"\n{name:16} {sent} sent, {lost} lost, {clear} in clear", end="")  # noqa: T201 - it is to be shown
        assert all(clear == 0 for *_, clear in rows)
        # A peer that has answered sends on the new SA at once, while the VM that asked installs it
        # when the answer has come: what is sent in between is lost (strongSwan, child_create.c).
        assert all(one <= RATE * SCALE / 4 for _, _, lost, _ in rows for one in lost), rows
