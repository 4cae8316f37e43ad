"""`ipsec-agent guard up|down|status`, judged by real packets, with no agent and with a listener."""

import asyncio
import errno
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest

from ipsec_agent.cli import main
from ipsec_agent.core.closed_table import CLOSED
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.guard_table import exempt_update
from ipsec_agent.core.model import LinkId
from ipsec_agent.guard_status import EXIT, TableState
from ipsec_agent.host.control import serve_control
from ipsec_agent.host.nft_image import NEW_TABLE, TABLE
from ipsec_agent.host.nft_wire import CREATE, Channel, attribute
from ipsec_agent.host.nft_wire import text as attribute_text
from ipsec_agent.host.saved_guard import NAME
from tests.certificates import make_ca, make_leaf
from tests.kernel.guard_lab import (
    A4,
    B4,
    PLAIN4,
    SCALE,
    A,
    link,
    namespaces,
    run,
    send_udp,
)
from tests.lab.namespaces import inside
from tests.manifests import manifest

pytestmark = pytest.mark.kernel

CA = make_ca()
LEAF = make_leaf(CA)


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    """A fresh lab for each test, and the test itself inside of VM A."""
    with namespaces(), inside(A):
        yield


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config of VM A, whose directories are the test's own."""
    path = tmp_path / "ipsec.yml"
    write(path)
    return path


def write(path: Path, *clear: str, optional: bool = False, **agent: object) -> None:
    """A config with these no-ipsec subnets."""
    places = {"run_dir": f"{path.parent}/run", "state_dir": f"{path.parent}/state"}
    path.write_text(
        manifest(
            ["10.77.0.0/16"],
            ["10.77.9.0/24", *clear],
            leaf=LEAF,
            cas=[CA],
            agent={**places, **agent},
            optional=optional,
        )
    )


def guard(action: str, config: Path, *more: str) -> int:
    """The exit code of the verb."""
    return main(["guard", action, "--config", str(config), *more])


