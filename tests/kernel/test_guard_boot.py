"""What the guard's unit runs at boot, as it stands in the unit, judged by real packets."""

import shlex
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from ipsec_agent.core.guard_table import ruleset
from tests.kernel.guard_lab import (
    A4,
    B4,
    DEADLINE,
    GUARD,
    PLAIN4,
    SCALE,
    A,
    B,
    Capture,
    Flood,
    namespaces,
    run,
    send_udp,
)
from tests.lab.namespaces import inside

pytestmark = pytest.mark.kernel

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "ipsec-agent-guard.service"
TEXT = ruleset(GUARD)


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    """A fresh lab for each test, and the test itself inside of VM A."""
    with namespaces(), inside(A):
        yield


def command(unit: Path, key: str) -> list[str]:
    """The words of a unit's command."""
    text = unit.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith(key)]
    words = shlex.split(lines[-1].removeprefix(key))
    given = [
        shlex.split(line.removeprefix("Environment="))[0]
        for line in text.splitlines()
        if line.startswith("Environment=")
    ]
    variables = {f"${{{name}}}": value for name, value in (one.split("=", 1) for one in given)}
    words = [variables.get(word, word) for word in words]
    assert not any(word.startswith("$") for word in words), "systemd's own"
    return words


def executed(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is."""
    return subprocess.run(words, capture_output=True, text=True, timeout=20 * SCALE, check=False)


def boot(saved: Path, *closed: Path) -> subprocess.CompletedProcess[str]:
    """Run the unit's command with these files in the place of its own."""
    shell, option, script, *files = command(UNIT, "ExecStart=")
    assert [Path(name).name for name in files] == ["guard.nft", "closed.nft", "closed.nft"]
    return executed(shell, option, script, saved, *closed)


def test_the_saved_table_is_loaded(tmp_path: Path) -> None:
    """And it alone: what it lets pass, passes."""
    saved = tmp_path / "guard.nft"
    saved.write_text(TEXT)

    done = boot(saved, tmp_path / "absent", SYSTEMD / "closed.nft")

    assert (done.returncode, done.stderr) == (0, "")
    assert not send_udp(A, A4, B4)
    assert send_udp(A, A4, PLAIN4)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "".join(TEXT.splitlines(keepends=True)[:3]),
        TEXT.removesuffix("}\n"),
        TEXT[: len(TEXT) // 2],
        TEXT.replace("drop", "drip"),
        TEXT.replace("jump ike_out", "jump ike_elsewhere"),
        "\0\0\0\0",
    ],
    ids=["empty", "no table", "no end", "half", "unknown word", "refused by the kernel", "zeroes"],
)
def test_a_table_that_does_not_load_closes_the_vm(tmp_path: Path, broken: str) -> None:
    """Half a file, or one of another version, opens nothing; the journal is told."""
    saved = tmp_path / "guard.nft"
    saved.write_text(broken)

    done = boot(saved, tmp_path / "absent", SYSTEMD / "closed.nft")

    assert done.returncode == 0
    assert "<2>the saved guard does not load" in done.stderr
    assert not send_udp(A, A4, B4)
    assert not send_udp(A, A4, PLAIN4)


def test_nothing_to_load_is_a_failure(tmp_path: Path) -> None:
    """The unit fails, so that somebody sees it."""
    saved = tmp_path / "guard.nft"
    saved.write_text("nonsense")

    assert boot(saved, tmp_path / "absent", tmp_path / "gone").returncode != 0


