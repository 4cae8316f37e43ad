"""What the guard's unit runs at boot, as it stands in the unit, judged by real packets."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsec_agent.core.guard_table import ruleset
from tests.kernel.guard_lab import (
    A4,
    B4,
    GUARD,
    PLAIN4,
    SCALE,
    A,
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


def boot(
    saved: Path, *closed: Path, unit: Path = UNIT, key: str = "ExecStart="
) -> subprocess.CompletedProcess[str]:
    """Run the unit's command with these files in the place of its own."""
    text = unit.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith(key)]
    shell, option, script, *files = shlex.split(lines[-1].removeprefix(key))
    assert [Path(name).name for name in files] == ["guard.nft", "closed.nft", "closed.nft"]
    assert not any(word.startswith("$") for word in (shell, option, script)), "systemd's own"
    return subprocess.run(
        [shell, option, script, saved, *closed],
        capture_output=True,
        text=True,
        timeout=20 * SCALE,
        check=False,
    )


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


@pytest.mark.parametrize("damaged", [False, True])
def test_the_stop_of_nftables_leaves_a_guard(tmp_path: Path, *, damaged: bool) -> None:
    """All other tables go at a shutdown; the guard stays, or the closed one takes its place."""
    saved = tmp_path / "guard.nft"
    saved.write_text("" if damaged else TEXT)
    run("nft", "add", "table", "inet", "other")

    done = boot(saved, tmp_path / "absent", SYSTEMD / "closed.nft", unit=NFTABLES, key="ExecStop=")

    assert done.returncode == 0
    assert "other" not in run("nft", "list", "tables")
    assert not send_udp(A, A4, B4)
    assert send_udp(A, A4, PLAIN4) is not damaged


def test_the_stop_of_nftables_where_none_was_saved(tmp_path: Path) -> None:
    """Then there is none to keep."""
    run("nft", "add", "table", "inet", "other")

    done = boot(
        tmp_path / "guard.nft", SYSTEMD / "closed.nft", SYSTEMD / "closed.nft",
        unit=NFTABLES, key="ExecStop=",
    )  # fmt: skip

    assert done.returncode == 0
    assert run("nft", "list", "tables") == ""
    assert send_udp(A, A4, B4)
