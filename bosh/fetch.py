"""Fetches the blobs of the release that are not there yet, and moves the list to newer ones."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from bosh.blobs import Blob, ReleaseError, listed, write
from bosh.debian import PART, Debian
from bosh.pypi import Pypi

HERE = Path(__file__).parent


class Source(Protocol):
    """Where files come from."""

    def file(self, blob: Blob) -> Path:
        """Fetch one."""


def fetch(root: Path, blobs: Sequence[Blob], debian: Source, pypi: Source) -> None:
    """Have each blob below blobs/.

    Raises:
        ReleaseError: one cannot be fetched.
    """
    sources = {"debian": debian, "pypi": pypi}
    for blob in blobs:
        path = root / "blobs" / blob.place
        if blob.found(path):
            continue
        sys.stdout.write(f"== fetching {blob.place}\n")
        sys.stdout.flush()
        fetched = sources[blob.kind].file(blob)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}")
        shutil.copyfile(fetched, partial)
        partial.replace(path)


def update(root: Path, names: Sequence[str], debian: Debian, pypi: Pypi) -> tuple[str, ...]:
    """List the newest version of each blob, once all of them are here.

    Args:
        names: of sources and projects that are updated; none for all.

    Returns:
        What has changed, a sentence each.

    Raises:
        ReleaseError: one cannot be fetched, or is not listed; the list is as it was.
    """
    before = listed(root)
    unknown = set(names) - {blob.name for blob in before}
    if unknown:
        raise ReleaseError(
            f"config/blobs.list has no {', '.join(sorted(unknown))}; write one of"
            f" {', '.join(sorted({blob.name for blob in before}))}"
        )
    chosen = {blob.name for blob in before if not names or blob.name in names}
    after = (*_sources(before, chosen, debian), *_wheels(before, chosen, pypi))
    fetch(root, after, debian, pypi)
    if after != before:
        write(root, after)
    return tuple(_changes(before, after))


def _sources(before: Sequence[Blob], chosen: set[str], debian: Debian) -> Iterator[Blob]:
    for blob in before:
        if blob.kind != "debian":
            continue
        part = PART.search(blob.file)
        newest = debian.newest(blob.name) if blob.name in chosen and part is not None else {}
        if part is None or part[1] not in newest:
            yield blob
        else:
            one = newest[part[1]]
            place = f"{blob.directory}/{one.file}"
            yield Blob(blob.kind, blob.name, one.version, place, one.digest)


def _wheels(before: Sequence[Blob], chosen: set[str], pypi: Pypi) -> Sequence[Blob]:
    wheels = [blob for blob in before if blob.kind == "pypi"]
    kept = [blob for blob in wheels if blob.name not in chosen]
    return wheels if kept == wheels else pypi.newest(kept)


def _changes(before: Sequence[Blob], after: Sequence[Blob]) -> Iterator[str]:
    old, new = ({blob.name: blob.version for blob in blobs} for blobs in (before, after))
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"{name}: {old.get(name, 'not listed')} -> {new.get(name, 'not listed')}"


def fetch_listed(root: Path, debian: Source, pypi: Source) -> None:
    """Have below blobs/ all that is listed, and nothing else: it would get into a package.

    Raises:
        ReleaseError: the list is not understood, or something of it cannot be fetched.
    """
    blobs = listed(root)
    try:
        fetch(root, blobs, debian, pypi)
    except ReleaseError as error:
        raise ReleaseError(
            f"{error}\nOr list what there is now: scripts/release --update [NAME…]"
        ) from None
    wanted = {root / "blobs" / blob.place for blob in blobs}
    for path in tuple((root / "blobs").rglob("*")):
        if path not in wanted and not path.is_dir():
            path.unlink()


def main() -> int:
    """Fetch, or update the list."""
    parser = argparse.ArgumentParser(description="Fetch the blobs of the BOSH release.")
    parser.add_argument("--update", nargs="*", metavar="NAME")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        debian, pypi = Debian(Path(work)), Pypi(Path(work), HERE.parent)
        try:
            if chosen.update is None:
                fetch_listed(HERE, debian, pypi)
            else:
                changes = update(HERE, chosen.update, debian, pypi)
                sys.stdout.write("".join(f"{it}\n" for it in changes) or "nothing is newer\n")
        except ReleaseError as error:
            sys.stderr.write(f"release: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
