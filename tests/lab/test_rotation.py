"""Certificates and CAs are rotated by `reload`, in a mesh of four under flood."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from msgspec import Struct

from ipsec_agent.errors import ControlError
from ipsec_agent.host.control_client import ask
from tests.certificates import Issued, ec_key, make_ca, make_leaf
from tests.charon.nodes import SCALE, Node, network, until
from tests.lab.deployment import A, B, C, hub_of, start
from tests.lab.floods import flood
from tests.lab.frames import Kind
from tests.lab.judge import end
from tests.lab.namespaces import inside
from tests.lab.traffic import first_answer
from tests.lab.wire import Capture
from tests.manifests import manifest

# Each step takes a minute and a half, on a busy machine twice as long.
pytestmark = [pytest.mark.esp, pytest.mark.timeout(900)]

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
    peers = [peer for peer in status.get("peers", []) if peer["child_sas"]]
    return (
        len(peers) == others
        and not status["rotation"]["behind"]
        and all(
            peer["child_sas"] == peer["ike_sas"] == 1 and peer["certificate_state"] == "current"
            for peer in peers
        )
    )


def all_moved(nodes: Sequence[Node], others: int) -> None:
    """Wait until that is so on each of them."""
    for node in nodes:
        until(partial(moved, node, others), partial(_told, node), 120 + 30 * SCALE)


def _told(node: Node) -> str:
    return f"{node.name} is not moved: {node.status()}"


@contextlib.contextmanager
def mesh(directory: Path, count: int, leaf: Issued, *cas: Issued) -> Iterator[list[Node]]:
    """So many VMs, each with an SA with each other one."""
    with network(directory, count, "ro") as nodes:
        configure(nodes, leaf, *cas)
        start(nodes)
        for (_, node), (peer, _) in itertools.combinations(zip(ALL, nodes, strict=False), 2):
            first_answer(node, peer)
        all_moved(nodes, count - 1)
        yield nodes


FLOODS = {
    2: (("udp", 0, 1), ("udp", 1, 0), ("tcp", 1, 0)),
    4: (("udp", 0, 1), ("udp", 3, 2), ("tcp", 2, 0)),
}
"""By the number of VMs: the protocol, and from whom to whom. Each is two programs, which a slow
guest has to run beside charons and agents."""


class Row(Struct, frozen=True):
    """What came of a step.

    Attributes:
        pause: the longest one of any flood, seconds.
        why: what the kernels' IPsec dropped meanwhile, by VM and counter (/proc/net/xfrm_stat); a
            loss without any of it is of something else.
    """

    name: str
    sent: int
    lost: int
    clear: int
    pause: float
    why: dict[str, int]


def drops(nodes: Sequence[Node]) -> Counter[str]:
    """What the kernel of each VM has dropped so far."""
    found = Counter[str]()
    for number, node in enumerate(nodes, 1):
        with inside(node.name):
            words = Path("/proc/thread-self/net/xfrm_stat").read_text().split()
        for name, count in zip(words[::2], words[1::2], strict=True):
            found[f"VM {number} {name}"] = int(count)
    return found


class Rotation:
    """Floods among VMs under a capture, and what came of it after each step."""

    def __init__(self, nodes: Sequence[Node], capsys: pytest.CaptureFixture[str]) -> None:
        self.nodes = nodes
        self.capsys = capsys
        self.rows: list[Row] = []

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What is done within is done under flood."""
        pairs = tuple(itertools.combinations(ALL[: len(self.nodes)], 2))
        before = drops(self.nodes)
        with (
            Capture(hub_of(self.nodes), pairs=pairs) as capture,
            contextlib.ExitStack() as stack,
        ):
            running = [
                stack.enter_context(
                    flood(
                        self.nodes[one].name,
                        self.nodes[other].name,
                        ALL[other],
                        protocol=protocol,
                        rate=RATE,
                        seconds=600,
                    )
                )
                for protocol, one, other in FLOODS[len(self.nodes)]
            ]
            yield
            flows = [one.end() for one in running]
            end(capture, self.nodes[0].name, A, B)
        assert all(flow.sent > RATE for flow in flows), f"{name}: too little was sent to judge"
        for one, other in pairs[:1]:
            assert capture.between(one, other, Kind.ESP) >= RATE, "too little ESP to judge"
        row = Row(
            name,
            sum(flow.sent for flow in flows),
            sum(flow.lost for flow in flows),
            sum(capture.between(*pair, Kind.CLEAR) for pair in pairs),
            max(flow.longest_pause for flow in flows),
            dict(drops(self.nodes) - before),
        )
        self.rows.append(row)
        figures = f"{row.sent} sent, {row.lost} lost, {row.clear} in clear"
        figures += f", dropped by IPsec: {row.why}" if row.why else ""
        with self.capsys.disabled():
            print(f"\n{row.name:18} {figures}, longest pause {row.pause:.2f} s", end="", flush=True)  # noqa: T201 - it is to be shown

    def judge(self) -> None:
        """Nothing was lost, and nothing was in clear."""
        assert all(row.clear == 0 for row in self.rows), self.rows
        assert all(row.lost == 0 for row in self.rows), self.rows


