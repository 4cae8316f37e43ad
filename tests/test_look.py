"""What a question is answered from: a look of its own, shared; else the last one, with its age."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from ipsec_agent import reconcile
from ipsec_agent.core.status import Snapshot, document
from ipsec_agent.errors import CharonRefusedError
from ipsec_agent.reconcile import Look, Reconciler
from tests.configs import config
from tests.fakes import FakeMachine, network
from tests.test_reconcile import lose_guard

SOON = 5.0
"""Seconds within which whatever is awaited must come."""


class Slow(FakeMachine):
    """Each look waits, once it has begun, until it may go on."""

    def __init__(self) -> None:
        super().__init__(network("10.0.0.5"))
        self.looks = 0
        self.looking = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def before_answer(self) -> None:
        self.looks += 1
        self.looking.set()
        await self.may_go_on.wait()


@contextlib.asynccontextmanager
async def running(machine: FakeMachine) -> AsyncIterator[Reconciler]:
    """A loop that has nothing to do any more, and no event for a long time."""
    loop = Reconciler(machine, config(), lambda _: None)
    task = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(SOON):
            await loop.passed()
            yield loop
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_config_is_in_force_after_the_pass_that_takes_it() -> None:
    """Also for who asks when that has ended: nobody waits for another one."""
    async with running(Slow()) as loop:
        before = await loop.passed()
        loop.adopt(config(("192.0.2.0/24",)))
        async with asyncio.timeout(SOON):
            async with loop._change:
                await loop._change.wait_for(lambda: loop.snapshot is not before)

            await loop.in_force()

        assert loop.snapshot is not None
        assert loop.snapshot.passes == before.passes + 1


async def test_a_pass_under_way_takes_no_new_config() -> None:
    """It may have decided already: who asks waits for the next one."""
    machine = Slow()
    async with running(machine) as loop:
        before = await loop.passed()
        machine.looking.clear()
        machine.may_go_on.clear()
        loop.heard()
        async with asyncio.timeout(SOON):
            await machine.looking.wait()
            loop.adopt(config(("192.0.2.0/24",)))
            machine.may_go_on.set()

            await loop.in_force()

        assert loop.snapshot is not None
        assert loop.snapshot.passes == before.passes + 2


def passes(look: Look) -> int:
    """The number of the pass."""
    assert look.snapshot is not None
    return look.snapshot.passes


async def test_one_look_for_all_who_wait() -> None:
    """It began after they asked, keeps nothing that changes without an event, and is the next."""
    machine = FakeMachine(network("10.0.0.5"))
    async with running(machine) as loop:
        before = await loop.passed()
        looks = await asyncio.gather(*(loop.look() for _ in range(20)))

    assert [(passes(look), look.age) for look in looks] == [(before.passes + 1, 0.0)] * 20
    assert machine.outdated == 20


async def test_a_look_that_is_under_way_does_not_count() -> None:
    """It may have read before the question what the question is about."""
    machine = Slow()
    async with running(machine) as loop:
        before = await loop.passed()
        machine.may_go_on.clear()
        machine.looking.clear()
        loop.heard()
        await machine.looking.wait()
        question = asyncio.create_task(loop.look())
        await asyncio.sleep(0.02)
        machine.may_go_on.set()
        look = await question

    assert (passes(look), look.age) == (before.passes + 2, 0.0)


async def test_whoever_waits_too_long_is_told_the_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """A charon that hangs, say: the last look, as old as it was at the question."""
    monkeypatch.setattr(reconcile, "LOOK_WAIT", 0.1)
    machine = Slow()
    async with running(machine) as loop:
        before = await loop.passed()
        machine.may_go_on.clear()
        await asyncio.sleep(0.3)
        look = await loop.look()
        machine.may_go_on.set()

        assert passes(look) == before.passes
        assert 0.3 <= look.age < 0.4 * SOON
        assert look.snapshot is not None
        assert document(look.snapshot, look.age)["age"] >= 0.3
        monkeypatch.undo()
        assert (await loop.look()).age == 0


async def test_a_look_that_is_young_enough() -> None:
    """A supervisor's probe costs none of its own; an older one does."""
    machine = Slow()
    async with running(machine) as loop:
        before = await loop.passed()
        looks = machine.looks
        assert passes(await loop.look(within=SOON)) == before.passes
        assert machine.looks == looks
        assert passes(await loop.look(within=0.0001)) == before.passes + 1


