"""A reload with another certificate asks peers first; `reload --dry-run` only asks."""

import contextlib
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.admission import Told
from ipsec_agent.config_file import Loaded
from ipsec_agent.core.config import Config
from ipsec_agent.core.model import Connection, Credentials
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.peer_faults import Fault, Suspect
from ipsec_agent.core.problems.problem import LogLine
from ipsec_agent.core.rehearsal import NAME, SAMPLE, Answer
from ipsec_agent.errors import CharonGoneError, StartError
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
    asked = await rehearse(loop, Charon(gone=True), NEW)
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
