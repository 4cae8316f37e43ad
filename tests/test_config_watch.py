"""The file of the config is compared with what is in force, and judged again in time."""

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent import config_watch
from ipsec_agent.config_file import Loaded, accepted, load
from ipsec_agent.config_watch import AGAIN, ConfigWatch, first_complaint
from ipsec_agent.errors import ConfigError, StartError
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest

CA = make_ca()
LEAF = make_leaf(CA)


class Clock:
    """A time that the test moves, at first some seconds after what it has just written."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp() + 10

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


def text(subnet: str = "10.9.0.0/24") -> str:
    """A config."""
    return manifest([subnet], leaf=LEAF, cas=[CA], form="rendered")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good config."""
    file = tmp_path / "ipsec.yml"
    write(file, text())
    return file


def write(file: Path, content: str) -> None:
    """Replace a file as a deployment does, and so that its group cannot write it."""
    temporary = file.with_name("new")
    temporary.write_text(content)
    temporary.chmod(0o600)
    temporary.rename(file)


def test_changed_broken_and_put_back(path: Path) -> None:
    """Changed is told while it is good; broken with the line; put back it is what is in force."""
    watch = ConfigWatch(path, load(path))
    assert (watch.look(), watch.changed, watch.refused) == (False, False, "")

    write(path, text("10.9.0.0/16"))
    assert (watch.look(), watch.changed, watch.refused) == (True, True, "")

    write(path, text("10.9.0.0/33"))
    assert watch.look()
    assert not watch.changed
    assert watch.refused.startswith(f"{path}:3: ipsec.ipsec_subnets[0]: '10.9.0.0/33' is not a ")

    path.unlink()
    assert watch.look()
    assert watch.refused == f"there is no config at {path}"

    write(path, text())
    assert (watch.look(), watch.changed, watch.refused) == (True, False, "")


def test_a_refused_reload_is_past_once_the_file_is_put_back(path: Path) -> None:
    """Whether or not anybody looked meanwhile; another file, or a broken one, leaves it."""
    watch = ConfigWatch(path, load(path), clock=Clock())
    for looks in (True, False):
        write(path, text("10.9.0.0/16"))
        watch.refuse("it would cut off a peer")
        if looks:
            assert (watch.look(), watch.changed) == (True, True)
            write(path, text("10.9.0.0/33"))
            assert watch.look()
            assert watch.reload_refused == "it would cut off a peer"

        write(path, text())
        assert watch.look()
        assert (watch.changed, watch.refused, watch.reload_refused) == (False, "", "")
        assert not watch.look()

    watch.refuse("it would cut off a peer")
    watch.adopt(load(path))
    assert not watch.reload_refused


def test_refused_while_the_file_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reload has seen what came after: its refusal stays."""
    watch = ConfigWatch(path, load(path), clock=Clock())

    def late(file: Path, **more: Any) -> Loaded:
        found = load(file, **more)
        watch.refuse("it would cut off a peer")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(config_watch, "load", late)
        watch.look()

    assert watch.reload_refused == "it would cut off a peer"


def test_the_text_in_force_is_not_parsed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes 11 MB is not imported for it; another text is parsed."""
    watch = ConfigWatch(path, load(path))
    monkeypatch.setitem(sys.modules, "ipsec_agent.core.manifest.parser", None)

    assert (watch.look(), watch.changed, watch.refused) == (False, False, "")
    write(path, text("10.9.0.0/16"))
    with pytest.raises(ImportError):
        watch.look()


def test_a_reload_takes_it(path: Path) -> None:
    """What was adopted is no change any more."""
    watch = ConfigWatch(path, load(path))
    write(path, text("10.9.0.0/16"))
    assert watch.look()

    watch.adopt(load(path))

    assert not watch.changed
    assert not watch.look()
    write(path, text())
    assert watch.look()
    assert watch.changed


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read since."""
    found: list[Path] = []

    def counted(file: Path, **more: Any) -> Loaded:
        found.append(file)
        return load(file, **more)

    monkeypatch.setattr(config_watch, "load", counted)
    return found


def test_unchanged_costs_a_stat(path: Path, read: list[Path]) -> None:
    """The file is read once, and again only after somebody has touched it."""
    watch = ConfigWatch(path, load(path), clock=Clock())
    for _ in range(5):
        watch.look()
    assert len(read) == 1

    os.utime(path, (1, 1))
    assert not watch.look()
    assert len(read) == 2


def test_read_while_it_changes(path: Path, read: list[Path]) -> None:
    """A change in the same moment may leave the same times: the file is read once more."""
    clock = Clock()
    watch = ConfigWatch(path, load(path), clock=clock)
    clock.now = path.stat().st_ctime
    watch.look()
    assert len(read) == 1

    clock.now += 2
    for _ in range(5):
        watch.look()
    assert len(read) == 2


def test_refused_is_judged_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is judged each minute, though nobody touches the file."""
    clock = Clock()
    watch = ConfigWatch(path, load(path), clock=clock)

    def refusing(file: Path, **_more: object) -> Loaded:
        judged.append(clock.now)
        raise ConfigError("refused", complaints=[f"{file}:7: no"])

    judged: list[float] = []
    monkeypatch.setattr(config_watch, "load", refusing)
    assert watch.look()
    assert watch.refused == f"{path}:7: no"
    clock.now += AGAIN - 1
    assert not watch.look()
    clock.now += 1
    watch.look()
    assert len(judged) == 2


def test_expired_is_not_refused(path: Path) -> None:
    """The next start takes an expired certificate, so nothing is said of the file."""
    old = make_leaf(CA, days=5, not_before=datetime.now(UTC) - timedelta(days=10))
    write(path, manifest(["10.9.0.0/24"], leaf=old, cas=[CA], form="rendered"))
    watch = ConfigWatch(path, load(path, outdated=accepted))

    assert (watch.look(), watch.changed, watch.refused) == (False, False, "")


def test_a_pipe_is_left_alone(tmp_path: Path, path: Path) -> None:
    """What is no file would be taken from somebody by reading it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    watch = ConfigWatch(pipe, load(path))

    assert (watch.look(), watch.changed, watch.refused) == (False, False, "")


def test_the_first_complaint() -> None:
    """A warning is no reason; what has no lines gives its sentence."""
    complaints = ["f:1: warning: k: odd", "f:2: k: wrong", "f:3: k: wrong, too"]

    assert first_complaint(ConfigError("refused", complaints=complaints)) == "f:2: k: wrong"
    assert first_complaint(ConfigError("there is none")) == "there is none"
    assert first_complaint(StartError("it would cut this VM off")) == "it would cut this VM off"
