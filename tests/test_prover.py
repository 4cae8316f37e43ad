"""The proof in the background: whom it proves, when it rests, and that no pass waits for it."""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent import prover
from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.drain import Drain, Phase
from ipsec_agent.core.model import Address
from ipsec_agent.core.problems.problem import Problem
from ipsec_agent.core.proof import Observation, Pair, Window
from ipsec_agent.core.proving import Proof
from ipsec_agent.core.status import Snapshot, State
from ipsec_agent.errors import KernelError
from ipsec_agent.prover import Prover
from ipsec_agent.reconcile import Reconciler
from tests.configs import config
from tests.core.test_status import snapshot, states
from tests.fakes import FakeMachine, network
from tests.vm import NOW, OWN, PEER, healthy_vm, with_sa

SETTINGS = replace(config(), agent=AgentConfig(proof=10, interval=0.01))
VM = with_sa(healthy_vm(SETTINGS)).but(states=states(1, 1))
PROVEN = Window(esp_out=5, esp_in=5)


class Wire:
    """What comes back of what is sent to a peer, and who was sent something."""

    def __init__(self) -> None:
        self.sent: list[Address] = []
        self.sas = True
        self.answers = True
        self.error: KernelError | None = None
        self.closed: KernelError | OSError | None = None
        self.hangs = False
        self.gate = asyncio.Event()
        self.gate.set()

    @contextlib.contextmanager
    def open(self) -> Iterator["Wire"]:
        """The kernel's SAs."""
        if self.closed:
            raise self.closed
        yield self

    def list(self) -> None:
        """Learn of the SAs."""

    async def prove(
        self, pair: Pair, own: Address, sas: object, _said: object
    ) -> Observation | None:
        """What is seen of a peer."""
        assert (own, sas) == (OWN, self)
        if self.error:
            raise self.error
        if not self.sas:
            return None
        self.sent.append(pair.peer)
        answers = self.answers
        if self.hangs:
            await asyncio.sleep(3600)
        await self.gate.wait()
        seen = Observation(pair, sas=True, counted_out=5, proof=Window(esp_out=5))
        return replace(seen, counted_in=5, proof=PROVEN, knocked=True) if answers else seen


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """The kernel and the network are records; each gap is short."""
    made = Wire()
    monkeypatch.setattr(prover, "PeerSas", made.open)
    monkeypatch.setattr(prover, "prove", made.prove)
    monkeypatch.setattr(prover, "pace", lambda _seconds, _peers: (16, 0.02))
    return made


@contextlib.asynccontextmanager
async def running(seen: Snapshot | None = None) -> AsyncIterator[tuple[Reconciler, Prover]]:
    """A loop that has looked, without passes of its own, and its prover."""
    loop = Reconciler(FakeMachine(network("10.0.0.5")), SETTINGS, lambda _: None)
    loop.snapshot = seen or snapshot(VM)
    made = Prover(loop)
    task = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(20):
            yield loop, made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def told(loop: Reconciler) -> tuple[Problem, ...]:
    """The problems of now."""
    return loop.reporter.of_proof


def proved(made: Prover) -> tuple[Proof, ...]:
    """The proofs of now."""
    return made.proofs.peers


