"""`ipsec-agent report`: files in, text, JSON and a page out, and the exit code."""

import json
import os
import shutil
import stat
import subprocess
import threading
import zlib
from pathlib import Path

import pytest

from ipsec_agent.cli import main
from ipsec_agent.core.report.page import page
from ipsec_agent.host import status_files
from tests.fleet_documents import fleet, report, status


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """A directory with the files of a fleet that is well, and one that is none of them."""
    directory = tmp_path / "status"
    directory.mkdir()
    for number, doc in enumerate(fleet(3), start=1):
        (directory / f"10.0.0.{number}.json").write_text(json.dumps(doc))
    (directory / "notes.txt").write_text("not JSON")
    return directory


def test_well(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0, and the verdict first."""
    assert main(["report", str(collected)]) == 0

    out, err = capsys.readouterr()
    assert out.startswith("3 VMs: 3 healthy, 0 not, 0 pairs speak clear\n")
    assert f"  10.0.0.2  ok        running, SAs with 2 peers ({collected}/10.0.0.2.json)\n" in out
    assert err == ""


def test_findings(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1; a file that is given twice is read once."""
    (collected / "10.0.0.3.json").unlink()

    assert main(["report", "--json", str(collected), f"{collected}/10.0.0.1.json"]) == 1

    found = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in found["findings"] if one["severity"] != "info"] == ["no-file"]


def test_bad_input(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2; what is wrong with which file, and the others are reported all the same."""
    (collected / "10.0.0.9.json").write_text('{"schema": 1,\n"state": running}')
    empty = collected / "empty"
    empty.mkdir()

    long = "/" + "n" * 300
    files = [str(collected), "/nowhere", str(empty), "/dev/null", "/dev/tty0", long]
    assert main(["report", *files]) == 2

    out, err = capsys.readouterr()
    assert out.startswith("3 VMs: 3 healthy")
    assert err.splitlines() == [
        f"ipsec-agent: {empty}: has no file named *.json, *.jsonl, *.ndjson (give the files'"
        " names)",
        f"ipsec-agent: {long[:239]}…: cannot be read: File name too long",
        "ipsec-agent: /nowhere: cannot be read: No such file or directory",
        "ipsec-agent: /dev/null: is neither a file nor a pipe",
        *(line for line in err.splitlines() if "/dev/tty0" in line),
        f"ipsec-agent: {collected}/10.0.0.9.json, line 2, column 10: is not JSON of `ipsec-agent"
        " status --json`: invalid character",
    ]


def test_pipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard input and a FIFO; one that does not end is given up."""
    raw = "\n".join(json.dumps(doc) for doc in fleet(2)).encode()
    reader, writer = os.pipe()
    kept = os.dup(0)
    try:
        os.dup2(reader, 0)
        os.write(writer, raw)
        os.close(writer)
        assert main(["report", "-"]) == 0
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reader)
    assert capsys.readouterr().out.startswith("2 VMs: 2 healthy")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDWR)
    try:
        monkeypatch.setattr(status_files, "PATIENCE", 0.1)
        assert main(["report", str(fifo)]) == 2
    finally:
        os.close(held)
    assert f"{fifo}: did not end within 0.1 s" in capsys.readouterr().err
    monkeypatch.setattr(status_files, "PATIENCE", 60.0)
    held = os.open(fifo, os.O_RDWR)
    os.write(held, raw)
    # The reader is there before the last writer goes.
    threading.Timer(0.5, os.close, (held,)).start()
    assert main(["report", str(fifo)]) == 0