Step = tuple[str, Issued, tuple[Issued, ...]]

FORWARD: tuple[Step, ...] = (
    ("1: certificate", NEXT, (FIRST,)),
    ("2: CA added", NEXT, (FIRST, SECOND)),
    ("2: certificate", LAST, (FIRST, SECOND)),
    ("2: CA removed", LAST, (SECOND,)),
)
BACK: tuple[Step, ...] = (
    ("back: CA added", LAST, (SECOND, FIRST)),
    ("back: certificate", OLD, (SECOND, FIRST)),
    ("back: CA removed", OLD, (FIRST,)),
)


@pytest.mark.parametrize(
    ("count", "before", "steps"),
    [
        pytest.param(2, (OLD, FIRST), FORWARD[:1], marks=pytest.mark.long, id="pair"),
        pytest.param(4, (OLD, FIRST), FORWARD[:1], marks=pytest.mark.long, id="mesh"),
        pytest.param(4, (NEXT, FIRST), FORWARD[1:], marks=pytest.mark.long, id="mesh, the CA"),
        pytest.param(4, (LAST, SECOND), BACK, marks=pytest.mark.long, id="mesh, the way back"),
    ],
)
def test_rotation(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    count: int,
    before: tuple[Issued, Issued],
    steps: tuple[Step, ...],
) -> None:
    """Both procedures, all VMs in the same second: each SA is moved, nothing is lost or clear."""
    with mesh(tmp_path, count, *before) as nodes:
        rotation = Rotation(nodes, capsys)
        for name, leaf, cas in steps:
            with rotation.step(name):
                configure(nodes, leaf, *cas)
                reload(nodes)
                all_moved(nodes, count - 1)
        rotation.judge()


@pytest.mark.long
def test_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VMs that reload one by one, as BOSH deploys: who is not told yet answers as ever."""
    with mesh(tmp_path, len(ALL), OLD, FIRST) as nodes:
        rotation = Rotation(nodes, capsys)
        for number, node in enumerate(nodes, 1):
            with rotation.step(f"VM {number}"):
                configure([node], NEXT, FIRST)
                reload([node])
                all_moved([node], len(nodes) - 1)
        all_moved(nodes, len(nodes) - 1)
        rotation.judge()


@pytest.mark.long
def test_a_certificate_that_the_peers_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One VM has a certificate of a CA that the others do not know: it is told so, and does not
    take it. By force it does; its SAs stay, and it says so.

    With the file of before all is as it was, and nothing was lost meanwhile.
    """
    with mesh(tmp_path, len(ALL), OLD, FIRST) as nodes:
        hasty, rotation = nodes[0], Rotation(nodes, capsys)
        socket = str(hasty.run_dir / "control.sock")
        before = {peer["address"]: peer["child_sas"] for peer in hasty.status()["peers"]}

        def refused() -> bool:
            found = hasty.status()
            return found["rotation"]["behind"] == len(before) and any(
                peer["problem"] for peer in found["peers"]
            )

        with rotation.step("asked before"):
            configure([hasty], LAST, FIRST, SECOND)
            found = ask(socket, "rehearse", deadline=60 * SCALE)
            said = {one["address"]: (one["answer"], one["reason"]) for one in found["peers"]}
            assert said == dict.fromkeys(before, ("refused", "peer-refuses-us"))
            with pytest.raises(ControlError, match="would cut peers off: 3 of 3 peers"):
                ask(socket, "reload", deadline=60 * SCALE)
            status = hasty.status()
            assert "reload-refused" in {problem["code"] for problem in status["problems"]}
            assert {peer["certificate_state"] for peer in status["peers"]} == {"current"}
            assert not any(peer["problem"] for node in nodes for peer in node.status()["peers"])
        with rotation.step("refused"):
            ask(socket, "reload", deadline=60 * SCALE, force=True)
            until(refused, lambda: str(hasty.status()), 60 + 20 * SCALE)
            status = hasty.status()
            assert "certificate-old" in {problem["code"] for problem in status["problems"]}
            assert {peer["address"]: peer["child_sas"] for peer in status["peers"]} == before
            assert {peer["certificate_state"] for peer in status["peers"]} == {"old"}
        with rotation.step("taken back"):
            configure([hasty], OLD, FIRST)
            reload([hasty])
            all_moved(nodes, len(before))
        rotation.judge()
