"""The release and its compiled packages, made once for all tests of them."""

from pathlib import Path

import pytest

from tests.release.compiled import VCAP, compiled, packages, released
from tests.release.root import made


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What scripts/release makes."""
    target = tmp_path_factory.mktemp("release") / "ipsec.tgz"
    released(target)
    return target


@pytest.fixture(scope="session")
def places(tarball: Path) -> dict[str, Path]:
    """Each package, compiled; a failure is told with the end of what its script said."""
    made()
    return {package.name: compiled(package, VCAP) for package in packages(tarball)}