async def test_before_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known, and nobody waits for ever."""
    monkeypatch.setattr(reconcile, "LOOK_WAIT", 0.05)
    loop = Reconciler(FakeMachine(network("10.0.0.5")), config(), lambda _: None)

    assert await loop.look(within=SOON) == Look(None)


class Refusing(FakeMachine):
    """Never takes a key; counts how often it was asked to."""

    def __init__(self) -> None:
        super().__init__(network("10.0.0.5"))
        self.tried = 0

    def _call(self, name: str) -> None:
        super()._call(name)
        if name == "key":
            self.tried += 1
            raise CharonRefusedError("no key today")


def complaints(snapshot: Snapshot | None) -> list[str]:
    """What failed."""
    assert snapshot is not None
    return [problem.message for problem in snapshot.problems if problem.code == "failed"]


async def test_questions_do_not_hurry_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is still said, and what else is broken is repaired; an event has it tried again."""
    monkeypatch.setattr(reconcile, "RETRY_FIRST", SOON)
    monkeypatch.setattr(reconcile, "RETRY_MOST", SOON)
    machine = Refusing()
    async with running(machine) as loop:
        await loop.passed()
        tried = machine.tried
        lose_guard(machine)
        for _ in range(3):
            assert complaints((await loop.look()).snapshot) == ["no key today"]
        assert machine.tried == tried
        assert machine.table is not None

        # One that comes with a question is none the less one.
        loop.heard()
        await loop.look()
        assert machine.tried == tried + 1
        question = asyncio.create_task(loop.look())
        await asyncio.sleep(0)
        loop.heard()
        await question
        assert machine.tried == tried + 2


async def test_questions_do_not_put_off_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who asks all the time must not keep the agent from it."""
    monkeypatch.setattr(reconcile, "RETRY_FIRST", 0.3)
    monkeypatch.setattr(reconcile, "RETRY_MOST", 0.3)
    machine = Refusing()
    async with running(machine) as loop:
        await loop.passed()
        tried = machine.tried
        while machine.tried < tried + 2:
            await loop.look()


class Clock:
    """The loop's clock, which the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


async def asked(loop: Reconciler, questions: int) -> None:
    """A pass that only questions have woken, or none but the clock has."""
    await asyncio.gather(*(loop.look() for _ in range(questions)), loop.one_pass())


@pytest.mark.parametrize("questions", [1, 2])
async def test_when_is_tried_again_what_failed(
    monkeypatch: pytest.MonkeyPatch, questions: int
) -> None:
    """However many ask and how often: after twice the time at each failure, 30 s at the most."""
    clock = Clock()
    monkeypatch.setattr(reconcile, "_now", clock)
    machine = Refusing()
    loop = Reconciler(machine, config(), lambda _: None)
    tried = []
    for second in (0, 0.5, 0.9, 1.1, 2, 2.9, 3.2, 7, 7.3, 15, 15.4, 31, 31.5, 61, 61.6):
        clock.now = 1000 + second
        before = machine.tried
        await asked(loop, questions if second else 0)
        if machine.tried > before:
            tried.append(second)

    assert tried == [0, 1.1, 3.2, 7.3, 15.4, 31.5, 61.6]


async def test_a_success_has_the_next_failure_tried_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed long ago and often says nothing of what fails now."""
    clock = Clock()
    monkeypatch.setattr(reconcile, "_now", clock)
    machine = Refusing()
    loop = Reconciler(machine, config(), lambda _: None)
    for _ in range(4):
        await loop.one_pass()
    monkeypatch.setattr(machine, "_call", FakeMachine(machine.facts)._call)
    await loop.one_pass()
    monkeypatch.undo()
    monkeypatch.setattr(reconcile, "_now", clock)
    machine.held.clear()
    await loop.one_pass()
    tried = machine.tried

    clock.now += 0.9
    await asked(loop, 1)
    assert machine.tried == tried
    clock.now += 0.2
    await asked(loop, 1)
    assert machine.tried == tried + 1


async def test_a_question_is_about_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one, which the clock or an event begins, tries again what failed."""
    clock = Clock()
    monkeypatch.setattr(reconcile, "_now", clock)
    machine = Refusing()
    loop = Reconciler(machine, config(), lambda _: None)
    await loop.one_pass()
    tried = machine.tried

    clock.now += 0.1
    await asked(loop, 1)
    assert machine.tried == tried
    await loop.one_pass()
    assert machine.tried > tried
