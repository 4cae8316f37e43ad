"""The BOSH release made whole, its packages compiled without a network, and what comes of them."""

import hashlib
import json
import re
import shutil
import stat
from pathlib import Path

import pytest
import yaml

from bosh.blobs import listed
from bosh.tarball import Member, archive
from ipsec_agent import __version__
from ipsec_agent.core.strongswan_conf import PLUGINS
from tests.bosh.job import BOSH, JOB, SPEC, given, render
from tests.certificates import ec_key, make_ca, make_leaf
from tests.data_files import ROOT
from tests.manifests import manifest
from tests.release.compiled import VCAP, CompileError, Package, compiled, opened, released
from tests.release.root import MARKS, inside

pytestmark = [pytest.mark.release, *MARKS]

NAMES = ("ipsec-agent", "python", "strongswan")
BLOBS = listed(BOSH)

IMPORTED = (
    *("_cffi_backend", "cryptography.hazmat.bindings._rust", "msgspec", "prometheus_client"),
    *("psutil", "structlog", "vici", "yaml", "ctypes", "pyexpat", "ssl", "zlib"),
)
"""What the agent is made of, each compiled part by its own name."""

LARGEST = {"python": 90e6, "strongswan": 10e6, "ipsec-agent": 60e6}
"""Bytes: some of debugging symbols, or of tests, are a package's that is many times larger."""

LIFE = """\
set -e
mkdir -m 700 /run/ipsec-agent
ip netns add other
ip link add eth0 type veth peer name peer0 netns other
ip -n other link set peer0 up
ip address add 10.0.1.7/20 dev eth0
ip link set eth0 up
agent=/var/vcap/packages/ipsec-agent/bin/ipsec-agent
strongswan=/var/vcap/packages/strongswan
config=/var/vcap/jobs/ipsec/config/ipsec.yml
tell() { "$@" >"/var/vcap/told/$name" 2>&1 || echo "exit code $?" >>"/var/vcap/told/$name"; }
name=check tell $agent check $config
$agent run --config $config >/var/vcap/sys/log/ipsec/agent.log 2>&1 &
name=wait tell $agent status --wait running --timeout 90
name=status tell $agent status --json
name=statusall tell $strongswan/sbin/ipsec statusall
name=stats tell $strongswan/sbin/swanctl --stats --uri unix:///run/ipsec-agent/charon.vici
name=conf tell cat /run/ipsec-agent/strongswan.conf
name=programs tell readlink "/proc/$!/exe" /proc/$(cat /run/ipsec-agent/charon.pid)/exe
kill $!
wait $! || true
"""
"""The job's programs with its rendered config, as pre-start and monit would start them."""

LINKED = """\
cd "/var/vcap/packages/$1/."
find . -type f | while read -r path; do
  if head -c 4 "$path" | grep -q ELF; then
    echo "$path:"
    ldd "$path"
  fi
done
"""


@pytest.fixture(scope="module")
def told(places: dict[str, Path]) -> dict[str, str]:
    """What the job's programs have said in a life of a minute."""
    ca = make_ca()
    text = manifest(("10.0.1.1/20",), leaf=make_leaf(ca, key=ec_key()), cas=[ca])
    # A veth, which a VM has for its containers.
    agent = {"address": "10.0.1.7", "uplinks": ["eth0"]}
    rendered = render({**given(text), "agent": agent})
    assert rendered.errors == ()
    for place in ("jobs", "sys", "told"):
        shutil.rmtree(VCAP / place, ignore_errors=True)
    for place in ("jobs/ipsec/config", "sys/log/ipsec", "told"):
        (VCAP / place).mkdir(parents=True)
    config = VCAP / "jobs/ipsec/config/ipsec.yml"
    config.touch(0o600)
    config.write_text(rendered.files["config/ipsec.yml"])
    done = inside(VCAP, ["sh", "-c", LIFE], 200)
    assert done.returncode == 0, done.stdout
    return {path.name: path.read_text() for path in (VCAP / "told").iterdir()} | {
        path.name: path.read_text() for path in (VCAP / "sys/log/ipsec").iterdir()
    }


