"""Who may write what the agent trusts: files and directories with real owners and modes."""

import os
from pathlib import Path

import pytest

from ipsec_agent.cli import main
from ipsec_agent.errors import ConfigError, StartError
from ipsec_agent.host.files import (
    config_warnings,
    make_directory,
    read_config,
    refuse_unfit_directory,
)
from ipsec_agent.host.writers import refuse_writable_directory
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest

NOBODY, USERS = 65534, 100

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config as it should be."""
    path = tmp_path / "ipsec.yml"
    path.write_text("ipsec: {}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("mode", "owner", "group", "remedy"),
    [
        (0o600, 0, 0, ""),
        (0o640, 0, USERS, ""),
        (0o660, 0, 0, ""),
        (0o660, 0, USERS, "chmod go-w"),
        (0o602, 0, 0, "chmod go-w"),
        (0o600, NOBODY, 0, "chown root"),
    ],
)
@as_root
def test_config(config: Path, mode: int, owner: int, group: int, remedy: str) -> None:
    """A config is refused where anybody but root can write it, with the command that helps."""
    os.chown(config, owner, group)
    config.chmod(mode)

    if not remedy:
        assert read_config(config) == "ipsec: {}\n"
        return
    with pytest.raises(ConfigError, match="can be written by others than root") as caught:
        read_config(config)
    assert caught.value.hint == f"{remedy} {config}"


@pytest.mark.parametrize(
    ("mode", "group", "said"),
    [
        (0o600, USERS, ""),
        (0o640, 0, ""),
        (0o640, USERS, "the group users can read this file"),
        (0o640, 54321, "the group 54321 can read this file"),
        (0o604, 0, "every user can read this file"),
    ],
)
@as_root
def test_readers(config: Path, mode: int, group: int, said: str) -> None:
    """A config that others may read is accepted, with a warning that names the command."""
    os.chown(config, 0, group)
    config.chmod(mode)

    found = [str(one) for one in config_warnings(config)]

    assert bool(found) == bool(said)
    if said:
        assert found[0].startswith(f"{config}: warning: {said}, which holds a private key")
        assert found[0].endswith(f"; chmod 0600 {config}")


@as_root
def test_readers_with_bosh(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where BOSH rendered the file, the warning says where the command belongs."""
    monkeypatch.setattr("ipsec_agent.host.files.readers", lambda _found: "the group vcap")
    config.chmod(0o640)

    (found,) = config_warnings(config)

    assert "in the job's pre-start: BOSH renders templates 0640 root:vcap" in found.remedy


@as_root
def test_check_warns(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` warns of what `run` would, and the file stays good."""
    ca = make_ca()
    config.write_text(manifest(["10.0.1.0/24"], [], leaf=make_leaf(ca), cas=[ca]))
    config.chmod(0o644)

    assert main(["check", str(config)]) == 0
    assert f"every user can read this file, which holds a private key; chmod 0600 {config}" in (
        capsys.readouterr().err
    )
    config.chmod(0o646)
    assert main(["check", str(config)]) == 1


@as_root
@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Paste a PRIVATE KEY here.\n",
        "ipsec:\n  instance_private_key: ((ipsec_peer.private_key))\n",
        "ipsec:\n  instance_private_key: |\n    -----BEGIN EXAMPLE RSA PRIVATE KEY-----\n    ...\n"
        "    -----END EXAMPLE RSA PRIVATE KEY-----\n",
    ],
)
def test_nothing_to_hide(config: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Who reads a config without a key learns no secret; where there is a key, it is said even if
    the rest is refused.
    """
    config.chmod(0o644)
    config.write_text(text)

    assert main(["check", str(config)]) == 1
    assert "can read this file" not in capsys.readouterr().err
    config.write_text(text + "x: |\n  -----BEGIN PRIVATE KEY-----\n  MIIE\n")
    assert main(["check", str(config)]) == 1
    assert "every user can read this file" in capsys.readouterr().err


@as_root
def test_the_way_to_a_config(config: Path) -> None:
    """Who may write a directory on the way can put another file there, links included."""
    away = config.parent / "away"
    away.mkdir()
    link = config.parent / "link.yml"
    (away / "ipsec.yml").write_text("ipsec: {}\n")
    link.symlink_to("away/ipsec.yml")
    assert read_config(link) == "ipsec: {}\n"

    os.chown(away, NOBODY, 0)
    with pytest.raises(ConfigError, match="away can be written by others"):
        read_config(link)
    # The target is what it was, and so is its directory: the link is another's.
    os.chown(away, 0, 0)
    os.chown(link, NOBODY, 0, follow_symlinks=False)
    with pytest.raises(ConfigError, match=r"link\.yml can be written by others"):
        read_config(link)


@pytest.mark.parametrize(
    ("mode", "owner", "refused"),
    [
        (0o755, 0, False),
        (0o775, 0, False),
        (0o757, 0, True),
        (0o1777, 0, True),
        (0o755, NOBODY, True),
    ],
)
@as_root
def test_directory(tmp_path: Path, mode: int, owner: int, refused: bool) -> None:
    """The agent's own directory is root's; not even sticky it may be everybody's."""
    path = tmp_path / "run"
    path.mkdir()
    os.chown(path, owner, 0)
    path.chmod(mode)

    for judge in (make_directory, refuse_unfit_directory):
        if not refused:
            judge(path)
            continue
        with pytest.raises(StartError, match="run can be written by others than root"):
            judge(path)


@as_root
def test_directory_on_the_way(tmp_path: Path) -> None:
    """Each directory on the way counts, one that is sticky not, and behind a link all of it."""
    real = tmp_path / "a real one"
    (real / "run").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(real)
    refuse_writable_directory(link / "run")
    real.chmod(0o1777)
    refuse_writable_directory(link / "run")

    real.chmod(0o777)
    with pytest.raises(StartError, match=r"the directory .*/a real one can be written") as caught:
        refuse_writable_directory(link / "run")
    assert caught.value.hint == f"chmod go-w '{real}'", "to be typed"


def test_links_without_end(tmp_path: Path) -> None:
    """Links that lead to each other end the look."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(StartError):
        make_directory(tmp_path / "a")


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    """What is not there yet nobody can have written; who only judges does not make it."""
    refuse_writable_directory(tmp_path / "not" / "there")
    refuse_unfit_directory(tmp_path / "not" / "there")
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("place", ["file", "file/run", "nowhere", "nowhere/run"])
def test_no_directory_can_be_made(tmp_path: Path, place: str) -> None:
    """It is said before the start that would fail."""
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to("gone")

    for judge in (make_directory, refuse_unfit_directory):
        with pytest.raises(StartError, match=f"cannot create the directory {tmp_path / place}"):
            judge(tmp_path / place)