async def until(true: Any) -> None:
    """Wait, for 15 s at the most."""
    for _ in range(3000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(true)


async def test_a_peer_is_proved(wire: Wire) -> None:
    """Again and again; twice without an answer is a problem, an answer ends it."""
    async with running() as (loop, made):
        await until(lambda: made.proofs.peers)
        assert [(one.address, one.proven) for one in made.proofs.peers] == [(PEER, True)]
        assert told(loop) == ()

        wire.answers = False
        await until(lambda: told(loop))
        (problem,) = told(loop)
        assert problem.code == "proof-failed"
        assert "10.0.0.9" in problem.message

        wire.answers = True
        await until(lambda: not loop.reporter.of_proof)


async def test_without_an_sa_nothing_is_sent(wire: Wire) -> None:
    """Neither where the look has none, nor where it has ended since, of which nothing is said."""
    async with running(snapshot(VM.but(states=()))):
        await asyncio.sleep(0.1)
    assert wire.sent == []

    wire.sas = False
    async with running() as (_, made):
        await asyncio.sleep(0.1)
        assert made.proofs.peers == ()
    assert wire.sent == []


@pytest.mark.parametrize(
    "seen",
    [
        snapshot(VM.but(drain=Drain(7, 8, Phase.WAITING, NOW - 10, NOW + 20, ()))),
        replace(snapshot(VM), state=State.STARTING),
        replace(snapshot(VM), config=replace(SETTINGS, log_level=2)),
    ],
    ids=["drains", "starts", "another config than that of the look"],
)
async def test_rests(wire: Wire, seen: Snapshot) -> None:
    """While IPsec drains, before it is there, and until a pass has seen the config in force."""
    async with running(seen):
        await asyncio.sleep(0.1)
    assert wire.sent == []


async def test_a_reload_voids_what_is_under_way(wire: Wire) -> None:
    """A peer that is not heard because of it has not failed."""
    async with running() as (_, made):
        await until(lambda: made.proofs.peers)
        wire.answers = False
        with made.held():
            await asyncio.sleep(0.05)
            begun = len(wire.sent)
            await asyncio.sleep(0.1)
            assert len(wire.sent) == begun
        assert all(one.proven for one in made.proofs.peers)
        await until(lambda: any(one.failures for one in made.proofs.peers))


async def test_what_a_reload_has_crossed_is_not_noted(wire: Wire) -> None:
    """It was begun before, and its answer comes after."""
    wire.answers = False
    wire.gate.clear()
    async with running() as (_, made):
        await until(lambda: wire.sent)
        with made.held():
            wire.answers = True
        wire.gate.set()
        await until(lambda: made.proofs.peers)
        assert [one.proven for one in made.proofs.peers] == [True]


async def test_off(wire: Wire) -> None:
    """A reload without it ends it, with all that it told."""
    wire.answers = False
    async with running() as (loop, made):
        await until(lambda: loop.reporter.of_proof)
        loop.config = replace(SETTINGS, agent=replace(SETTINGS.agent, proof=0))
        await until(lambda: not loop.reporter.of_proof)
        assert made.proofs.peers == ()
        assert made.proofs.seconds == 0


async def test_it_ends_while_a_peer_hangs(wire: Wire) -> None:
    """And a pass does not wait for it."""
    wire.hangs = True
    async with running() as (loop, _):
        await until(lambda: wire.sent)
        async with asyncio.timeout(5):
            await loop.one_pass()


async def test_where_nothing_can_be_sent(wire: Wire) -> None:
    """That is said, and is no failure of a peer."""
    wire.error = KernelError("cannot read the SAs", hint="run as root")
    async with running() as (loop, made):
        await until(lambda: loop.reporter.of_proof)
        (problem,) = told(loop)
        assert "no peer can be proved: cannot read the SAs" in problem.message
        assert problem.hint == "run as root"
        assert made.proofs.peers == ()
        wire.error = None
        await until(lambda: proved(made) and not told(loop))


async def test_a_peer_without_an_sa_is_forgotten(wire: Wire) -> None:
    """What was seen of it says nothing any more."""
    wire.answers = False
    async with running() as (loop, made):
        await until(lambda: loop.reporter.of_proof)
        loop.snapshot = snapshot(VM.but(states=()))
        await until(lambda: not made.proofs.peers)
        assert loop.reporter.of_proof == ()


async def test_no_socket_for_the_kernel(wire: Wire) -> None:
    """It is told, ends nothing, and is over once there is one."""
    wire.closed = KernelError("cannot open a socket: too many open files", hint="raise the limit")
    async with running() as (loop, made):
        await until(lambda: told(loop))
        (problem,) = told(loop)
        assert "no peer can be proved: cannot open a socket" in problem.message
        wire.closed = None
        await until(lambda: proved(made) and not told(loop))


@pytest.mark.parametrize("where", ["socket", "batch"])
async def test_no_descriptor_is_left(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Whatever cannot be opened for a proof is told, and the agent goes on."""
    full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    with monkeypatch.context() as patched:
        if where == "socket":
            wire.closed = full
        else:
            patched.setattr(prover, "prove", failing(full))
        async with running() as (loop, made):
            await until(lambda: told(loop))
            (problem,) = told(loop)
            assert "no peer can be proved: Too many open files" in problem.message
            wire.closed = None
            patched.setattr(prover, "prove", wire.prove)
            await until(lambda: proved(made) and not told(loop))


def failing(error: OSError) -> Any:
    """What sees nothing of a peer."""

    async def prove(*_arguments: object) -> Observation:
        raise error

    return prove


async def test_a_peer_that_the_config_does_not_encrypt_any_more(wire: Wire) -> None:
    """The first look with the new config ends what was told of it; no round is waited for."""
    wire.answers = False
    async with running() as (loop, made):
        await until(lambda: loop.reporter.of_proof)
        loop.config = replace(
            SETTINGS, no_ipsec_subnets=config(no_ipsec=(f"{PEER}/32",)).no_ipsec_subnets
        )
        loop.wake.clear()
        made.follow(replace(snapshot(VM), config=loop.config))

        assert made.proofs.peers == ()
        assert loop.reporter.of_proof == ()
        assert loop.wake.is_set()
