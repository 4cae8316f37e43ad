"""Wheels of PyPI, for the Python that the release brings."""

import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from bosh.blobs import Blob, ReleaseError, digest
from bosh.program import run

DIRECTORY = "ipsec-agent"
"""Of the package that they are in."""

FOR = (
    *("--only-binary=:all:", "--implementation=cp", "--python-version=3.11"),
    *(f"--platform=manylinux{age}_x86_64" for age in ("_2_28", "_2_17", "2014", "2010")),
)
"""What a stemcell takes: the release's Python, and a glibc of that age or newer."""


class Pypi:
    """PyPI, asked by pip.

    Args:
        work: a directory for what is fetched.
        project: the one whose dependencies are wanted.
    """

    def __init__(self, work: Path, project: Path) -> None:
        self._work = work
        self._project = project

    def file(self, blob: Blob) -> Path:
        """Fetch a wheel.

        Raises:
            ReleaseError: there is none.
        """
        self._download(self._work, "--no-deps", f"{blob.name}=={blob.version}")
        path = self._work / blob.file
        if not blob.found(path):
            raise ReleaseError(
                f"PyPI has no {blob.file} of {blob.title} with the SHA-256 that is listed"
            )
        return path

    def newest(self, kept: Iterable[Blob]) -> tuple[Blob, ...]:
        """The newest wheels that the project allows, and those that these need.

        Args:
            kept: of these the version that is listed.

        Raises:
            ReleaseError: PyPI does not give them.
        """
        place = self._work / "newest"
        place.mkdir()
        constraints = place / "constraints.txt"
        constraints.write_text("".join(f"{blob.name}=={blob.version}\n" for blob in kept))
        declared = tomllib.loads((self._project / "pyproject.toml").read_text())
        wanted: Sequence[str] = declared["project"]["dependencies"]
        self._download(place, f"--constraint={constraints}", *wanted)
        return tuple(_blob(path) for path in sorted(place.glob("*.whl")))

    def _download(self, place: Path, *words: str) -> None:
        pip = (sys.executable, "-m", "pip", "download", "--quiet", f"--dest={place}")
        done = run([*pip, *FOR, *words], self._work)
        if done.returncode != 0:
            raise ReleaseError(f"pip download {' '.join(words)}: {done.stderr.strip()}")


def _blob(path: Path) -> Blob:
    name, version = path.name.split("-")[:2]
    name = re.sub(r"[-_.]+", "-", name).lower()
    return Blob("pypi", name, version, f"{DIRECTORY}/{path.name}", digest(path))
