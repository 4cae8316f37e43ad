"""The Debian package, built once for all tests of it."""

from pathlib import Path

import pytest

from ipsec_agent import __version__
from tests.boot.packaged import build, build_before


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this version."""
    place = tmp_path_factory.mktemp("packages")
    build(place)
    (path,) = place.glob(f"ipsec-agent_{__version__}_*.deb")
    return path


@pytest.fixture(scope="session")
def packages(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package of this version, and that of the one before."""
    build_before(package.parent, tmp_path_factory.mktemp("before"))
    return package.parent
