"""Makes the tarball of the BOSH release, without the bosh CLI, from this directory and its blobs.

The layout is that of `bosh create-release --tarball`: release.MF, jobs/NAME.tgz, packages/NAME.tgz.
The same files make the same tarball, byte for byte.
"""

import argparse
import gzip
import hashlib
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from bosh.blobs import ReleaseError, listed

HERE = Path(__file__).parent
SOURCES = ("src", "blobs")
"""Where the files that a package's spec names are looked for, in this order."""

PROGRAM, PLAIN = 0o755, 0o644


class Member(Struct, frozen=True):
    """A file of an archive."""

    name: str
    content: bytes
    mode: int = PLAIN


class Part(Struct, frozen=True):
    """A job or a package.

    Attributes:
        archive: its tgz.
        wants: of a job its packages, of a package those that it is compiled with.
    """

    name: str
    archive: bytes
    wants: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the archive, which says whether anything of it has changed."""
        return hashlib.sha256(self.archive).hexdigest()

    def described(self, wants: str) -> dict[str, Any]:
        """Its entry in release.MF; `wants` is how the others are called there."""
        return {
            "name": self.name,
            "version": self.digest,
            "fingerprint": self.digest,
            "sha1": f"sha256:{self.digest}",
            wants: list(self.wants),
        }


def make(root: Path, target: Path, version: str) -> None:
    """Write the tarball.

    Args:
        root: the directory of the release.
        version: of the release, such as 0.1.0.

    Raises:
        ReleaseError: a file that a spec names is missing, or a blob is another than listed.
    """
    refuse_unfit_blobs(root)
    packages = tuple(_package(path) for path in sorted(root.glob("packages/*")))
    jobs = tuple(_job(path) for path in sorted(root.glob("jobs/*")))
    _refuse_unknown((*packages, *jobs), {package.name for package in packages})
    release = {
        "name": yaml.safe_load((root / "config/final.yml").read_text())["name"],
        "version": version,
        "commit_hash": "unknown",
        "uncommitted_changes": False,
        "jobs": [job.described("packages") for job in jobs],
        "packages": [package.described("dependencies") for package in packages],
    }
    members = (
        Member("release.MF", yaml.safe_dump(release, sort_keys=False).encode()),
        *(Member(f"jobs/{job.name}.tgz", job.archive) for job in jobs),
        *(Member(f"packages/{package.name}.tgz", package.archive) for package in packages),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(archive(members))


def archive(members: tuple[Member, ...]) -> bytes:
    """A tgz that depends on names, modes and contents alone."""
    written = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=written, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for member in members:
            entry = tarfile.TarInfo(member.name)
            entry.size, entry.mode = len(member.content), member.mode
            tar.addfile(entry, io.BytesIO(member.content))
    return written.getvalue()


def refuse_unfit_blobs(root: Path) -> None:
    """Check each blob of config/blobs.list.

    Raises:
        ReleaseError: one is absent, or has another digest.
    """
    for blob in listed(root):
        path = root / "blobs" / blob.place
        if not path.is_file():
            raise ReleaseError(
                f"the blob {blob.place} is missing: run scripts/release, which fetches it"
            )
        if not blob.found(path):
            raise ReleaseError(
                f"the blob {blob.place} is not the one that is listed: delete {path}"
            )


def _spec(path: Path) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((path / "spec").read_text())
    if spec["name"] != path.name:
        raise ReleaseError(f"{path}/spec: the name must be {path.name}")
    return spec


def _package(path: Path) -> Part:
    spec = _spec(path)
    root = path.parents[1]
    files = [
        (found.relative_to(place), found)
        for pattern in spec["files"]
        for place, found in _matching(root, pattern, path)
    ]
    members = (
        *(Member(str(name), found.read_bytes(), _mode(found)) for name, found in sorted(files)),
        Member("packaging", (path / "packaging").read_bytes(), PROGRAM),
    )
    return Part(path.name, archive(members), tuple(spec.get("dependencies") or ()))


def _matching(root: Path, pattern: str, package: Path) -> Iterator[tuple[Path, Path]]:
    for source in SOURCES:
        found = [(root / source, one) for one in sorted((root / source).glob(pattern))]
        if found:
            yield from found
            return
    raise ReleaseError(f"{package}/spec: no file matches {pattern} in {' or '.join(SOURCES)}")


def _mode(path: Path) -> int:
    return PROGRAM if path.stat().st_mode & 0o100 else PLAIN


def _job(path: Path) -> Part:
    spec = _spec(path)
    schema = path / "properties_schema.json"
    members = [Member("job.MF", (path / "spec").read_bytes())]
    for name in ("monit", *(f"templates/{one}" for one in spec["templates"])):
        if not (path / name).is_file():
            raise ReleaseError(f"{path}/spec: there is no {name}")
        members.append(Member(name, (path / name).read_bytes()))
    members += [Member(schema.name, schema.read_bytes())] if schema.exists() else []
    return Part(path.name, archive(tuple(members)), tuple(spec["packages"]))


def _refuse_unknown(parts: tuple[Part, ...], packages: set[str]) -> None:
    for part in parts:
        unknown = set(part.wants) - packages
        if unknown:
            raise ReleaseError(
                f"{part.name}/spec: there is no package {', '.join(sorted(unknown))}"
            )


def main() -> int:
    """Make the tarball that the command line names."""
    parser = argparse.ArgumentParser(description="Make the tarball of the BOSH release.")
    parser.add_argument("target", type=Path)
    parser.add_argument("--version", required=True)
    chosen = parser.parse_args()
    try:
        make(HERE, chosen.target, chosen.version)
    except ReleaseError as error:
        sys.stderr.write(f"release: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
