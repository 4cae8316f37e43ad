"""Files of the agent: the config is read, ours are written whole, one agent holds a directory."""

import codecs
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ipsec_agent.errors import ConfigError, StartError
from ipsec_agent.host import files
from ipsec_agent.host.drain_file import DrainFile
from ipsec_agent.host.files import (
    MAX_CONFIG,
    make_directory,
    only_agent,
    open_regular,
    read_config,
    read_pem,
    write_whole,
)
from ipsec_agent.host.peers import PeerMemory

HOLDER = """
import sys, time
from pathlib import Path
from ipsec_agent.host.files import only_agent
with only_agent(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_read(tmp_path: Path) -> None:
    """A config is its text, as UTF-8."""
    path = tmp_path / "ipsec.yml"
    path.write_bytes("ipsec: {} # Zürich\n".encode())

    assert read_config(path) == "ipsec: {} # Zürich\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a" * (MAX_CONFIG + 1), "is larger than"),
        (b"a: 1\ngood\xff\xfe", r"is not UTF-8 text \(line 2, byte 5\)"),
        (codecs.BOM_UTF16_LE + "ipsec:".encode("utf-16-le"), "is UTF-16LE text"),
        (codecs.BOM_UTF16_BE + "ipsec:".encode("utf-16-be"), "is UTF-16BE text"),
        ("ipsec:".encode("utf-16-le"), "is UTF-16LE text"),
        ("ipsec:".encode("utf-16-be"), "is UTF-16BE text"),
        ("ipsec:".encode("utf-32"), "is UTF-32LE text"),
        ("ipsec:".encode("utf-32-le"), "is UTF-32LE text"),
        ("ipsec:".encode("utf-32-be"), "is UTF-32BE text"),
        ("# Müller".encode("cp1252"), r"is not UTF-8 text \(line 1, byte 4\)"),
        (b"\x1f\x8b\x08\x00", r"is not UTF-8 text \(line 1, byte 2\)"),
        (bytes(4096), "holds nothing but zero bytes"),
    ],
)
def test_read_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """What cannot be a config is refused with its path."""
    path = tmp_path / "ipsec.yml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"ipsec.yml {said}") as refused:
        read_config(path)
    if " UTF-16" in said or " UTF-32" in said or content.startswith(b"#"):
        kind = said.split()[1] if "is UTF" in said else "WINDOWS-1252"
        assert f"iconv -f {kind} -t UTF-8 -o {path}.new {path}`" in refused.value.hint
    elif "UTF-8" in said and 0 in content:
        assert refused.value.hint == "check that this is the right file"


def test_the_command_for_a_path_with_a_blank(tmp_path: Path) -> None:
    """A shell takes it as it is said."""
    path = tmp_path / "my ipsec.yml"
    path.write_bytes("# Müller".encode("cp1252"))

    with pytest.raises(ConfigError) as refused:
        read_config(path)
    command = refused.value.hint.split("`")[1]
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=20)
    assert path.with_name("my ipsec.yml.new").read_text(encoding="utf-8") == "# Müller"


def test_a_full_disk_below_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for an output that is lost, and what to do is said."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ipsec_agent.host.files.os.write", full)

    with (
        pytest.raises(StartError, match=r"cannot write .*agent\.pid: No space left") as refused,
        only_agent(tmp_path / "agent.pid"),
    ):
        pass
    assert refused.value.hint.startswith("make room: see `df -h")


def test_a_link_in_place_of_the_lock(tmp_path: Path) -> None:
    """It is not followed; the hint is the command that helps."""
    path = tmp_path / "agent.pid"
    path.symlink_to(tmp_path / "victim")

    with pytest.raises(StartError, match="cannot open") as refused, only_agent(path):
        pass
    assert refused.value.hint == f"rm {path}"
    assert not (tmp_path / "victim").exists()


def test_a_fifo_in_place_of_the_lock(tmp_path: Path) -> None:
    """It is named, and how to be rid of it."""
    os.mkfifo(tmp_path / "agent.pid")

    with (
        pytest.raises(StartError, match=r"agent\.pid: it is not a file") as refused,
        only_agent(tmp_path / "agent.pid"),
    ):
        pass
    assert refused.value.hint == f"rm {tmp_path}/agent.pid"


def test_pem_beside_a_text_that_is_not_utf8(tmp_path: Path) -> None:
    """PEM is found in it: it is ASCII in each."""
    path = tmp_path / "vm.pem"
    path.write_bytes("friendlyName: Müller\n-----BEGIN X-----\n".encode("latin-1"))

    assert "-----BEGIN X-----" in read_pem(path)


def test_read_largest(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    path = tmp_path / "ipsec.yml"
    path.write_bytes(b"a" * MAX_CONFIG)

    assert len(read_config(path)) == MAX_CONFIG


def test_read_a_pipe(tmp_path: Path) -> None:
    """What a program writes into a pipe is read to its end, such as `check /dev/stdin`."""
    reading, writing = os.pipe()
    with subprocess.Popen(["/bin/sh", "-c", "sleep 0.2; echo 'ipsec: {}'"], stdout=writing):
        os.close(writing)
        text = read_config(Path(f"/dev/fd/{reading}"))
    os.close(reading)

    assert text == "ipsec: {}\n"


def test_read_a_pipe_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe without a writer, or one that goes on for ever, ends with a sentence."""
    monkeypatch.setattr(files, "PIPE_DEADLINE", 0.2)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="pipe is a pipe that nobody writes to"):
        read_config(path)
    writer = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(ConfigError, match=r"did not end within 0\.2 s"):
            read_config(path)
    finally:
        os.close(writer)