def told(capsys: pytest.CaptureFixture[str], config: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and document of `guard status --json`."""
    capsys.readouterr()
    code = guard("status", config, "--json")
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, shown


def test_up_and_down(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Up: clear is dropped and the file kept. Down: clear leaves, and the file is kept still."""
    saved = config.parent / "state" / "guard.nft"
    assert send_udp(A, A4, B4)

    assert guard("up", config) == 0

    said = capsys.readouterr()
    assert "the guard is up: it covers every link but lo" in said.out
    assert f"the next boot loads {saved}" in said.out
    assert not send_udp(A, A4, B4)
    assert send_udp(A, A4, PLAIN4)
    assert guard("down", config) == 0
    assert "packets may leave in clear" in capsys.readouterr().out
    assert send_udp(A, A4, B4)
    run("nft", "-f", str(saved))
    assert not send_udp(A, A4, B4)


def test_status_of_each_state(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing 3, up 0, altered 1, closed 1, whoever loaded it."""
    code, shown = told(capsys, config)
    assert (code, shown["state"], shown["saved"]["state"]) == (3, "missing", "missing")
    assert "the next boot has no guard" in shown["notes"][0]

    guard("up", config)
    send_udp(A, A4, B4)
    code, shown = told(capsys, config)
    assert (code, shown["state"], shown["matches_config"]) == (0, "up", True)
    assert (shown["dropped_out"], shown["clear_out"][0]["address"]) == (1, B4)
    assert (shown["saved"]["state"], shown["notes"]) == ("good", [])

    run("nft", "insert rule inet ipsec_agent out4 accept")
    code, shown = told(capsys, config)
    assert (code, shown["state"], shown["matches_config"]) == (1, "altered", False)
    (told_of_it,) = shown["notes"]
    assert told_of_it.startswith("the guard's table was changed and may let clear packets pass")
    assert "run `ipsec-agent guard up" in told_of_it

    run("nft", "-f", "-", text=CLOSED)
    send_udp(A, A4, B4)
    code, shown = told(capsys, config)
    assert (code, shown["state"], shown["dropped_out"]) == (1, "closed", 1)
    assert shown["closed_by"] == "boot"
    guard("status", config)
    assert "guard      CLOSED: the saved table did not load at boot" in capsys.readouterr().out


def test_whether_it_drops(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the table that is loaded, whatever the config says by now."""
    assert not told(capsys, config)[1]["drops"]
    guard("up", config)
    assert told(capsys, config)[1]["drops"]

    write(config, optional=True)
    _, shown = told(capsys, config)
    assert (shown["matches_config"], shown["drops"]) == (False, True)
    guard("up", config)
    assert not told(capsys, config)[1]["drops"]
    capsys.readouterr()
    guard("status", config)
    assert "guard      up, counts only: 0 in, 0 out" in capsys.readouterr().out

    write(config)
    _, shown = told(capsys, config)
    assert (shown["matches_config"], shown["drops"]) == (False, False)
    run("nft", "insert rule inet ipsec_agent out4 accept")
    assert not told(capsys, config)[1]["drops"]
    run("nft", "-f", "-", text=CLOSED)
    assert told(capsys, config)[1]["drops"]


def test_a_table_loaded_at_boot_is_known(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By nft alone, and with no memory of what was ever loaded."""
    guard("up", config)
    guard("down", config)
    (config.parent / "run" / "guard.json").unlink()
    run("nft", "-f", str(config.parent / "state" / "guard.nft"))
    send_udp(A, A4, B4)

    code, shown = told(capsys, config)

    assert (code, shown["state"], shown["matches_config"]) == (0, "up", True)
    assert shown["dropped_out"] == 1
    (config.parent / "state" / "guard.nft").unlink()
    code, shown = told(capsys, config)
    assert (code, shown["state"], shown["saved"]["state"]) == (0, "up", "missing")


def test_another_config(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table that a former config made stands, but is not what should; `up` mends it."""
    guard("up", config)
    write(config, "10.77.0.2/32")

    code, shown = told(capsys, config)

    assert (code, shown["state"], shown["matches_config"]) == (1, "up", False)
    assert "another version of ipsec-agent loaded it: restart the agent" in shown["notes"][0]
    assert not send_udp(A, A4, B4)
    guard("up", config)
    assert send_udp(A, A4, B4)
    assert told(capsys, config)[0] == 0


@pytest.mark.parametrize("text", ["table inet ipsec_agent {", "", "# nothing\n"])
def test_a_broken_file_is_told(config: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """What the next boot would refuse, or load in vain, is known before it."""
    guard("up", config)
    (config.parent / "state" / "guard.nft").write_text(text)

    code, shown = told(capsys, config)

    assert (code, shown["state"], shown["saved"]["state"]) == (0, "up", "does not load")
    assert any("the next boot will be closed" in note for note in shown["notes"])


def test_the_text(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Peers that are counted and links that are not judged are named."""
    write(config, uplinks=["a0"])
    guard("up", config)
    send_udp(A, A4, B4)
    run("nft", "-f", "-", text=exempt_update([link(A, "ac0")]))
    capsys.readouterr()

    assert guard("status", config) == 0

    said = capsys.readouterr().out
    assert "guard      up, dropped 0 in, 1 out" in said
    assert f"clear packets to {B4}: 1 packet," in said
    assert "not guarded: ac0 (its other end is in a container that has no other way out)" in said


def test_a_link_that_somebody_exempts(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is judged as an agent would, with none there: one that leads out is an alteration."""
    write(config, uplinks=["a0"])
    guard("up", config)
    run("nft", "-f", "-", text=exempt_update([link(A, "ac0"), LinkId(4711, "gone")]))
    code, shown = told(capsys, config)
    assert (code, shown["state"], shown["exempt"]) == (0, "up", ["ac0", "gone"])
    assert shown["inside"][1]["reason"] == "there is no such link any more"

    run("nft", "-f", "-", text=exempt_update([link(A, "a0"), link(A, "ac0")]))
    assert send_udp(A, A4, B4)
    code, shown = told(capsys, config)

    assert (code, shown["state"]) == (1, "altered")
    (told_of_it,) = shown["notes"]
    assert "the guard does not cover a0, though nothing says" in told_of_it
    assert "clear packets may pass there: run `ipsec-agent guard up" in told_of_it
    guard("up", config)
    assert told(capsys, config)[0] == 0
    assert not send_udp(A, A4, B4)


def refusing() -> NoReturn:
    """A kernel that tells nothing of its links."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_what_cannot_be_judged_is_said(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the links cannot be read, nobody vouches for those that are exempt."""
    write(config, uplinks=["a0"])
    guard("up", config)
    run("nft", "-f", "-", text=exempt_update([link(A, "a0")]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipsec_agent.host.link_reading.open_rtnetlink", refusing)
        _, shown = told(capsys, config)

    assert shown["notes"] == ["where a0 leads is not verified"]
    assert shown["inside"] == [
        {"name": "a0", "reason": "not verified: config or links cannot be read"}
    ]


@pytest.mark.parametrize(
    "change",
    [
        "insert rule inet ipsec_agent closed_out accept",
        "add chain inet ipsec_agent closed_out { policy accept; }",
        "delete table inet ipsec_agent; add table inet ipsec_agent;"
        " add chain inet ipsec_agent closed_out",
    ],
)
def test_closed_is_no_matter_of_a_name(
    config: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """A table that only resembles the closed one lets pass whatever it lets pass: altered."""
    run("nft", "-f", "-", text=CLOSED)
    assert told(capsys, config)[1]["state"] == "closed"

    run("nft", change)
    code, shown = told(capsys, config)

    assert (code, shown["state"], shown["closed_by"]) == (1, "altered", None)


def test_a_table_that_a_program_owns(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program is named, by each verb."""
    flags = attribute(2, (2).to_bytes(4))
    with Channel() as owner:
        owner.perform([(NEW_TABLE, CREATE, attribute_text(TABLE, "ipsec_agent") + flags)])
        code, shown = told(capsys, config)
        assert (code, shown["state"]) == (1, "altered")
        assert any(f"(`kill {os.getpid()}`)" in note for note in shown["notes"])
        for action in ("up", "down"):
            assert guard(action, config) == 1
            assert f"pid {os.getpid()} (" in capsys.readouterr().err


def test_a_refused_config_touches_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`up` says every complaint; `status` and `down` work without a config."""
    guard("up", config)
    config.write_text(config.read_text().replace("10.77.0.0/16", "10.77.0.0/99"))
    capsys.readouterr()

    assert guard("up", config) == 1

    said = capsys.readouterr().err
    assert "'10.77.0.0/99' is not a subnet" in said
    assert "--closed" not in said, "the guard is there"
    assert not send_udp(A, A4, B4)
    code, shown = told(capsys, config)
    assert (shown["state"], shown["matches_config"]) == ("up", None)
    assert code == 0
    assert guard("down", config) == 0
    assert send_udp(A, A4, B4)
    capsys.readouterr()
    note = f"packets may leave in clear: run `ipsec-agent guard up --closed --config {config}`"
    assert note in told(capsys, config)[1]["notes"]
    # Nor does what lies in the place of its run_dir hide why the config is refused.
    (config.parent / "run").rename(config.parent / "moved")
    (config.parent / "run").touch()
    assert guard("up", config) == 1
    assert "'10.77.0.0/99' is not a subnet" in capsys.readouterr().err
    (config.parent / "run").unlink()
    (config.parent / "moved").rename(config.parent / "run")
    assert guard("up", config) == 1
    assert (
        "no guard is loaded, so packets may travel in clear: `ipsec-agent guard up --closed"
        f" --config {config}` lets pass only IPsec"
    ) in capsys.readouterr().err


def test_a_refused_config_beside_an_agent(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The agent puts up the guard of its config in force: whoever asks wants the VM closed."""
    config.write_text(config.read_text().replace("10.77.0.0/16", "10.77.0.0/99"))
    with Listener(config.parent / "run" / "control.sock", standing=True):
        assert guard("up", config, "--json") == 0
    said = capsys.readouterr()
    assert "'10.77.0.0/99' is not a subnet" in said.err
    assert "is refused: 1 error; the agent goes on with the config in force" in said.err
    assert json.loads(said.out) == {"schema": 1, "state": "up", "saved": None, "findings": []}
    with Listener(config.parent / "run" / "control.sock", standing=False):
        assert guard("up", config) == 1
    assert "the agent could not load the guard" in capsys.readouterr().err


def test_closed_without_a_config(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By flag only, whatever the config is; it is told as what it is, and `up` replaces it."""
    needs = EssentialAddresses(directors=(ip_address(PLAIN4),), unresolved=("blob.example",))
    for module in ("verbs.guard", "guard_status"):
        monkeypatch.setattr(f"ipsec_agent.{module}.read_own_essential_addresses", lambda: needs)
    good = config.read_text()
    config.write_text(good.replace("10.77.0.0/16", "10.77.0.0/99"))
    assert guard("up", config) == 1
    assert send_udp(A, A4, B4)
    capsys.readouterr()
    socket = f"{config.parent}/run/control.sock"

    assert guard("up", config, "--closed", "--socket", socket) == 0

    said = capsys.readouterr()
    assert f"DNS (none found), NTP, DHCP, the metadata service and BOSH ({PLAIN4})" in said.out
    assert "blob.example (BOSH) has no address now, and is cut off" in said.err
    assert not send_udp(A, A4, B4)
    assert not send_udp(A, A4, PLAIN4)
    assert not (config.parent / "state").exists()
    code, shown = told(capsys, config)
    assert (code, shown["state"], shown["closed_by"]) == (1, "closed", "hand")
    guard("status", config)
    assert (
        "guard      CLOSED: by `ipsec-agent guard up --closed`, dropped" in capsys.readouterr().out
    )
    assert any("`guard up --closed` has closed this VM" in note for note in shown["notes"])
    config.write_text(good)
    assert guard("up", config) == 0
    assert send_udp(A, A4, PLAIN4)
    assert told(capsys, config)[0] == 0


def test_closed_is_not_for_a_vm_with_an_agent(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would put its own guard in that place at once."""
    with Listener(config.parent / "run" / "control.sock", standing=True):
        assert guard("up", config, "--closed") == 1

    assert "an agent runs, and would put the guard of its config" in capsys.readouterr().err
    assert send_udp(A, A4, B4)


def test_none_is_wanted(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`agent.guard: none` is not overruled."""
    write(config, guard="none")

    assert guard("up", config) == 1

    assert "says agent.guard: none" in capsys.readouterr().err
    code, shown = told(capsys, config)
    assert (code, shown["state"]) == (3, "missing")
    assert "agent.guard is none: packets may leave in clear" in shown["notes"][-1]


def test_a_gateway_inside_is_a_warning(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is common; the line to add is said, and the guard goes up."""
    run("ip", "route", "add", "default", "via", "10.77.0.9")

    assert guard("up", config, "--json") == 0

    said = capsys.readouterr()
    assert "warning: 10.77.0.9 (default gateway) is inside the encrypted set" in said.err
    assert "add the line `- 10.77.0.9/32` below no_ipsec_subnets" in said.err
    (finding,) = json.loads(said.out)["findings"]
    assert (finding["line"], finding["refused"]) == ("- 10.77.0.9/32", False)


def by_ssh(config: Path, *more: str, terminal: bool) -> subprocess.CompletedProcess[str]:
    """`guard up` with the environment of a session whose client is inside the encrypted set."""
    own, theirs = pty.openpty()
    try:
        return subprocess.run(
            [sys.executable, "-m", "ipsec_agent", "guard", "up", "--config", config, *more],
            env={**os.environ, "SSH_CONNECTION": f"10.77.0.44 50000 {A4} 22"},
            stdin=theirs if terminal else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60 * SCALE,
            check=False,
        )
    finally:
        os.close(own)
        os.close(theirs)


def test_the_operators_own_session_is_a_refusal(config: Path) -> None:
    """Nothing is touched unless he insists; a daemon's script is not refused for his sake."""
    refused = by_ssh(config, terminal=True)

    assert refused.returncode == 1
    assert "REFUSED: 10.77.0.44 (client of an SSH session)" in refused.stderr
    assert "add the line `- 10.77.0.44/32` below no_ipsec_subnets" in refused.stderr
    assert "the guard would cut this VM off" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert send_udp(A, A4, B4)
    assert not (config.parent / "state").exists()

    assert by_ssh(config, "--force", terminal=True).returncode == 0
    assert not send_udp(A, A4, B4)
    guard("down", config)
    write(config, "10.77.0.44/32")
    assert by_ssh(config, terminal=True).returncode == 0
    write(config)
    assert by_ssh(config, terminal=False).returncode == 0


@pytest.mark.parametrize("action", ["up", "down"])
def test_without_nft(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    action: str,
) -> None:
    """One sentence, what to install, and no traceback; nothing is saved that was never tried."""
    monkeypatch.setattr("ipsec_agent.host.nft.find_program", lambda _: None)
    monkeypatch.setenv("PATH", "/nowhere")

    assert guard(action, config) == 1

    assert capsys.readouterr().err == (
        "ipsec-agent: the program nft is not installed\n"
        "  hint: apt install nftables, or set agent.guard: none\n"
    )
    assert not (config.parent / "state").exists()


def test_status_without_nft(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the kernel is read without it, and told from what was altered."""
    assert guard("up", config) == 0
    (config.parent / "state" / NAME).unlink()

    with monkeypatch.context() as patch:
        patch.setattr("ipsec_agent.host.nft.find_program", lambda _: None)
        assert guard("status", config) == EXIT[TableState.UP]
        run("nft", "flush chain inet ipsec_agent out", ns=A)
        assert guard("status", config) == EXIT[TableState.ALTERED]


def test_a_disk_that_is_full_does_not_hold_up_the_guard(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It protects now, and the verb fails, because the next boot would not be guarded."""
    (config.parent / "state").write_text("no directory")

    assert guard("up", config) == 1

    assert "state" in capsys.readouterr().err
    assert not send_udp(A, A4, B4)


class Listener:
    """An agent as the verb sees it: a control socket that remembers what it was asked."""

    def __init__(self, path: Path, *, standing: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.asked: list[dict[str, Any]] = []
        self._path = path
        self._standing = standing
        self._open, self._close = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        async def answer(request: dict[str, Any]) -> dict[str, Any]:
            self.asked.append(request)
            return {"guard_up": self._standing}

        async with serve_control(
            self._path, {"health": answer}, {"guard-up": answer, "guard-down": answer}
        ):
            self._open.set()
            await asyncio.to_thread(self._close.wait, 60)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._open.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._close.set()
        self._thread.join()


def test_a_running_agent_does_it(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked, on the socket of the config's run_dir, and nothing is done behind its back."""
    with Listener(config.parent / "run" / "control.sock", standing=True) as agent:
        assert guard("up", config, "--force") == 0

    assert agent.asked == [{"verb": "guard-up", "force": True}]
    assert "the running agent keeps it up" in capsys.readouterr().out
    assert send_udp(A, A4, B4)
    run("nft", "-f", "-", text=CLOSED)
    (config.parent / "other").mkdir()
    with Listener(config.parent / "other" / "run" / "control.sock", standing=False) as agent:
        socket = str(config.parent / "other" / "run" / "control.sock")
        assert guard("down", config, "--socket", socket) == 0
    assert agent.asked == [{"verb": "guard-down"}]
    assert "until `guard up` or the agent's next start" in capsys.readouterr().out
    assert not send_udp(A, A4, B4)


@pytest.mark.parametrize(("action", "standing"), [("up", False), ("down", True)])
def test_an_agent_that_cannot(
    config: Path, capsys: pytest.CaptureFixture[str], action: str, standing: bool
) -> None:
    """A table that is not as asked afterwards is a failure, and said."""
    with Listener(config.parent / "run" / "control.sock", standing=standing):
        assert guard(action, config) == 1

    assert f"the agent could not {'load' if action == 'up' else 'remove'} the guard" in (
        capsys.readouterr().err
    )
