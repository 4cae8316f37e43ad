"""What config/blobs.list says: each file of others that the release is made of, by its digest."""

import hashlib
from pathlib import Path

from msgspec import Struct

KINDS = ("debian", "pypi")
WORDS = "KIND NAME VERSION PLACE SHA256"


class ReleaseError(Exception):
    """Something is missing or is not what it should be; the text says what to do."""


class Blob(Struct, frozen=True):
    """A line of the list.

    Attributes:
        kind: debian or pypi.
        name: of Debian's source package, or PyPI's project.
        place: below blobs/.
        digest: SHA-256.
    """

    kind: str
    name: str
    version: str
    place: str
    digest: str

    @property
    def file(self) -> str:
        """Its name, which is the one that it has where it comes from."""
        return self.place.rpartition("/")[2]

    @property
    def directory(self) -> str:
        """Below blobs/; a package is made of one."""
        return self.place.rpartition("/")[0]

    @property
    def title(self) -> str:
        """For a sentence."""
        return f"{self.name} {self.version}"

    def found(self, path: Path) -> bool:
        """Whether this file is the one that is listed."""
        return path.is_file() and digest(path) == self.digest


def digest(path: Path) -> str:
    """SHA-256 of a file, as the list has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listing(root: Path) -> Path:
    """The list of a release's directory."""
    return root / "config/blobs.list"


def listed(root: Path) -> tuple[Blob, ...]:
    """Read the list.

    Raises:
        ReleaseError: a line is not understood.
    """
    found = []
    for number, line in enumerate(listing(root).read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != len(WORDS.split()) or words[0] not in KINDS:
            raise ReleaseError(
                f"config/blobs.list:{number} is not understood; write {WORDS},"
                f" where KIND is {' or '.join(KINDS)}"
            )
        found.append(Blob(*words))
    return tuple(found)


def write(root: Path, blobs: tuple[Blob, ...]) -> None:
    """Write the list again; its comments stay at its head."""
    path = listing(root)
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    lines = [f"{it.kind} {it.name} {it.version} {it.place} {it.digest}" for it in blobs]
    path.write_text("\n".join((*head, *lines, "")))