def test_read_a_device() -> None:
    """A device is no config."""
    with pytest.raises(ConfigError, match="/dev/zero is not a file"):
        read_config(Path("/dev/zero"))


def test_read_absent(tmp_path: Path) -> None:
    """A config that is absent, and one that is a directory, are told apart."""
    with pytest.raises(ConfigError, match="there is no config"):
        read_config(tmp_path / "none.yml")
    with pytest.raises(ConfigError, match=r"cannot read the config .*: Is a directory"):
        read_config(tmp_path)


def test_write(tmp_path: Path) -> None:
    """The mode is as asked whatever the umask and the old file; nothing else is left."""
    path = tmp_path / "strongswan.conf"
    path.write_text("old")
    path.chmod(0o666)
    before = os.umask(0o077)
    try:
        write_whole(path, "new", mode=0o640)
    finally:
        os.umask(before)

    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_write_replaces(tmp_path: Path) -> None:
    """Who has the old file open reads the old one to its end."""
    path = tmp_path / "strongswan.conf"
    path.write_text("old")
    with path.open() as reader:
        write_whole(path, "new", mode=0o644)

        assert reader.read() == "old"


def test_write_fails(tmp_path: Path) -> None:
    """A write that fails is a StartError and leaves nothing behind."""
    path = tmp_path / "taken"
    path.mkdir()

    with pytest.raises(StartError, match=r"cannot write .*taken: Is a directory"):
        write_whole(path, "new", mode=0o644)

    assert list(tmp_path.iterdir()) == [path]


def test_directory(tmp_path: Path) -> None:
    """A directory is made with its parents; one that is there is fine; a file in its place not."""
    path = tmp_path / "a" / "b"
    make_directory(path)
    make_directory(path)
    (tmp_path / "file").write_text("")

    assert path.is_dir()
    with pytest.raises(StartError, match="cannot create"):
        make_directory(tmp_path / "file")


def test_only_agent(tmp_path: Path) -> None:
    """The second agent is told the pid of the first; after the first, the next may."""
    path = tmp_path / "agent.pid"
    with only_agent(path):
        assert path.read_text() == f"{os.getpid()}\n"
        with (
            pytest.raises(
                StartError, match=rf"is already running \(pid {os.getpid()}\)"
            ) as refused,
            only_agent(path),
        ):
            pass
    assert f"`ipsec-agent status --socket {tmp_path}/control.sock`" in refused.value.hint
    assert path.read_text() == ""
    with only_agent(path):
        pass


def test_only_agent_killed(tmp_path: Path) -> None:
    """What an agent that was killed left behind stops nobody."""
    path = tmp_path / "agent.pid"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(StartError, match=f"pid {holder.pid}"), only_agent(path):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)

    assert path.read_text() == f"{holder.pid}\n"
    with only_agent(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_only_agent_is_ours_alone(tmp_path: Path) -> None:
    """Who cannot open the file cannot hold its lock, whatever its mode was, or the umask."""
    path = tmp_path / "agent.pid"
    path.write_text("")
    path.chmod(0o666)
    before = os.umask(0)
    try:
        with only_agent(path):
            loose = stat.S_IMODE(path.stat().st_mode)
        path.unlink()
        with only_agent(path):
            fresh = stat.S_IMODE(path.stat().st_mode)
    finally:
        os.umask(before)

    assert (loose, fresh) == (0o600, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_hold_the_lock(tmp_path: Path) -> None:
    """An ordinary user's flock does not keep the next agent out."""
    path = tmp_path / "agent.pid"
    with only_agent(path):
        pass
    tmp_path.chmod(0o711)
    thief = subprocess.run(
        ["/usr/bin/flock", "--nonblock", "--shared", path.name, "true"],
        cwd=tmp_path,
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert "Permission denied" in thief.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_only_agent_of_another_user(tmp_path: Path) -> None:
    """A file that another user made is no lock, nor is a link."""
    path = tmp_path / "agent.pid"
    path.write_text("")
    os.chown(path, 65534, 65534)
    with pytest.raises(StartError, match=r"agent\.pid is another user's"), only_agent(path):
        pass
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="cannot open"), only_agent(path):
        pass


def test_only_agent_locked_by_a_stranger(tmp_path: Path) -> None:
    """A lock without an agent's pid is not taken for an agent."""
    path = tmp_path / "agent.pid"
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with (
            pytest.raises(StartError, match="another program holds the lock") as caught,
            only_agent(path),
        ):
            pass

    assert f"fuser -v {path}" in caught.value.hint


def test_only_agent_nowhere(tmp_path: Path) -> None:
    """A run directory that is not there is one sentence."""
    with pytest.raises(StartError, match="cannot open"), only_agent(tmp_path / "no" / "pid"):
        pass


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever reads a file of the agent's own does without a FIFO that is in its place."""
    fifo, file = tmp_path / "drain.json", tmp_path / "file"
    os.mkfifo(fifo)
    file.write_text("1")

    with open_regular(file) as opened:
        assert opened.read() == b"1"
    for path in (fifo, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(OSError, match=path.name):
            open_regular(path)
    assert DrainFile(tmp_path).read() is None
    assert PeerMemory(fifo).peers(None) == ()
