"""A reload with another certificate asks peers first; `reload --dry-run` only asks."""

import asyncio
import contextlib
import time
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.admission import Told
from ipsec_agent.agent import IN_FORCE as IN_FORCE_WITHIN
from ipsec_agent.config_file import Loaded
from ipsec_agent.core.config import Config
from ipsec_agent.core.model import Connection, Credentials
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.peer_faults import Fault, Suspect
from ipsec_agent.core.problems.problem import LogLine
from ipsec_agent.core.rehearsal import BOUND, BOUND_OF_SAMPLE, NAME, SAMPLE, Answer
from ipsec_agent.errors import CharonGoneError, StartError
from ipsec_agent.host import rehearsals as host_rehearsals
from ipsec_agent.host.child import DEADLINE as CHILD
from ipsec_agent.host.rehearsals import Rehearsals
from ipsec_agent.rehearsal import refuse_refused, rehearse, verb
from ipsec_agent.verbs import reload
from tests.configs import config
from tests.core.test_orphans import OWN
from tests.core.test_rotation import drift, fleet
from tests.core.test_status import snapshot
from tests.vm import healthy_vm

IN_FORCE = config()
KEY = replace(IN_FORCE.credentials, key_id="5")
NEW = replace(IN_FORCE, certificate=b"another", credentials=KEY)
"""Another leaf and key."""


class Loop:
    """A loop that knows of so many peers, and whose next pass suspects those that refuse."""

    def __init__(self, peers: int, in_force: Config = IN_FORCE) -> None:
        self.config = in_force
        self.snapshot: Any = replace(
            snapshot(healthy_vm()), drift=drift(*fleet(peers)), placement=Placement(OWN, (OWN,))
        )

    async def passed(self) -> Any:
        """A pass in which charon's log has told why the first peer refuses."""
        line = LogLine("peer-refuses-us", "AUTHENTICATION_FAILED", "10.0.1.0", "", 1.0)
        return replace(self.snapshot, suspects=(Suspect("10.0.1.0", (Fault(line, 1.0),)),))


class Charon(Rehearsals):
    """Answers for peers, some of which refuse what is signed by nobody they know."""

    def __init__(self, *refuse: str, gone: bool = False) -> None:
        super().__init__(Path("nowhere"), 1.0)
        self.refuse, self.gone = refuse, gone
        self.asked: list[tuple[str, bytes]] = []
        self.keys: list[str] = []

    @contextlib.asynccontextmanager
    async def using(self, credentials: Credentials) -> AsyncIterator[None]:
        """Note the key."""
        self.keys.append(credentials.key_id)
        yield
        self.keys.append("")

    async def ask(self, connection: Connection, until: float) -> Answer:
        """What this peer says."""
        assert until > 0
        assert connection.settings is not None
        if self.gone:
            raise CharonGoneError("charon closed the VICI connection")
        peer, certificate = connection.name.removeprefix(NAME), connection.settings.certificate
        self.asked.append((peer, certificate))
        new = certificate == NEW.certificate
        return Answer.REFUSED if new and peer in self.refuse else Answer.ACCEPTED


def all_of(count: int) -> list[str]:
    """The addresses of a fleet."""
    return [f"10.0.1.{number}" for number in range(count)]


async def reloaded(
    charon: Charon, peers: int, new: Config = NEW, *, of: Config = IN_FORCE, force: bool = False
) -> None:
    """What comes before a reload."""
    loop: Any = Loop(peers, of)
    await refuse_refused(loop, charon, new, force=force)


async def test_refused_by_most() -> None:
    """The reload is refused, and says by whom and why; those are then shown the one in force."""
    charon = Charon(*all_of(2))
    with pytest.raises(StartError) as raised:
        await reloaded(charon, 3)
    assert "2 of 3 peers that answered refuse it" in raised.value.message
    assert "10.0.1.0 (peer-refuses-us)" in raised.value.message
    assert "--force" in raised.value.hint
    new, later = charon.asked[:3], charon.asked[3:]
    assert {certificate for _, certificate in new} == {NEW.certificate}
    assert sorted(later) == [(peer, IN_FORCE.certificate) for peer in all_of(2)]
    assert charon.keys == [NEW.credentials.key_id, ""]


async def test_refused_by_few() -> None:
    """One of three has no veto."""
    await reloaded(Charon("10.0.1.0"), 3)


async def test_a_sample_is_asked() -> None:
    """Not each of a fleet."""
    charon = Charon()
    await reloaded(charon, 40)
    assert len(charon.asked) == SAMPLE


async def test_nobody_is_asked() -> None:
    """By force, where the certificate is the same, and where the one in force has ended."""
    charon = Charon(*all_of(3))
    await reloaded(charon, 3, force=True)
    await reloaded(charon, 3, replace(NEW, certificate=IN_FORCE.certificate))
    facts = IN_FORCE.certificates[0]
    ended = replace(facts, not_after=facts.not_before)
    await reloaded(charon, 3, of=replace(IN_FORCE, certificates=(ended,)))
    assert charon.asked == []


async def test_what_cannot_be_found_out_refuses_nothing() -> None:
    """charon is gone, or there is no peer."""
    loop: Any = Loop(2)
    asked = await rehearse(loop, Charon(gone=True), NEW, time.monotonic() + BOUND)
    assert [one.answer for one in asked] == [Answer.NOT_ASKED] * 2
    await reloaded(Charon(*all_of(2), gone=True), 2)
    await reloaded(Charon(), 0)


async def dry(charon: Charon, peers: int) -> dict[str, Any]:
    """What the agent answers to `reload --dry-run`."""

    loaded: Any = SimpleNamespace(config=NEW)

    async def judge(*, asks: bool) -> tuple[Loaded, object, Told]:
        assert asks
        return loaded, None, Told(("of the file",), ("of optional mode",), ("of a start",))

    loop: Any = Loop(peers)
    return await verb(loop, charon, judge)({"asks": True})


