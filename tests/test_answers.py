"""The agent's answers: the metrics by the control socket and HTTP, and where they are refused."""

import asyncio
import contextlib
import socket
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent import answers
from ipsec_agent.answers import Answers
from ipsec_agent.core.config import AgentConfig, Config, Endpoint
from ipsec_agent.core.metrics import families
from ipsec_agent.reconcile import Reconciler
from tests.configs import config
from tests.exposition import from_openmetrics
from tests.fakes import FakeMachine, network
from tests.loopback import LOOPBACK

SOON = 20.0
"""Seconds within which whatever is awaited must come."""

PATH = Path("/etc/ipsec-agent/ipsec.yml")


def served_on(endpoint: Endpoint | None) -> Config:
    """A config with this address of the metrics."""
    return replace(config(), agent=AgentConfig(metrics=endpoint, interval=0.05))


@contextlib.asynccontextmanager
async def running(settings: Config) -> AsyncIterator[tuple[Reconciler, Answers]]:
    """A loop over a machine made of dicts, and its answers, served."""
    loop = Reconciler(FakeMachine(network("10.0.0.5")), settings, lambda _: None)
    found = Answers(loop, PATH)
    tasks = [asyncio.create_task(loop.run()), asyncio.create_task(found.serve())]
    try:
        async with asyncio.timeout(SOON):
            await loop.passed()
            yield loop, found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def listener() -> socket.socket:
    """Somebody else, who listens."""
    return socket.create_server((str(LOOPBACK), 0))


def endpoint_of(made: socket.socket) -> Endpoint:
    """Where he listens."""
    return Endpoint(LOOPBACK, made.getsockname()[1])


def fetched(endpoint: Endpoint, query: str = "", accept: str = "") -> tuple[str, str]:
    """Content type and text."""
    request = urllib.request.Request(
        f"http://{endpoint}/metrics{query}", headers={"Accept": accept}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it; the caller has a deadline."""
    while not condition():  # noqa: ASYNC110 - what is awaited is another's attribute
        await asyncio.sleep(0.02)


def told(loop: Reconciler) -> dict[str, str]:
    """Code and message of each problem in the newest status."""
    return {one.code: one.message for one in loop.snapshot.problems} if loop.snapshot else {}


async def test_the_verb() -> None:
    """OpenMetrics by itself; the older format where it is asked for; peers only on demand."""
    async with running(served_on(None)) as (_, found):
        text = (await found.metrics({}))["metrics"]
        older = (await found.metrics({"format": "text"}))["metrics"]
        each = (await found.metrics({"peers": True}))["metrics"]

    read = {family.name: family for family in from_openmetrics(text)}
    assert read["ipsec_agent_up"].samples[0].value == 1
    assert "ipsec_agent_process_cpu_seconds" in read
    assert "# EOF" not in older
    assert "ipsec_agent_peer_state" in each
    assert "ipsec_agent_peer_state" not in text


async def test_over_http() -> None:
    """In the format that the caller knows."""
    with listener() as other:
        endpoint = endpoint_of(other)
    async with running(served_on(endpoint)) as (loop, _):
        await until(lambda: reached(endpoint))
        plain = await asyncio.to_thread(fetched, endpoint)
        rich = await asyncio.to_thread(
            fetched, endpoint, "?peers", "application/openmetrics-text;version=1.0.0,text/plain"
        )
        assert "metrics-not-served" not in told(loop)

    assert plain[0].startswith("text/plain; version=0.0.4")
    assert rich[0].startswith("application/openmetrics-text; version=")
    assert rich[1].endswith("# EOF\n")
    assert "ipsec_agent_peer_state" in rich[1]


def reached(endpoint: Endpoint) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as channel:
        return channel.connect_ex((str(endpoint.address), endpoint.port)) == 0


async def test_a_port_that_is_taken_is_a_problem() -> None:
    """The status says why, the VM stays healthy, and the problem ends when the port is free."""
    with listener() as other:
        endpoint = endpoint_of(other)
        async with running(served_on(endpoint)) as (loop, _):
            await until(lambda: "metrics-not-served" in told(loop))
            assert str(endpoint) in told(loop)["metrics-not-served"]
            assert loop.snapshot is not None
            assert loop.snapshot.healthy
            other.close()
            await until(lambda: "metrics-not-served" not in told(loop))
            assert (await asyncio.to_thread(fetched, endpoint))[1]


async def test_another_config_moves_them() -> None:
    """A reload opens the new address and closes the old one; without one nothing is served."""
    with listener() as one, listener() as two:
        first, second = endpoint_of(one), endpoint_of(two)
    async with running(served_on(first)) as (loop, _):
        await until(lambda: reached(first))
        loop.adopt(served_on(second), loop.essential)
        await until(lambda: reached(second))
        assert not reached(first)
        loop.adopt(served_on(None), loop.essential)
        await until(lambda: not reached(second))


async def test_made_once_for_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often somebody asks, the text of one look is made once in each form."""
    made: list[bool] = []

    def counted(status: dict[str, object], *, peers: bool) -> object:
        made.append(peers)
        return families(status, peers=peers)

    monkeypatch.setattr(answers, "families", counted)
    settings = replace(config(), agent=AgentConfig(interval=300))
    async with running(settings) as (_, found):
        first = [await found.metrics({}) for _ in range(5)]
        await found.metrics({"peers": True})

    assert made == [False, True]
    assert first[0] == first[4]
