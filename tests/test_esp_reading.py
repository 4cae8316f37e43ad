"""Trials of ESP: seldom while all is well, soon again while not; no pass waits for a slow one."""

import asyncio
import errno
import threading
import time
from ipaddress import ip_address

import pytest

from ipsec_agent import esp_reading
from ipsec_agent.core.esp import DummySa, EspAbility, KernelEvidence, Trial, dummy_sas
from ipsec_agent.errors import KernelError
from ipsec_agent.esp_reading import EspReading
from tests.configs import config

WANTED = dummy_sas(config(), [ip_address("10.0.0.5")])
OTHER = dummy_sas(config(force_udp_encapsulation=True), [ip_address("10.0.0.5")])


class Kernel:
    """What is tried: how often, how it answers, and what a trial waits for."""

    def __init__(self) -> None:
        self.tried: list[tuple[DummySa, ...]] = []
        self.error = 0
        self.refuses = False
        self.no_xfrm = False
        self.hangs: threading.Event | None = None

    def trial(self, wanted: tuple[DummySa, ...]) -> EspAbility:
        """Try them."""
        self.tried.append(wanted)
        if self.hangs is not None:
            self.hangs.wait(20)
        if self.refuses:
            raise KernelError("adding an SA is not permitted")
        if self.no_xfrm:
            return EspAbility(evidence=KernelEvidence(), no_xfrm=True)
        trials = tuple(Trial(sa, self.error) for sa in wanted)
        return EspAbility(trials, KernelEvidence() if self.error else None)


@pytest.fixture
def kernel() -> Kernel:
    """One that can do ESP, until a test changes it."""
    return Kernel()


def reading(kernel: Kernel, bad_lasts: float = 60) -> EspReading:
    """A reading of it."""
    return EspReading(kernel.trial, lambda: bad_lasts)


async def test_success_enforced(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trial for many passes, until it is old."""
    esp = reading(kernel, bad_lasts=0)
    for _ in range(5):
        assert (await esp.get(WANTED)).failed == ()
    assert len(kernel.tried) == 1

    monkeypatch.setattr(esp_reading, "GOOD_LASTS", 0.0)
    await esp.get(WANTED)

    assert len(kernel.tried) == 2


async def test_no_interface_for_sas_is_tried_again(kernel: Kernel) -> None:
    """As a failed trial is: it ends within seconds once it is there."""
    esp = reading(kernel, bad_lasts=0)
    kernel.no_xfrm = True
    assert (await esp.get(WANTED)).no_xfrm

    kernel.no_xfrm = False

    assert (await esp.get(WANTED)).good
    assert len(kernel.tried) == 2


async def test_success_stands_until_charon_is_refused(kernel: Kernel) -> None:
    """Then the next pass tries again, and sees that the module has gone."""
    esp = reading(kernel)
    await esp.get(WANTED)
    kernel.error = errno.EPROTONOSUPPORT

    esp.outdated()

    assert [trial.error for trial in (await esp.get(WANTED)).failed] == [errno.EPROTONOSUPPORT]


async def test_failure_is_tried_again(kernel: Kernel) -> None:
    """When it is due, and no sooner, whatever charon says; it is gone at once then."""
    kernel.error = errno.EPROTONOSUPPORT
    lasts = 60.0
    esp = EspReading(kernel.trial, lambda: lasts)
    for _ in range(5):
        assert (await esp.get(WANTED)).failed
        esp.outdated()
    assert len(kernel.tried) == 1

    kernel.error = 0
    lasts = 0.0

    assert (await esp.get(WANTED)).failed == ()
    assert len(kernel.tried) == 2


async def test_another_wish_is_tried(kernel: Kernel) -> None:
    """What is known of one config says nothing of the next."""
    esp = reading(kernel)
    await esp.get(WANTED)

    await esp.get(OTHER)

    assert kernel.tried == [WANTED, OTHER]


async def test_a_slow_trial_holds_no_pass_up(kernel: Kernel) -> None:
    """It is not known yet; when it is, the loop wakes; and no second trial has begun meanwhile."""
    kernel.hangs = threading.Event()
    esp, woken = reading(kernel), asyncio.Event()
    watching = asyncio.create_task(esp.watch(woken.set))
    began = time.monotonic()
    assert (await esp.get(WANTED)).pending
    assert (await esp.get(WANTED)).pending
    assert time.monotonic() - began < 5
    assert not woken.is_set()

    kernel.hangs.set()
    async with asyncio.timeout(5):
        await woken.wait()

    assert not (await esp.get(WANTED)).pending
    assert len(kernel.tried) == 1
    watching.cancel()


async def test_a_slow_trial_of_an_earlier_config(kernel: Kernel) -> None:
    """Its outcome is not taken for that of the config in force."""
    kernel.hangs = threading.Event()
    esp, woken = reading(kernel), asyncio.Event()
    watching = asyncio.create_task(esp.watch(woken.set))
    await esp.get(WANTED)
    assert (await esp.get(OTHER)).pending

    kernel.hangs.set()
    async with asyncio.timeout(5):
        await woken.wait()

    found = await esp.get(OTHER)
    assert [trial.sa for trial in found.trials] == list(OTHER)
    watching.cancel()


async def test_a_trial_that_cannot_be_made(kernel: Kernel) -> None:
    """It says why, and is made again when it is due."""
    kernel.refuses = True
    esp = reading(kernel, bad_lasts=0)
    for _ in range(2):
        with pytest.raises(KernelError, match="not permitted"):
            await esp.get(WANTED)
    assert len(kernel.tried) == 2

    kernel.refuses = False

    assert (await esp.get(WANTED)).failed == ()
