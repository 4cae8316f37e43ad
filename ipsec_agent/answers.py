"""What the agent answers of its state: the status, and the metrics, also over HTTP."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ipsec_agent.core.config import Endpoint
from ipsec_agent.core.metrics import Family, families
from ipsec_agent.core.problems.metrics import not_served
from ipsec_agent.core.problems.problem import Problem
from ipsec_agent.core.status import Snapshot, document
from ipsec_agent.errors import ControlError
from ipsec_agent.host.control import Verb
from ipsec_agent.reconcile import Reconciler

STARTING = {"schema": 1, "state": "starting", "healthy": False, "problems": []}
"""The status before the first look has ended."""

OPENMETRICS = "application/openmetrics-text"


class Answers:
    """Answers from the loop's looks.

    Args:
        path: of the config.
        complete: adds to a look what is known beside it.
    """

    def __init__(
        self,
        loop: Reconciler,
        path: Path,
        complete: Callable[[Snapshot], Snapshot] = lambda seen: seen,
    ) -> None:
        self._loop = loop
        self._path = path
        # A reload does not move it.
        self._socket = f"{loop.config.agent.run_dir}/control.sock"
        self._complete = complete
        self._kept: tuple[Snapshot | None, dict[tuple[bool, bool], tuple[str, str]]] = None, {}

    @property
    def verbs(self) -> dict[str, Verb]:
        """What the control socket answers with, open to all who may connect."""
        return {"status": self.status, "metrics": self.metrics}

    async def status(self, _request: dict[str, Any]) -> dict[str, Any]:
        """The document of now."""
        look = await self._loop.look()
        return {"status": self._document(look.snapshot, look.age)}

    async def metrics(self, request: dict[str, Any]) -> dict[str, Any]:
        """The metrics of a look that is at most `interval` old."""
        accept = "" if request.get("format") == "text" else OPENMETRICS
        text, _ = await self._page(accept, bool(request.get("peers")))
        return {"metrics": text}

    async def serve(self) -> None:
        """Serve the metrics where the config says, until cancelled.

        Where that fails, it is a problem, and tried again each `interval`.
        """
        while True:
            endpoint = self._loop.config.agent.metrics
            if endpoint is None:
                self._tell(())
                await self._interval()
                continue
            try:
                await self._serve(endpoint)
            except ControlError as error:
                self._tell((not_served(endpoint, error.message),))
                await self._interval()

    async def _serve(self, endpoint: Endpoint) -> None:
        server = import_module("ipsec_agent.host.metrics_http")
        async with server.serve_metrics(endpoint, self._page):
            self._tell(())
            while self._loop.config.agent.metrics == endpoint:
                await self._interval()

    async def _interval(self) -> None:
        await asyncio.sleep(self._loop.config.agent.interval)

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        reporter = self._loop.reporter
        if problems != reporter.of_metrics:
            reporter.of_metrics = problems
            self._loop.wake.set()

    async def _page(self, accept: str, peers: bool) -> tuple[str, str]:
        """Text and content type; made once for each look, however often somebody asks."""
        look = await self._loop.look(within=self._loop.config.agent.interval)
        if self._kept[0] is not look.snapshot:
            self._kept = look.snapshot, {}
        kept, key = self._kept[1], (OPENMETRICS in accept, peers)
        if key not in kept:
            found = families(self._document(look.snapshot, look.age), peers=peers)
            # Nobody waits meanwhile: the library's import takes a while, and so do 1,000 peers.
            kept[key] = await asyncio.to_thread(_rendered, found, openmetrics=key[0])
        return kept[key]

    def _document(self, snapshot: Snapshot | None, age: float) -> dict[str, Any]:
        if snapshot is None:
            return dict(STARTING)
        return document(self._complete(snapshot), age, str(self._path.absolute()), self._socket)


def _rendered(found: tuple[Family, ...], *, openmetrics: bool) -> tuple[str, str]:
    text: tuple[str, str] = import_module("ipsec_agent.host.openmetrics").render(
        found, openmetrics=openmetrics, process=True
    )
    return text
