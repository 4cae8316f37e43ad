"""Reloads of a running agent that come together."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ipsec_agent import agent
from ipsec_agent import candidate as candidates
from ipsec_agent.config_file import Loaded, load
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.errors import ConfigError, ControlError
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


async def test_the_pass_that_takes_a_config_tells_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may end before charon has opened its log again: the refusal before is gone by then."""
    path = tmp_path / "ipsec.yml"
    where = {"state_dir": str(tmp_path)}
    path.write_text(manifest(ipsec=["10.1.0.0/24"], leaf=LEAF, cas=[CA], agent=where))
    told = list[str]()

    async def candidate(*_words: object, **_more: object) -> tuple[Loaded, EssentialAddresses]:
        return load(path), EssentialAddresses()

    async def refuse(*_words: object, **_more: object) -> None:
        if not told:
            raise ConfigError("a peer refuses it")

    async def reopen_log() -> None:
        tell()

    def tell() -> None:
        state = started._loop.reporter.config_state
        assert state is not None
        told.append(state.reload_refused)

    monkeypatch.setattr(agent, "candidate", candidate)
    monkeypatch.setattr(agent, "refuse_refused", refuse)
    machine: Any = SimpleNamespace(
        rehearsals=None, reopen_log=reopen_log, adopt=lambda _config: None
    )
    started = agent.Agent(path, load(path), machine, EssentialAddresses(), force=False)
    with pytest.raises(ConfigError):
        await started._take_config()
    tell()

    await started._take_config()

    assert told == ["a peer refuses it", ""]


async def test_the_loop_goes_on_while_a_config_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child reads it, and a thread waits for the child: links and guard are looked after."""
    reading, goes_on = asyncio.Event(), threading.Event()
    loop, asked = asyncio.get_running_loop(), dict[str, object]()

    def read(_path: Path, **more: object) -> Loaded:
        asked.update(more)
        loop.call_soon_threadsafe(reading.set)
        goes_on.wait(10)
        raise ConfigError("refused")

    monkeypatch.setattr(candidates, "load", read)
    machine: Any = SimpleNamespace()
    work = candidates.candidate(tmp_path / "f", machine, machine, None, force=False)
    task = asyncio.create_task(work)
    await asyncio.wait_for(reading.wait(), 10)
    goes_on.set()
    with pytest.raises(ConfigError, match="refused"):
        await task

    assert asked["apart"] is True


async def test_a_guard_that_the_config_in_force_does_not_want(tmp_path: Path) -> None:
    """Who asks for it is told so, and not that it could not be loaded."""
    path, where = tmp_path / "ipsec.yml", {"state_dir": str(tmp_path), "guard": "none"}
    path.write_text(manifest(leaf=LEAF, cas=[CA], agent=where))
    machine: Any = SimpleNamespace()
    started = agent.Agent(path, load(path), machine, EssentialAddresses(), force=False)

    with pytest.raises(ControlError, match="config in force says") as refused:
        await started._guard_up({"force": True})
    assert "ipsec-agent reload" in refused.value.hint