NFTABLES = SYSTEMD / "nftables.service.d" / "ipsec-agent.conf"
CLOSED = SYSTEMD / "closed.nft"
CONFIGURATION = (
    "flush ruleset\ntable inet other { chain input { type filter hook input priority 0; }; }"
)
"""As Debian's /etc/nftables.conf begins."""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The saved guard, and beside it the configuration of nftables.service."""
    (tmp_path / "nftables.conf").write_text(CONFIGURATION)
    (tmp_path / "guard.nft").write_text(TEXT)
    return tmp_path / "guard.nft"


def serve(key: str, saved: Path, closed: Path = CLOSED) -> subprocess.CompletedProcess[str]:
    """Run a command of nftables.service as our addition makes it."""
    shell, option, script, what, *files = command(NFTABLES, key)
    assert [Path(name).name for name in files] == ["guard.nft", "closed.nft", "closed.nft"]
    assert what == ("flush ruleset" if key == "ExecStop=" else 'include "/etc/nftables.conf"')
    what = what.replace("/etc", str(saved.parent))
    return executed(shell, option, script, what, saved, saved.parent / "absent", closed)


EACH = pytest.mark.parametrize("key", ["ExecStart=", "ExecReload=", "ExecStop="])


@EACH
@pytest.mark.parametrize("damaged", [False, True])
def test_nftables_leaves_a_guard(saved: Path, key: str, *, damaged: bool) -> None:
    """All other tables are replaced or gone; the guard stays, or the closed one takes its place."""
    if damaged:
        saved.write_text("")
    run("nft", "add", "table", "inet", "stale")

    done = serve(key, saved)

    assert (done.returncode, "<2>the saved guard does not load" in done.stderr) == (0, damaged)
    tables = run("nft", "list", "tables")
    assert "stale" not in tables
    assert ("other" in tables) is (key != "ExecStop=")
    assert not send_udp(A, A4, B4)
    assert send_udp(A, A4, PLAIN4) is not damaged


@EACH
def test_nftables_where_no_guard_was_saved(saved: Path, key: str) -> None:
    """Then there is none to keep."""
    saved.unlink()
    run("nft", "add", "table", "inet", "stale")

    done = serve(key, saved)

    assert (done.returncode, done.stderr) == (0, "")
    expected = "" if key == "ExecStop=" else "table inet other\n"
    assert run("nft", "list", "tables") == expected
    assert send_udp(A, A4, B4)


@pytest.mark.parametrize("key", ["ExecStart=", "ExecReload="])
def test_a_configuration_that_does_not_load_changes_nothing(saved: Path, key: str) -> None:
    """The unit fails with nft's own words, and the guard stays as it is."""
    run("nft", "-f", saved)
    (saved.parent / "nftables.conf").write_text(CONFIGURATION + "\nnonsense here\n")

    done = serve(key, saved)

    assert done.returncode != 0
    assert "nftables.conf:3" in done.stderr
    assert "syntax error" in done.stderr
    assert not send_udp(A, A4, B4)


@EACH
def test_without_any_guard_that_loads_nothing_is_changed(saved: Path, key: str) -> None:
    """To flush alone would open the VM."""
    run("nft", "-f", saved)
    saved.write_text("nonsense")

    done = serve(key, saved, saved.parent / "gone")

    assert done.returncode != 0
    assert "no guard loads; nothing was changed" in done.stderr
    assert not send_udp(A, A4, B4)


def flooded(*steps: Callable[[], object]) -> tuple[int, int]:
    """Datagrams tried, and those on the wire, while steps are taken five times under a flood."""
    with Capture(B, "b0") as wire, Flood(A, B4, DEADLINE) as flood:
        for _ in range(5):
            for step in steps:
                step()
        assert flood.running, "the flood ended before the steps did"
        flood.stop()
        tried, passed = flood.result()
        arrived = len(wire.between(A4, B4)) + wire.lost()
    assert (arrived > 0) == (passed > 0)
    return tried, arrived


@pytest.mark.parametrize("keys", [("ExecReload=",), ("ExecStop=", "ExecStart=")])
def test_no_packet_leaves_meanwhile(saved: Path, keys: tuple[str, ...]) -> None:
    """`systemctl reload nftables` and `restart` are single transactions, the guard in each."""
    run("nft", "-f", saved)

    def step(key: str) -> None:
        assert serve(key, saved).returncode == 0

    tried, arrived = flooded(*(partial(step, key) for key in keys))

    assert tried > 1000
    assert arrived == 0


def test_the_flood_would_tell(saved: Path) -> None:
    """Loaded one after the other, as by nftables.service without our addition, packets leave."""
    run("nft", "-f", saved)
    configuration = saved.parent / "nftables.conf"

    _, arrived = flooded(partial(run, "nft", "-f", configuration), partial(run, "nft", "-f", saved))

    assert arrived > 0