def everything(place: Path) -> list[Path]:
    """All that a package has, links too."""
    return [place, *place.rglob("*")]


def test_the_tarball_has_what_the_specs_name(tarball: Path) -> None:
    """Each blob by its digest, each file of a job, and one wheel of the agent, of this version."""
    release = opened(tarball.read_bytes())
    listed = yaml.safe_load(release["release.MF"])
    assert listed["version"] == __version__
    assert sorted(package["name"] for package in listed["packages"]) == list(NAMES)
    for kind in ("jobs", "packages"):
        for one in listed[kind]:
            digest = hashlib.sha256(release[f"{kind}/{one['name']}.tgz"]).hexdigest()
            assert one["sha1"] == f"sha256:{digest}"
    job = opened(release["jobs/ipsec.tgz"])
    assert {f"templates/{name}" for name in SPEC["templates"]} | {"monit", "job.MF"} <= set(job)
    files = {
        name: content
        for package in NAMES
        for name, content in opened(release[f"packages/{package}.tgz"]).items()
    }
    for blob in BLOBS:
        assert hashlib.sha256(files[blob.place]).hexdigest() == blob.digest
    named = {
        pattern
        for package in NAMES
        for pattern in yaml.safe_load((BOSH / "packages" / package / "spec").read_text())["files"]
    }
    unnamed = {name for name in files if not any(Path(name).match(one) for one in named)}
    assert unnamed == {"packaging"}
    wheels = set(files) - {blob.place for blob in BLOBS} - {"strongswan/ipsec", "packaging"}
    assert wheels == {f"ipsec-agent/ipsec_agent-{__version__}-py3-none-any.whl"}


def test_the_same_again(tarball: Path, tmp_path: Path) -> None:
    """The same files make the same release, whatever an earlier build has left, so that BOSH
    compiles nothing again."""
    again = tmp_path / "again.tgz"
    left = ROOT / "build/lib/ipsec_agent/left.py"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    released(again)
    assert again.read_bytes() == tarball.read_bytes()


def test_the_agent_imports_all_that_it_needs(places: dict[str, Path]) -> None:
    """With the Python that was compiled, and nothing of another one."""
    script = (
        "import importlib, json, pkgutil, sys, ipsec_agent\n"
        f"for name in {IMPORTED!r}: importlib.import_module(name)\n"
        "for it in pkgutil.walk_packages(ipsec_agent.__path__, 'ipsec_agent.'):\n"
        "  if not it.name.endswith('__main__'): importlib.import_module(it.name)\n"
        "files = {getattr(it, '__file__', None) or '' for it in sys.modules.values()} - {''}\n"
        "print(json.dumps([sys.version_info[:2], sorted(files)]))\n"
    )
    python = "/var/vcap/packages/python/bin/python3"
    site = "PYTHONPATH=/var/vcap/packages/ipsec-agent/site"
    done = inside(VCAP, ["env", site, python, "-sP", "-"], 120, script)
    assert done.returncode == 0, done.stdout
    version, files = json.loads(done.stdout)
    assert version == [3, 11]
    assert [it for it in files if not it.startswith("/var/vcap/") and it != "<stdin>"] == []


def test_each_module_of_python_compiles(places: dict[str, Path]) -> None:
    """`make` fails for none of them, and a parser that is missing is missed only as it parses."""
    said = (VCAP / "python.log").read_text()
    assert re.findall(r"Failed to build these modules:\n.*|.*importing it failed.*", said) == []


def test_a_rendered_config_is_accepted(told: dict[str, str]) -> None:
    """By the agent that was compiled."""
    assert "exit code" not in told["check"]


def test_the_agent_runs_charon(told: dict[str, str]) -> None:
    """Both are those of the packages, and IPsec is enforced."""
    assert "exit code" not in told["wait"], told["wait"] + told["agent.log"]
    assert [Path(line).name for line in told["programs"].splitlines()] == ["python3.11", "charon"]
    assert all(line.startswith("/var/vcap/data/") for line in told["programs"].splitlines())
    assert "exit code" not in told["statusall"]


