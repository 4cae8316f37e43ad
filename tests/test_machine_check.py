"""What `check --machine` finds beside what only a real machine shows."""

from pathlib import Path

import pytest

from ipsec_agent import machine_check
from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.model import Address
from ipsec_agent.machine_check import check_machine
from tests.configs import config
from tests.vm import NETWORK, OWN, PEER


def test_a_guard_of_another_state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped units would load it at each boot, however old it is by then."""
    shipped, other = tmp_path / "shipped", tmp_path / "other"
    shipped.mkdir(0o700)
    for name in ("_place", "_links", "_esp", "_guard", "_lockouts", "_charon"):
        monkeypatch.setattr(machine_check, name, lambda _: ((), ()))
    monkeypatch.setattr(machine_check, "SHIPPED", str(shipped))

    def said(state: Path) -> tuple[str, ...]:
        agent = AgentConfig(run_dir=str(tmp_path), state_dir=str(state))
        return check_machine(config(agent=agent))[0]

    assert said(other) == ()
    (shipped / "guard.nft").touch()
    assert said(shipped) == ()
    (note,) = said(other)
    assert f"agent.state_dir is {other}, but the shipped units load {shipped}/guard.nft" in note


@pytest.mark.parametrize(("address", "notes"), [(None, 0), (OWN, 0), (PEER, 1)])
def test_an_address_that_no_link_has(
    monkeypatch: pytest.MonkeyPatch, address: Address | None, notes: int
) -> None:
    """It may be mistyped, or come later: a note, as of a link."""
    for name in ("_directories", "_links", "_esp", "_guard", "_lockouts", "_charon"):
        monkeypatch.setattr(machine_check, name, lambda _: ((), ()))
    monkeypatch.setattr(machine_check, "read_network", lambda: NETWORK)

    good, bad = check_machine(config(agent=AgentConfig(address=address)))

    assert bad == ()
    assert len(good) == notes
    assert all(f"agent.address is {PEER}, and no link" in one for one in good)
