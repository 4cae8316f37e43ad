"""Files of Debian's source packages: from this machine's mirror, or from what keeps old versions.

A mirror has only the newest revision of a suite, so one that is pinned goes from it with the next
security update. snapshot.debian.org keeps every one. Both are asked by name; the list's digest says
whether a file is the right one.
"""

import os
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from subprocess import CompletedProcess

import msgspec
from msgspec import Struct

from bosh.blobs import Blob, ReleaseError
from bosh.program import run

SUITE = "12"
"""Debian's release that the sources are of."""

SNAPSHOT = os.environ.get("SNAPSHOT") or "https://snapshot.debian.org"
ANSWERED_WITHIN, FETCHED_WITHIN = 30.0, 900.0
"""Seconds until a server says something, and for a whole file."""

PART = re.compile(r"\.(orig|debian)\.tar\.\w+$")
"""Of a source package's files those that are compiled: upstream's, and Debian's patches."""

URI = re.compile(r"'[^']+' (?P<file>\S+) \d+ SHA256:(?P<digest>\w+)")
"""A line of `apt-get source --print-uris`."""


class Named(Struct, frozen=True):
    """Of a file that is kept what matters here."""

    name: str


class Kept(Struct, frozen=True):
    """What /mr/package/NAME/VERSION/srcfiles answers: the names that a hash has or had."""

    fileinfo: Mapping[str, tuple[Named, ...]]


class Newest(Struct, frozen=True):
    """A file of the version that the mirror has now.

    Attributes:
        digest: SHA-256, which Debian's archive has signed.
    """

    version: str
    file: str
    digest: str


class Debian:
    """Debian's sources.

    Args:
        work: an empty directory for what is fetched.
        apt: where the machine's own list of mirrors is.
        snapshot: where old versions are.
        suite: the release of Debian whose mirrors have them.
    """

    def __init__(
        self,
        work: Path,
        apt: Path = Path("/etc/apt"),
        snapshot: str = SNAPSHOT,
        suite: str = SUITE,
    ) -> None:
        self._work = work
        self._apt = apt
        self._snapshot = snapshot.rstrip("/")
        self._suite = suite
        self._refused: dict[tuple[str, str], str] = {}
        self._kept: dict[tuple[str, str], Mapping[str, str]] = {}

    def file(self, blob: Blob) -> Path:
        """Fetch a file.

        Raises:
            ReleaseError: neither place gives it.
        """
        path = self._work / blob.file
        refused = self._from_mirror(blob)
        if blob.found(path):
            return path
        try:
            self._from_snapshot(blob, path)
        except (OSError, HTTPException, msgspec.MsgspecError) as error:
            kept = f"{type(error).__name__}: {error}".rstrip(": ")
        else:
            if blob.found(path):
                return path
            kept = "a file of this name with another SHA-256"
        raise ReleaseError(
            f"{blob.file} of {blob.title} cannot be fetched."
            f"\n  mirror: {refused or 'a file of this name with another SHA-256'}"
            f"\n  {self._snapshot}, which keeps old versions: {kept}"
            "\nRun this where the latter can be reached (SNAPSHOT=URL names another copy of it),"
            f" or put the file into bosh/blobs/{blob.directory}"
        )

    def newest(self, name: str) -> dict[str, Newest]:
        """What the mirror has now, by part (orig, debian).

        Raises:
            ReleaseError: the mirror cannot be asked.
        """
        if not self._is_suite:
            raise ReleaseError(f"the sources are those of Debian {self._suite}: run --update there")
        done = self._apt_get("source", "-qq", "--print-uris", name)
        files = {found["file"]: found["digest"] for found in URI.finditer(done.stdout)}
        described = [file for file in files if file.endswith(".dsc")]
        if done.returncode != 0 or not described:
            raise ReleaseError(f"the mirror has no {name}: {_complaint(done)}")
        # This has no epoch; none of the sources has one.
        version = described[0].removesuffix(".dsc").removeprefix(f"{name}_")
        parts = ((PART.search(file), file) for file in files)
        return {
            part[1]: Newest(version, file, files[file]) for part, file in parts if part is not None
        }

    @cached_property
    def _is_suite(self) -> bool:
        return f'VERSION_ID="{self._suite}"\n' in Path("/etc/os-release").read_text()

    def _from_mirror(self, blob: Blob) -> str:
        """Have apt fetch the whole package, once; where that fails, what it says."""
        asked = (blob.name, blob.version)
        if asked not in self._refused:
            if self._is_suite:
                wanted = f"{blob.name}={blob.version}"
                done = self._apt_get("source", "-qq", "--download-only", wanted)
                self._refused[asked] = _complaint(done) if done.returncode else ""
            else:
                self._refused[asked] = f"not asked, since this is not Debian {self._suite}"
        return self._refused[asked]

    def _apt_get(self, *words: str) -> CompletedProcess[str]:
        return run(["apt-get", *self._options, *words], self._work)

    @cached_property
    def _options(self) -> Sequence[str]:
        """The machine's own mirrors as sources of source packages, in lists of our own."""
        sources, lists = self._work / "sources", self._work / "lists"
        sources.mkdir()
        (lists / "partial").mkdir(parents=True)
        for path in (self._apt / "sources.list", *self._apt.glob("sources.list.d/*.list")):
            if path.exists():
                lines = re.findall(r"^deb (.*)", path.read_text(), re.MULTILINE)
                told = "".join(f"deb-src {line}\n" for line in lines)
                (sources / f"{path.stem}.list").write_text(told)
        for path in self._apt.glob("sources.list.d/*.sources"):
            told = re.sub(r"^Types: .*", "Types: deb-src", path.read_text(), flags=re.MULTILINE)
            (sources / path.name).write_text(told)
        options = (
            *("-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={sources}"),
            *("-o", f"Dir::State::lists={lists}", "-o", "APT::Sandbox::User=root"),
        )
        # What could not be read is missed below, and told there.
        run(["apt-get", *options, "update", "-qq"], self._work)
        return options

    def _from_snapshot(self, blob: Blob, path: Path) -> None:
        """Fetch a file from where old versions are.

        Raises:
            OSError, HTTPException, msgspec.MsgspecError: it is not there, or nothing answers.
        """
        asked = (blob.name, blob.version)
        if asked not in self._kept:
            package = "/".join(urllib.parse.quote(it, safe="") for it in asked)
            said = self._got(f"mr/package/{package}/srcfiles?fileinfo=1")
            kept = msgspec.json.decode(said, type=Kept).fileinfo
            self._kept[asked] = {one.name: key for key, files in kept.items() for one in files}
        if blob.file not in self._kept[asked]:
            raise FileNotFoundError(f"{blob.title} has no such file there")
        path.write_bytes(self._got(f"file/{self._kept[asked][blob.file]}"))

    def _got(self, path: str) -> bytes:
        """What is behind a path there."""
        until = time.monotonic() + FETCHED_WITHIN
        address = f"{self._snapshot}/{path}"
        read = bytearray()
        # Whoever runs this names the place.
        with urllib.request.urlopen(address, timeout=ANSWERED_WITHIN) as answer:  # noqa: S310
            while some := answer.read1(1 << 20):
                read += some
                if time.monotonic() > until:
                    raise TimeoutError(f"no end of {address} within {FETCHED_WITHIN:g} s")
        return bytes(read)


def _complaint(done: CompletedProcess[str]) -> str:
    """The first thing that apt complains of; what follows only says that it failed."""
    complaints = re.findall(r"^E: *(.*)", done.stderr, re.MULTILINE)
    return complaints[0] if complaints else done.stderr.strip() or f"exit code {done.returncode}"
