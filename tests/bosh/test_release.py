"""The tarball of the BOSH release, made of the real jobs and specs with tiny blobs."""

import hashlib
import io
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from bosh.blobs import ReleaseError, digest, listed, write
from bosh.tarball import make
from ipsec_agent import __version__
from ipsec_agent.core.doctor.holes import DEFAULT_PLUGINS, HOLES, has
from tests.bosh.job import BOSH, SPEC

EXTRA = {"ipsec-agent": ["ipsec-agent/ipsec_agent-0.1.0-py3-none-any.whl"]}
"""What scripts/release builds itself."""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The release's directory with blobs of a few bytes, each listed with its digest."""
    root = tmp_path / "bosh"
    shutil.copytree(BOSH, root, ignore=shutil.ignore_patterns("blobs", "__pycache__"))
    blobs = listed(root)
    for place in (*(one.place for one in blobs), *EXTRA["ipsec-agent"]):
        blob(root, place)
    tiny = (replace(one, digest=digest(root / "blobs" / one.place)) for one in blobs)
    write(root, tuple(tiny))
    return root


def blob(root: Path, place: str) -> None:
    """A blob that holds its own name."""
    path = root / "blobs" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(place)


def opened(content: bytes) -> dict[str, tarfile.TarInfo]:
    """The members of a tgz."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {member.name: member for member in tar.getmembers()}


def read(content: bytes, name: str) -> bytes:
    """One member of a tgz."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def made(root: Path) -> bytes:
    """The tarball."""
    make(root, root / "out.tgz", "1.2.3")
    return (root / "out.tgz").read_bytes()


def test_every_file_that_specs_name(release: Path) -> None:
    """The tarball has each job and package, and these each file."""
    tarball = made(release)
    manifest: dict[str, Any] = yaml.safe_load(read(tarball, "release.MF"))
    assert (manifest["name"], manifest["version"]) == ("ipsec", "1.2.3")

    job = read(tarball, "jobs/ipsec.tgz")
    templates = {f"templates/{name}" for name in SPEC["templates"]}
    assert opened(job).keys() == {"job.MF", "monit", "properties_schema.json", *templates}
    assert yaml.safe_load(read(job, "job.MF")) == SPEC

    names = {path.name for path in (BOSH / "packages").iterdir()}
    assert {package["name"] for package in manifest["packages"]} == names
    for package in manifest["packages"]:
        content = read(tarball, f"packages/{package['name']}.tgz")
        assert package["sha1"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        members = opened(content)
        assert stat.S_IMODE(members["packaging"].mode) == 0o755
        patterns = yaml.safe_load((BOSH / "packages" / package["name"] / "spec").read_text())
        for pattern in patterns["files"]:
            assert [name for name in members if Path(name).match(pattern)], pattern
    agent = opened(read(tarball, "packages/ipsec-agent.tgz"))
    assert EXTRA["ipsec-agent"][0] in agent


def test_every_blob_is_used(release: Path) -> None:
    """What is listed lands in a package, and only there."""
    tarball = made(release)
    packed = [
        name
        for package in (BOSH / "packages").iterdir()
        for name in opened(read(tarball, f"packages/{package.name}.tgz"))
    ]
    blobs = listed(release)
    assert [packed.count(blob.place) for blob in blobs] == [1] * len(blobs)


def test_the_same_again(release: Path) -> None:
    """The same files make the same bytes; a changed one another version of its package alone."""
    first = made(release)
    assert made(release) == first
    packaging = release / "packages/python/packaging"
    packaging.write_text(packaging.read_text() + "# changed\n")

    before, after = (yaml.safe_load(read(one, "release.MF")) for one in (first, made(release)))

    assert before["jobs"] == after["jobs"]
    changed = [one["name"] for one in after["packages"] if one not in before["packages"]]
    assert changed == ["python"]


def test_the_program_runs_nothing_of_the_current_directory(tmp_path: Path) -> None:
    """Root may type it anywhere, also where others may write."""
    packaging = (BOSH / "packages/ipsec-agent/packaging").read_text()
    (script,) = re.findall(r"<<'SCRIPT'\n(.*?)SCRIPT\n", packaging, re.DOTALL)
    script = script.replace("/var/vcap/packages/ipsec-agent/site", str(BOSH.parent))
    script = script.replace("/var/vcap/packages/python/bin/python3", sys.executable)
    (tmp_path / "json.py").write_text("raise SystemExit('of somebody else')\n")
    words = ["sh", "-c", script, "ipsec-agent", "--version"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"ipsec-agent {__version__}\n", "")


@pytest.mark.parametrize("how", ["absent", "other"])
def test_an_unfit_blob(release: Path, how: str) -> None:
    """No tarball is made of it."""
    path = release / "blobs/python/libffi_3.4.4.orig.tar.gz"
    path.unlink() if how == "absent" else path.write_text("something else")
    with pytest.raises(ReleaseError, match=r"python/libffi_3.4.4.orig.tar.gz"):
        made(release)
    assert not (release / "out.tgz").exists()


def test_mistakes_in_specs(release: Path) -> None:
    """A file, a template or a package that is not there is named."""
    wheel = release / "blobs" / EXTRA["ipsec-agent"][0]
    for broken, message in (
        (release / "src/strongswan/ipsec", "no file matches strongswan/ipsec"),
        (release / "jobs/ipsec/templates/drain", "there is no templates/drain"),
        (release / "packages/python", "there is no package python"),
    ):
        aside = release / "aside"
        broken.rename(aside)
        with pytest.raises(ReleaseError, match=re.escape(message)):
            made(release)
        aside.rename(broken)
    for left in wheel.parent.iterdir():
        left.unlink()
    with pytest.raises(ReleaseError):
        made(release)


def test_the_blobs_are_what_the_agent_needs() -> None:
    """Each dependency of the project is listed once, and what these need in turn."""
    from importlib.metadata import requires  # noqa: PLC0415 - of this test alone

    wheels = [blob.name.lower() for blob in listed(BOSH) if blob.kind == "pypi"]
    assert len(wheels) == len(set(wheels))
    needed = {
        re.split(r"[^\w.-]", text)[0].lower()
        for text in (requires("ipsec-agent") or ())
        if "extra ==" not in text
    }
    assert needed | {"cffi", "pycparser"} == set(wheels)


def test_known_holes_are_told() -> None:
    """What doctor knows of the strongSwan that is compiled is in docs/bosh.md, and nothing else."""
    (version,) = {blob.version for blob in listed(BOSH) if blob.name == "strongswan"}
    told = set(re.findall(r"CVE-\d+-\d+", (BOSH.parent / "docs/bosh.md").read_text()))
    concern = {hole.name for hole in HOLES if hole.plugin in DEFAULT_PLUGINS}
    assert told == {hole.name for hole in HOLES if has(hole, version, 12)} & concern


def test_the_readme_leads_to_it() -> None:
    """In two lines: what makes the release, and where the rest is told."""
    paragraphs = (BOSH.parent / "README.md").read_text().split("\n\n")
    (found,) = [it for it in paragraphs if it.startswith("**With BOSH:**")]
    assert found.count("\n") == 1
    assert {"`scripts/release`", "`bosh/`"} <= set(re.findall(r"`[^`]+`", found))
    assert "[docs/bosh.md](docs/bosh.md)" in found
