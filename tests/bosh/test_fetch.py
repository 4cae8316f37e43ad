"""The release's blobs: where each is fetched from, and how the list moves to newer ones.

apt and pip are the real ones, with a mirror and an index of files; the place of old versions is a
server here, which answers as snapshot.debian.org does.
"""

import base64
import hashlib
import http.server
import json
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from bosh.blobs import Blob, ReleaseError, listed
from bosh.debian import Debian
from bosh.fetch import fetch, fetch_listed, update
from bosh.pypi import Pypi
from bosh.tarball import make
from tests.data_files import ROOT

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is needed")

OLD, NEW = "5.9.8-5+deb12u5", "5.9.8-5+deb12u6"
(SUITE,) = re.findall(r'VERSION_ID="(.*)"', Path("/etc/os-release").read_text()) or [""]
UPSTREAM = "strongswan_5.9.8.orig.tar.bz2"


def patches(version: str) -> str:
    """The name of the file with Debian's patches."""
    return f"strongswan_{version}.debian.tar.xz"


def content(file: str) -> bytes:
    """A file of a few bytes."""
    return f"this is {file}\n".encode()


def digest(file: str) -> str:
    """SHA-256 of its content."""
    return hashlib.sha256(content(file)).hexdigest()


def blob(file: str, version: str) -> Blob:
    """A file of strongSwan, listed."""
    return Blob("debian", "strongswan", version, f"strongswan/{file}", digest(file))


def mirrored(place: Path, version: str) -> None:
    """Make a mirror that has this version of strongSwan, and no other."""
    place.mkdir()
    files = (f"strongswan_{version}.dsc", UPSTREAM, patches(version))
    for file in files:
        (place / file).write_bytes(content(file))
    sums = "".join(f"\n {digest(it)} {len(content(it))} {it}" for it in files)
    (place / "Sources").write_text(
        f"Package: strongswan\nBinary: charon-systemd\nVersion: {version}\nFormat: 3.0 (quilt)\n"
        f"Architecture: any\nDirectory: .\nChecksums-Sha256:{sums}\n"
    )


@pytest.fixture
def apt(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A machine's apt, with its mirror; in the older form where that is asked for."""
    place = tmp_path / "apt"
    (place / "sources.list.d").mkdir(parents=True)
    mirror = tmp_path / "mirror"
    if getattr(request, "param", "") == "list":
        (place / "sources.list").write_text(f"# ours\ndeb [trusted=yes] file:{mirror} ./\n")
    else:
        (place / "sources.list.d/debian.sources").write_text(
            f"Types: deb\nURIs: file:{mirror}\nSuites: ./\nTrusted: yes\n"
        )
    return place


class Archive(http.server.BaseHTTPRequestHandler):
    """Answers as snapshot.debian.org does."""

    def __init__(self, answers: Mapping[str, bytes], *of: object) -> None:
        self.answers = answers
        super().__init__(*of)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer what is known."""
        answer = self.answers.get(self.path)
        self.send_response(404 if answer is None else 200)
        self.end_headers()
        self.wfile.write(answer or b"")

    def log_message(self, *of: object) -> None:
        """Say nothing."""


@pytest.fixture
def snapshot() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its address, and what it answers; nothing at first."""
    answers: dict[str, bytes] = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Archive, answers)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", answers
        server.shutdown()
        thread.join(10)


def kept(answers: dict[str, bytes], version: str, contents: Mapping[str, bytes]) -> None:
    """Have old files there."""
    hashes = {file: hashlib.sha1(it).hexdigest() for file, it in contents.items()}
    told = {key: [{"name": file, "archive_name": "debian"}] for file, key in hashes.items()}
    path = f"/mr/package/strongswan/{version.replace('+', '%2B')}/srcfiles?fileinfo=1"
    answers[path] = json.dumps({"fileinfo": told, "package": "strongswan"}).encode()
    answers.update({f"/file/{hashes[file]}": it for file, it in contents.items()})


