"""The key that charon has for rehearsals: for as long as one of them runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent.host import rehearsals
from ipsec_agent.host.rehearsals import Rehearsals
from tests.configs import config


class Charon:
    """One that has keys."""

    def __init__(self) -> None:
        self.have: set[str] = set()

    async def keys(self) -> tuple[str, ...]:
        """Their ids."""
        await asyncio.sleep(0)
        return tuple(self.have)

    async def load_key(self, given: Any) -> None:
        """Take one."""
        self.have.add(given.key_id)

    async def unload_key(self, key: str) -> None:
        """Forget one."""
        self.have.discard(key)


@pytest.fixture
def charon(monkeypatch: pytest.MonkeyPatch) -> Charon:
    """What answers instead of charon."""
    made = Charon()

    @contextlib.asynccontextmanager
    async def opened(_path: Path, _deadline: float) -> AsyncIterator[Charon]:
        yield made

    monkeypatch.setattr(rehearsals, "open_charon", opened)
    return made


async def test_two_at_once(charon: Charon) -> None:
    """A dry run while another reload is rehearsed: the first one to end takes nothing away."""
    asked, given = Rehearsals(Path("vici"), 1.0), config().credentials
    async with asked.using(given):
        async with asked.using(given):
            assert asked.without(charon.have) == ()
        assert charon.have == {given.key_id}
        assert asked.without(charon.have) == ()
    assert charon.have == set()


async def test_a_key_in_force(charon: Charon) -> None:
    """It is the agent's own, and stays."""
    asked, given = Rehearsals(Path("vici"), 1.0), config().credentials
    charon.have = {given.key_id}
    async with asked.using(given):
        assert asked.without(charon.have) == (given.key_id,)
    assert charon.have == {given.key_id}
