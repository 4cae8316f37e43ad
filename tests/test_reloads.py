"""Reloads of a running agent that come together."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ipsec_agent import agent
from ipsec_agent.config_file import Loaded, load
from ipsec_agent.core.essential_addresses import EssentialAddresses
from tests.certificates import ec_key, make_ca, make_leaf
from tests.manifests import manifest

CA = make_ca(key=ec_key(1))
LEAF = make_leaf(CA, key=ec_key(2))


async def test_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newer config stays in force, however long the reload before it takes."""
    path = tmp_path / "ipsec.yml"

    def write(subnet: str) -> Loaded:
        where = {"state_dir": str(tmp_path)}
        path.write_text(manifest(ipsec=[subnet], leaf=LEAF, cas=[CA], agent=where))
        return load(path)

    first_has_read, first_goes_on = asyncio.Event(), asyncio.Event()

    async def candidate(*_words: object, **_more: object) -> tuple[Loaded, EssentialAddresses]:
        found = load(path)
        if not first_has_read.is_set():
            first_has_read.set()
            await first_goes_on.wait()
        return found, EssentialAddresses()

    async def nothing(*_words: object, **_more: object) -> None:
        pass

    monkeypatch.setattr(agent, "candidate", candidate)
    monkeypatch.setattr(agent, "refuse_refused", nothing)
    machine: Any = SimpleNamespace(rehearsals=None, reopen_log=nothing, adopt=lambda _config: None)
    started = agent.Agent(path, write("10.1.0.0/24"), machine, EssentialAddresses(), force=False)

    write("10.2.0.0/24")
    first = asyncio.create_task(started._take_config())
    await first_has_read.wait()
    newest = write("10.3.0.0/24")
    second = asyncio.create_task(started._take_config())
    for _ in range(20):
        await asyncio.sleep(0)
    first_goes_on.set()
    await asyncio.gather(first, second)

    assert started._loop.config == newest.config