async def test_dry_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All peers are asked, and each answer is shown; the exit code says what a reload would do."""
    for refuse, code in ((1, 0), (2, 1)):
        answer = await dry(Charon(*all_of(refuse)), 3)
        monkeypatch.setattr(reload, "ask", lambda *_args, _answer=answer, **_more: _answer)
        assert reload.main(Namespace(dry_run=True, force=False, socket="s")) == code
        shown = capsys.readouterr()
        assert shown.err.splitlines() == ["of the file", "of optional mode", "of a start"]
        lines = shown.out.splitlines()
        assert lines[0] == "10.0.1.0: refuses it (peer-refuses-us)"
        assert lines[2] == "10.0.1.2: accepts it"
    assert (await dry(Charon(), 0))["peers"] == []
    assert len((await dry(Charon(), 40))["peers"]) == 40


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop in which nothing is waited for, but the clock says that it was."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        """Seconds since the loop began."""
        return self.now

    def _run_once(self) -> None:
        it: Any = self
        if not it._ready and it._scheduled:
            self.now = max(self.now, it._scheduled[0]._when)
        super()._run_once()  # type: ignore[misc] # what asyncio says of itself is not all


class LatePeers:
    """Peers that answer as late as they may.

    Args:
        refuse: what is not in force.
        slow: charon's own answers take as long as they may, too.
    """

    def __init__(self, *, refuse: bool, slow: bool) -> None:
        self.refuse, self.slow = refuse, slow
        self.refused: set[str] = set()
        self.shown: set[str] = set()

    @contextlib.asynccontextmanager
    async def opened(self, _path: Path, deadline: float) -> AsyncIterator["LateCharon"]:
        """A connection to charon."""
        yield LateCharon(self, deadline - 0.1 if self.slow else 0.0)


class LateCharon:
    """A connection on which each answer takes so many seconds."""

    def __init__(self, peers: LatePeers, takes: float) -> None:
        self.peers, self.takes = peers, takes
        self.certificate = b""

    async def keys(self) -> tuple[str, ...]:
        """None."""
        await asyncio.sleep(self.takes)
        return ()

    async def load_renewal(self, made: Connection) -> None:
        """Take a connection."""
        assert made.settings is not None
        self.certificate = made.settings.certificate
        await asyncio.sleep(self.takes)

    async def establish(self, name: str, seconds: float) -> bool:
        """What the peer says, just before it would be called silent."""
        await asyncio.sleep(seconds - 0.1)
        in_force = self.certificate == IN_FORCE.certificate
        if in_force or self.peers.refuse:
            (self.peers.shown if in_force else self.peers.refused).add(name.removeprefix(NAME))
        return in_force or not self.peers.refuse

    async def done(self, _what: object) -> None:
        """What has no answer that matters."""
        await asyncio.sleep(self.takes)

    load_key = terminate_begun = unload_connection = unload_key = done


class LateLoop(Loop):
    """A loop whose pass does not end."""

    async def passed(self) -> Any:
        """Nothing."""
        await asyncio.Event().wait()


SLOW = 36.7
"""Seconds that a slow charon takes at the most beside what its peers take: it takes a connection,
and forgets its SA and itself, and the key."""


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("refuse", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
def test_late_peers(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    dry_run: bool,
    refuse: bool,
    slow: bool,
) -> None:
    """Hundreds of peers that answer late, and a slow charon: the agent has answered before its
    caller gives up, each peer is told, and who refused has seen what is in force again.
    """
    all_peers = LatePeers(refuse=refuse, slow=slow)
    rehearsals: Any = Rehearsals(Path("vici"), 5.0)
    agent: Any = LateLoop(400)

    async def judge(*, asks: bool) -> tuple[Any, object, Told]:
        await asyncio.sleep(10 + asks)
        return SimpleNamespace(config=NEW), None, Told((), (), ())

    async def ask() -> dict[str, Any]:
        if dry_run:
            return await verb(agent, rehearsals, judge)({"asks": False})
        with contextlib.suppress(StartError):
            await refuse_refused(agent, rehearsals, NEW, force=False)
        return {}

    with asyncio.Runner(loop_factory=VirtualTime) as runner, monkeypatch.context() as patch:
        loop = runner.get_loop()
        patch.setattr(host_rehearsals, "open_charon", all_peers.opened)
        patch.setattr(time, "monotonic", loop.time)
        answer = runner.run(ask())
        took = loop.time()

    assert took <= (BOUND if dry_run else BOUND_OF_SAMPLE) + SLOW * slow
    assert slow or all_peers.refused == all_peers.shown
    if not dry_run:
        # To read the config, and to wait until it is in force, takes its time, too.
        assert took + CHILD + IN_FORCE_WITHIN < reload.PATIENCE
        return
    assert took < reload.PATIENCE
    told = {one["address"]: one["answer"] for one in answer["peers"]}
    by_answer = Counter(told.values())
    assert len(told) == 400
    assert set(by_answer) <= {"refused" if refuse else "accepted", "not asked in time"}
    assert slow or len(by_answer) == 2
    monkeypatch.setattr(reload, "ask", lambda *_args, **_more: answer)
    code = reload.main(Namespace(dry_run=True, force=False, socket="s"))
    assert code == bool(by_answer["refused"])
    *lines, last = capsys.readouterr().out.splitlines()
    late = {f"{peer}: not asked in time" for peer, said in told.items() if "not" in said}
    assert late == {line for line in lines if "not asked" in line}
    assert last == f"no time was left to ask {len(late)} of 400 peers"
