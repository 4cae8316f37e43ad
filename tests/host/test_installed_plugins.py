"""Which plugins a charon can load, from the files beside it."""

from pathlib import Path

import pytest

from ipsec_agent.host.charon_start import installed_plugins


def place(directory: Path, *names: str) -> None:
    """An installation's plugins."""
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch()


@pytest.mark.parametrize(
    ("program", "plugins"),
    [
        ("usr/sbin/charon-systemd", "usr/lib/ipsec/plugins"),
        ("usr/lib/ipsec/charon", "usr/lib/ipsec/plugins"),
        ("packages/strongswan/libexec/ipsec/charon", "packages/strongswan/lib/ipsec/plugins"),
    ],
)
def test_places(tmp_path: Path, program: str, plugins: str) -> None:
    """Debian's two programs and one below a prefix of its own find theirs; a link is followed."""
    place(tmp_path / plugins, "libstrongswan-vici.so", "libstrongswan-eap-tls.so", "other.so")
    path = tmp_path / program
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    link = tmp_path / "link"
    link.symlink_to(path)

    assert installed_plugins(str(path)) == installed_plugins(str(link)) == {"vici", "eap-tls"}


def test_elsewhere(tmp_path: Path) -> None:
    """Plugins of another kind, and none at all, tell nothing."""
    place(tmp_path / "plugins", "libstrongswan-aes.so")

    assert installed_plugins(str(tmp_path / "charon")) == frozenset()