def test_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file without an end is not read to it."""
    monkeypatch.setattr(status_files, "MOST", 1 << 20)
    (tmp_path / "a.json").write_bytes(b" " * ((1 << 20) + 1))

    assert main(["report", str(tmp_path / "a.json")]) == 2
    assert "a.json: is larger than 1 MiB" in capsys.readouterr().err


def test_html(collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page beside the text; one that is there is replaced whole."""
    path = tmp_path / "report.html"
    path.write_text("old")

    assert main(["report", "--html", str(path), str(collected)]) == 0

    assert path.read_text().startswith("<!DOCTYPE html>\n<html")
    assert "<title>ipsec-agent report: 3 VMs: 3 healthy" in path.read_text()
    assert list(tmp_path.glob(".*")) == []
    assert capsys.readouterr().out.startswith("3 VMs")
    assert main(["report", "--html", f"{tmp_path}/no/report.html", str(collected)]) == 1
    assert f"cannot write {tmp_path}/no/report.html" in capsys.readouterr().err


def test_html_on_standard_output(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page, and nothing else."""
    assert main(["report", "--html", "-", str(collected)]) == 0

    said = capsys.readouterr().out
    assert said.startswith("<!DOCTYPE html>\n<html")
    assert said.endswith("</html>\n")
    assert main(["report", "--json", "--html", "-", str(collected)]) == 2
    assert "would both write to standard output" in capsys.readouterr().err


def test_html_to_a_pipe(
    collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One with a name is refused, and stays; so would a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    assert main(["report", "--html", str(pipe), str(collected)]) == 1
    assert f"cannot write {pipe}: it is a pipe" in capsys.readouterr().err
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


CHROMIUM = shutil.which("chromium")


def pixels(png: bytes) -> set[bytes]:
    """The colours of a picture as chromium writes it: 8 bits a channel, without interlacing."""
    width, channels = int.from_bytes(png[16:20]), 4 if png[25] == 6 else 3
    assert (png[24], png[25] in {2, 6}, png[28]) == (8, True, 0)
    packed, place = b"", 8
    while place < len(png):
        size = int.from_bytes(png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            packed += png[place + 8 : place + 8 + size]
        place += 12 + size
    raw, step, found = zlib.decompress(packed), 1 + width * channels, set()
    above = bytes(step - 1)
    for start in range(0, len(raw), step):
        above = unfiltered(raw[start], raw[start + 1 : start + step], above, channels)
        found |= {above[at : at + 3] for at in range(0, len(above), channels)}
    return found


def unfiltered(kind: int, line: bytes, above: bytes, channels: int) -> bytes:
    """A line of a picture (PNG, section 9)."""
    made = bytearray(line)
    if kind == 2:
        return bytes((one + up) & 255 for one, up in zip(line, above, strict=True))
    for at in range(len(made)) if kind else ():
        left = made[at - channels] if at >= channels else 0
        corner = above[at - channels] if at >= channels else 0
        up = above[at]
        near = min((left, up, corner), key=lambda one: abs(left + up - corner - one))
        made[at] = (made[at] + {1: left, 3: (left + up) // 2, 4: near}[kind]) & 255
    return bytes(made)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root takes the network away from chromium")
@pytest.mark.parametrize(
    ("scheme", "colours"), [("1", "fff cdeccd c62828"), ("0", "16181c 1f4a2c ff6b62")]
)
def test_as_chromium_shows_it(tmp_path: Path, scheme: str, colours: str) -> None:
    """Bright and dark: the page's ground, a cell with ESP and one with clear packets are there."""
    docs = fleet(3)
    docs[0]["guard"] |= {"drops": False}
    docs[0]["guard"]["clear_in"] = [{"address": "10.0.0.9", "packets": 1, "bytes": 1, "idle": 1}]
    (tmp_path / "report.html").write_text(page(report([*docs, status("10.0.0.4")])))
    picture = tmp_path / "report.png"
    subprocess.run(
        [
            *("unshare", "-n", str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={tmp_path}/profile", "--window-size=600,1800"),
            # Not before all of it is painted, however busy the machine is.
            "--virtual-time-budget=5000",
            f"--blink-settings=preferredColorScheme={scheme}",
            *(f"--screenshot={picture}", f"file://{tmp_path}/report.html"),
        ],
        check=True,
        capture_output=True,
        timeout=240,
    )
    shown = pixels(picture.read_bytes())

    for colour in colours.split():
        whole = colour if len(colour) == 6 else colour * 2
        assert bytes.fromhex(whole) in shown, colour
