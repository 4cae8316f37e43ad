"""The release's packages, compiled as the BOSH agent does it, in a root like a stemcell's.

What was measured of the agent: it unpacks a package's archive into a directory of its own and calls
`bash -x packaging` there; /var/vcap/packages/NAME is a link to where the result belongs, and those
of the packages that it depends on are there. A result stays as long as the package, and what it
depends on, is the same.
"""

import graphlib
import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from tests.data_files import ROOT
from tests.release.root import CACHE, inside

VCAP = CACHE / "vcap"
"""What is /var/vcap in the root."""

MADE_WITHIN = 900.0

COMPILED_WITHIN = 3000.0
"""Seconds for one package, which takes 4 minutes on two cores that have nothing else to do."""

SCRIPT = """\
cd "/var/vcap/data/compile/$1"
export BOSH_COMPILE_TARGET=$PWD BOSH_INSTALL_TARGET=/var/vcap/packages/$1
export BOSH_PACKAGE_NAME=$1 BOSH_PACKAGE_VERSION=$2
exec bash -x packaging
"""


class CompileError(Exception):
    """A packaging script failed; the text is the end of what it said."""


class Package(Struct, frozen=True):
    """A package of a release.

    Attributes:
        archive: its tgz.
        version: the digest of its archive, and of those of the packages that it depends on.
        wants: those packages.
    """

    name: str
    archive: bytes
    version: str
    wants: tuple[str, ...] = ()


def released(target: Path) -> None:
    """Have scripts/release make the tarball.

    Raises:
        AssertionError: it failed; what it said.
    """
    words = [ROOT / "scripts/release", target]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=MADE_WITHIN)
    assert done.returncode == 0, done.stdout + done.stderr


def opened(archive: bytes) -> dict[str, bytes]:
    """The files of a tgz."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar.getmembers())
        return {name: file.read() for name, file in files if file is not None}


def packages(tarball: Path) -> tuple[Package, ...]:
    """The packages of a release, each behind those that it depends on."""
    read = opened(tarball.read_bytes())
    manifest: dict[str, Any] = yaml.safe_load(read["release.MF"])
    listed = {package["name"]: package for package in manifest["packages"]}
    found: dict[str, Package] = {}
    wants = {name: tuple(package["dependencies"]) for name, package in listed.items()}
    for name in graphlib.TopologicalSorter(wants).static_order():
        versions = (listed[name]["version"], *(found[one].version for one in wants[name]))
        version = hashlib.sha256(" ".join(versions).encode()).hexdigest()[:16]
        found[name] = Package(name, read[f"packages/{name}.tgz"], version, wants[name])
    return tuple(found.values())


def compiled(package: Package, vcap: Path) -> Path:
    """Compile it, if that was not done before; those that it depends on are there.

    Args:
        vcap: what is /var/vcap there.

    Returns:
        where the result is, outside of the root.

    Raises:
        CompileError: its packaging script failed.
        subprocess.TimeoutExpired: it did not come to its end.
    """
    place = vcap / "data/packages" / package.name / package.version
    marker = place.with_suffix(".compiled")
    if not marker.exists():
        shutil.rmtree(place.parent, ignore_errors=True)
        place.mkdir(parents=True)
    _link(vcap, package)
    if marker.exists():
        return place
    sources = vcap / "data/compile" / package.name
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir(parents=True)
    tar = ["tar", "-xz", "--no-same-owner", "-C", str(sources)]
    subprocess.run(tar, input=package.archive, check=True, timeout=60)
    words = ["sh", "-c", SCRIPT, "sh", package.name, package.version]
    done = inside(vcap, words, COMPILED_WITHIN)
    (vcap / f"{package.name}.log").write_text(done.stdout)
    if done.returncode != 0:
        raise CompileError(f"{package.name}: exit code {done.returncode}\n{done.stdout[-4000:]}")
    shutil.rmtree(sources)
    marker.touch()
    return place


def _link(vcap: Path, package: Package) -> None:
    link = vcap / "packages" / package.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(f"/var/vcap/data/packages/{package.name}/{package.version}")