def test_charon_has_each_plugin_that_its_config_loads(told: dict[str, str]) -> None:
    """None is missing of those that the agent pins, and charon has no other."""
    (named,) = re.findall(r'load = "(.*)"', told["conf"])
    assert tuple(named.split()) == PLUGINS
    (loaded,) = re.findall(r"loaded plugins: (.*)", told["stats"])
    assert sorted(loaded.split()) == sorted(("charon", *PLUGINS))


def test_what_the_job_names_is_there(places: dict[str, Path]) -> None:
    """Each path of its packages that a hook, the config or a page for operators has."""
    paths = (JOB / "monit", *(JOB / "templates").iterdir(), ROOT / "docs/bosh.md")
    text = "".join(path.read_text() for path in paths)
    home = "/var/vcap/packages"
    for variable, name in (("$package", "ipsec-agent"), ("$strongswan", "strongswan")):
        text = text.replace(f"{variable}/", f"{home}/{name}/")
    named = set(re.findall(rf"{home}/([\w-]+)/([\w./-]*\w)", text))
    assert ("ipsec-agent", "lib/systemd/system") in named
    assert [it for it in sorted(named) if not (places[it[0]] / it[1]).exists()] == []


def test_versions(places: dict[str, Path]) -> None:
    """Of the sources that were compiled."""
    (strongswan,) = {it.version.partition("-")[0] for it in BLOBS if it.name == "strongswan"}
    (python,) = {it.version.partition("-")[0] for it in BLOBS if it.name.startswith("python3")}
    home = "/var/vcap/packages"
    for words, said in (
        (["strongswan/libexec/ipsec/charon", "--version"], f"strongSwan {strongswan}"),
        (["strongswan/sbin/ipsec", "version"], f"ipsec-agent {__version__}"),
        (["ipsec-agent/bin/ipsec-agent", "--version"], f"ipsec-agent {__version__}"),
        (["python/bin/python3", "--version"], f"Python {python}"),
    ):
        assert said in inside(VCAP, [f"{home}/{words[0]}", *words[1:]], 60).stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_library_is_there(places: dict[str, Path], name: str) -> None:
    """Neither a program nor a module is linked to one that the stemcell has not."""
    done = inside(VCAP, ["sh", "-c", LINKED, "sh", name], 300)
    assert re.findall(r".*not found.*|.*error.*", done.stdout) == []
    assert done.stdout.count("=>") > 5


@pytest.mark.parametrize("name", NAMES)
def test_files_are_roots_alone(places: dict[str, Path], name: str) -> None:
    """Nobody else owns one or may write to it, none has rights of its own, and no link dangles."""
    for path in everything(places[name]):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
        if path.is_symlink():
            assert not path.readlink().is_absolute(), path
            assert path.exists(), path
        else:
            assert found.st_mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID) == 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_superfluous(places: dict[str, Path], name: str) -> None:
    """Neither what only a compiler needs, nor more bytes than such a package has."""
    found = everything(places[name])
    assert [path for path in found if path.suffix in {".a", ".la", ".o"}] == []
    assert sum(path.lstat().st_size for path in found) < LARGEST[name]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("echo lost; false", "lost"),
        ("touch /usr/bin/own", "Read-only file system"),
        ("exec 3<>/dev/tcp/192.0.2.1/80", "Network is unreachable"),
    ],
    ids=["fails", "writes elsewhere", "fetches"],
)
def test_a_broken_packaging_script(
    places: dict[str, Path], line: str, said: str, tmp_path: Path
) -> None:
    """It is told, by what it said, and its result is no package."""

    def package(broken: str) -> Package:
        text = f"set -eu\n{broken}\ntouch $BOSH_INSTALL_TARGET/file\n"
        return Package("broken", archive((Member("packaging", text.encode()),)), "1")

    for _ in range(2):
        with pytest.raises(CompileError, match=said):
            compiled(package(line), tmp_path)
    assert [path.name for path in compiled(package(""), tmp_path).iterdir()] == ["file"]