@pytest.fixture
def debian(tmp_path: Path, apt: Path, snapshot: tuple[str, dict[str, bytes]]) -> Debian:
    """Debian, as that machine sees it."""
    work = tmp_path / "work"
    work.mkdir()
    return Debian(work, apt, snapshot[0], SUITE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A release whose list pins the old version."""
    place = tmp_path / "bosh"
    (place / "config").mkdir(parents=True)
    wheel = wheeled(tmp_path / "index", "vici", "6.0.3")
    of_wheel = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lines = [
        f"debian strongswan {OLD} strongswan/{UPSTREAM} {digest(UPSTREAM)}",
        f"debian strongswan {OLD} strongswan/{patches(OLD)} {digest(patches(OLD))}",
        f"pypi vici 6.0.3 ipsec-agent/{wheel.name} {of_wheel}",
    ]
    (place / "config/blobs.list").write_text("# a comment\n" + "\n".join(lines) + "\n")
    return place


def wheeled(place: Path, name: str, version: str, needs: str = "") -> Path:
    """Put a wheel into an index of files."""
    place.mkdir(exist_ok=True)
    path = place / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{about}/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        record = ""
        for file, text in files.items():
            wheel.writestr(file, text)
            sum_ = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            record += f"{file},sha256={sum_.decode().rstrip('=')},{len(text)}\n"
        wheel.writestr(f"{about}/RECORD", f"{record}{about}/RECORD,,\n")
    return path


@pytest.fixture
def pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pypi:
    """PyPI, which is an index of files here; the project needs vici."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\ndependencies = ["vici>=6,<7"]\n')
    work = tmp_path / "pip"
    work.mkdir()
    return Pypi(work, project)


def blobs_of(root: Path) -> set[str]:
    """What has been fetched."""
    return {path.name for path in (root / "blobs").rglob("*") if path.is_file()}


@pytest.mark.parametrize("apt", ["sources", "list"], indirect=True)
def test_the_mirror_has_it(tmp_path: Path, debian: Debian, root: Path, pypi: Pypi) -> None:
    """All comes from there; what is here already is not fetched, and what is another file is."""
    mirrored(tmp_path / "mirror", OLD)
    here = root / "blobs/strongswan"
    here.mkdir(parents=True)
    (here / UPSTREAM).write_text("something else")

    fetch(root, listed(root), debian, pypi)

    assert (here / UPSTREAM).read_bytes() == content(UPSTREAM)
    assert blobs_of(root) == {UPSTREAM, patches(OLD), "vici-6.0.3-py3-none-any.whl"}
    shutil.rmtree(tmp_path / "mirror")
    shutil.rmtree(tmp_path / "index")
    fetch(root, listed(root), Debian(tmp_path), Pypi(tmp_path, tmp_path))


def test_the_mirror_has_it_no_more(
    tmp_path: Path, debian: Debian, snapshot: tuple[str, dict[str, bytes]]
) -> None:
    """The place of old versions has it."""
    mirrored(tmp_path / "mirror", NEW)
    kept(snapshot[1], OLD, {it: content(it) for it in (UPSTREAM, patches(OLD))})

    assert debian.file(blob(patches(OLD), OLD)).read_bytes() == content(patches(OLD))
    assert debian.file(blob(UPSTREAM, OLD)).read_bytes() == content(UPSTREAM)


def test_a_file_that_the_mirror_lists_and_lacks(
    tmp_path: Path, debian: Debian, snapshot: tuple[str, dict[str, bytes]]
) -> None:
    """As a mirror does that is behind its own index."""
    mirrored(tmp_path / "mirror", OLD)
    (tmp_path / "mirror" / patches(OLD)).unlink()
    kept(snapshot[1], OLD, {patches(OLD): content(patches(OLD))})

    assert debian.file(blob(patches(OLD), OLD)).read_bytes() == content(patches(OLD))


def test_nobody_has_it(
    tmp_path: Path, debian: Debian, snapshot: tuple[str, dict[str, bytes]]
) -> None:
    """Each place is told, with what it said, and what can be done."""
    mirrored(tmp_path / "mirror", NEW)
    wanted = blob(patches(OLD), OLD)
    answers = snapshot[1]

    for has, said in (
        ({}, "HTTPError: HTTP Error 404: Not Found"),
        ({UPSTREAM: b""}, f"FileNotFoundError: strongswan {OLD} has no such file there"),
    ):
        answers.clear()
        if has:
            kept(answers, OLD, has)
        with pytest.raises(ReleaseError) as refused:
            debian.file(wanted)
        text = str(refused.value)
        assert text.startswith(f"{patches(OLD)} of strongswan {OLD} cannot be fetched.\n")
        assert f"\n  mirror: Can not find version '{OLD}' of package 'strongswan'\n" in text
        assert f"\n  {snapshot[0].rstrip('/')}, which keeps old versions: {said}\n" in text
        assert text.endswith(", or put the file into bosh/blobs/strongswan")


def test_what_is_listed_is_gone(
    tmp_path: Path, debian: Debian, root: Path, pypi: Pypi, snapshot: tuple[str, dict[str, bytes]]
) -> None:
    """How to move the list is told, too; and the release is made then."""
    mirrored(tmp_path / "mirror", NEW)
    with pytest.raises(ReleaseError, match=r"\nOr list .*: scripts/release --update \[NAME…\]$"):
        fetch_listed(root, debian, pypi)
    update(root, [], debian, pypi)
    fetch_listed(root, debian, pypi)


def test_what_was_listed_once_goes(tmp_path: Path, debian: Debian, root: Path, pypi: Pypi) -> None:
    """It would get into a package."""
    mirrored(tmp_path / "mirror", OLD)
    left = root / "blobs/strongswan" / patches(NEW)
    left.parent.mkdir(parents=True)
    left.touch()

    fetch_listed(root, debian, pypi)

    assert blobs_of(root) == {blob.file for blob in listed(root)}


def test_another_file(
    tmp_path: Path, debian: Debian, snapshot: tuple[str, dict[str, bytes]]
) -> None:
    """One whose digest is not the listed one is taken from nowhere."""
    mirrored(tmp_path / "mirror", OLD)
    kept(snapshot[1], OLD, {patches(OLD): content(patches(OLD))})
    wanted = Blob("debian", "strongswan", OLD, f"strongswan/{patches(OLD)}", "0" * 64)

    with pytest.raises(ReleaseError) as refused:
        debian.file(wanted)

    assert str(refused.value).count("a file of this name with another SHA-256") == 2


def test_another_debian(tmp_path: Path, apt: Path, snapshot: tuple[str, dict[str, bytes]]) -> None:
    """Where the mirror is another release's all comes from the place of old versions."""
    mirrored(tmp_path / "mirror", OLD)
    answers = snapshot[1]
    debian = Debian(tmp_path, apt, snapshot[0], "0")
    with pytest.raises(ReleaseError, match="mirror: not asked, since this is not Debian 0"):
        debian.file(blob(UPSTREAM, OLD))
    kept(answers, OLD, {UPSTREAM: content(UPSTREAM)})
    assert debian.file(blob(UPSTREAM, OLD)).read_bytes() == content(UPSTREAM)
    with pytest.raises(ReleaseError, match="the sources are those of Debian 0"):
        debian.newest("strongswan")


def test_update(tmp_path: Path, debian: Debian, root: Path, pypi: Pypi) -> None:
    """The list has the newest version of each, and what these need; comments stay."""
    mirrored(tmp_path / "mirror", NEW)
    wheeled(tmp_path / "index", "vici", "6.1", needs="Other_Thing")
    wheeled(tmp_path / "index", "Other_Thing", "2")
    wheeled(tmp_path / "index", "vici", "7.0")

    changes = update(root, [], debian, pypi)

    assert changes == (
        "other-thing: not listed -> 2",
        f"strongswan: {OLD} -> {NEW}",
        "vici: 6.0.3 -> 6.1",
    )
    after = listed(root)
    assert [(it.name, it.version, it.file) for it in after] == [
        ("strongswan", NEW, UPSTREAM),
        ("strongswan", NEW, patches(NEW)),
        ("other-thing", "2", "Other_Thing-2-py3-none-any.whl"),
        ("vici", "6.1", "vici-6.1-py3-none-any.whl"),
    ]
    assert after[1].digest == digest(patches(NEW))
    assert (root / "config/blobs.list").read_text().startswith("# a comment\ndebian strongswan ")
    assert {it.file for it in after} == blobs_of(root)


def test_update_of_one(tmp_path: Path, debian: Debian, root: Path, pypi: Pypi) -> None:
    """The others stay."""
    mirrored(tmp_path / "mirror", NEW)
    for name, version in (("thing", "1"), ("thing", "2"), ("vici", "6.1")):
        wheeled(tmp_path / "index", name, version)
    (tmp_path / "project/pyproject.toml").write_text('[project]\ndependencies = ["vici", "thing"]')
    thing = tmp_path / "index/thing-1-py3-none-any.whl"
    sum_ = hashlib.sha256(thing.read_bytes()).hexdigest()
    with (root / "config/blobs.list").open("a") as file:
        file.write(f"pypi thing 1 ipsec-agent/{thing.name} {sum_}\n")

    assert update(root, ["strongswan"], debian, pypi) == (f"strongswan: {OLD} -> {NEW}",)
    assert [it.version for it in listed(root)] == [NEW, NEW, "6.0.3", "1"]
    assert update(root, ["vici"], debian, pypi) == ("vici: 6.0.3 -> 6.1",)


def test_nothing_is_newer(tmp_path: Path, debian: Debian, root: Path, pypi: Pypi) -> None:
    """The list is the same, byte for byte."""
    mirrored(tmp_path / "mirror", OLD)
    before = (root / "config/blobs.list").read_text()

    assert update(root, [], debian, pypi) == ()
    assert (root / "config/blobs.list").read_text() == before


def test_update_to_what_nobody_has(tmp_path: Path, debian: Debian, root: Path, pypi: Pypi) -> None:
    """The list stays as it was, also for the rest; so it does for a name that it has not."""
    mirrored(tmp_path / "mirror", NEW)
    (tmp_path / "mirror" / patches(NEW)).unlink()
    wheeled(tmp_path / "index", "vici", "6.1")
    before = (root / "config/blobs.list").read_text()

    with pytest.raises(ReleaseError, match=f"{re.escape(patches(NEW))} .* cannot be fetched"):
        update(root, [], debian, pypi)
    with pytest.raises(ReleaseError, match="has no openssl; write one of strongswan, vici"):
        update(root, ["openssl"], debian, pypi)

    assert (root / "config/blobs.list").read_text() == before


def test_a_wheel_that_is_gone(tmp_path: Path, root: Path, pypi: Pypi) -> None:
    """It is told, as is one with another digest."""
    *_, wanted = listed(root)
    wheeled(tmp_path / "index", "vici", "6.0.3", needs="something-else")
    with pytest.raises(ReleaseError, match=r"PyPI has no vici-6.0.3-py3"):
        pypi.file(wanted)
    shutil.rmtree(tmp_path / "index")
    with pytest.raises(ReleaseError, match=r"vici==6\.0\.3"):
        pypi.file(wanted)


@pytest.mark.parametrize("line", ["debian strongswan 5.9.8", "npm a 1 a/b " + "0" * 64])
def test_a_line_that_is_not_understood(root: Path, line: str) -> None:
    """It is named, and how one is written."""
    path = root / "config/blobs.list"
    path.write_text(f"# a comment\n\n{line}\n")
    with pytest.raises(ReleaseError) as refused:
        make(root, root / "out.tgz", "1")
    assert str(refused.value) == (
        "config/blobs.list:3 is not understood; write KIND NAME VERSION PLACE SHA256,"
        " where KIND is debian or pypi"
    )


def test_the_real_list() -> None:
    """Each part of each source is known by its name, so that an update finds it."""
    for one in listed(ROOT / "bosh"):
        assert len(one.digest) == 64
        assert one.version.partition("-")[0] in one.file
