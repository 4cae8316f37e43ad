"""The Debian package: what its scripts do to a machine, what it brings along, and its example.

The scripts run in a directory that stands for the root, and what they call writes down that it was
called. tests/boot has a real package, dpkg and systemd.
"""

import fcntl
import functools
import re
import subprocess
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ipsec_agent import __version__
from ipsec_agent.core.manifest.agent_section import AGENT_KEYS, CHARON_KEYS
from ipsec_agent.core.manifest.parser import PROPERTIES, parse
from tests.certificates import make_ca, make_leaf
from tests.data_files import ROOT

DEB = ROOT / "deb"
WITHOUT_EFFECT = {"ike_version", "dpdaction"}
CALLED = (
    *("systemctl", "deb-systemd-helper", "deb-systemd-invoke", "systemd-tmpfiles"),
    *("py3compile", "py3clean", "nft", "ip"),
)
FAKE = """\
#!/bin/sh
printf '%s %s\\n' "${0##*/}" "$*" >> ROOT/calls
case "${0##*/} $*" in
  "nft -f -") cat >> ROOT/nft ;;
  "systemctl --quiet is-"*) grep -qsx "${2#--} ${3:-} ${4:-}" ROOT/units ;;
  "deb-systemd-helper --quiet was-enabled"*) [ ! -e ROOT/disabled ] ;;
  "ip xfrm state") cat ROOT/states 2>/dev/null || true ;;
  "ip xfrm policy") cat ROOT/policies 2>/dev/null || true ;;
esac
"""
POLICIES = """\
src 10.9.0.1/32 dst 10.9.0.0/24 
\tdir out priority 375423 
\ttmpl src 0.0.0.0 dst 0.0.0.0
\t\tproto esp reqid 1 mode transport
src 10.9.0.1/32 dst 10.9.0.254/32 
\tdir out priority 367231 
src 192.168.0.0/16 dst 172.16.0.0/12 
\tdir in priority 1 
\ttmpl src 192.0.2.1 dst 192.0.2.2
\t\tproto esp reqid 9 mode tunnel
src 10.9.0.0/24 dst 10.9.0.1/32 
\tdir in priority 375423 
\ttmpl src 0.0.0.0 dst 0.0.0.0
\t\tproto esp reqid 1 mode transport
"""  # noqa: W291 - as ip(8) prints it


class Machine:
    """A root directory, and what was called in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "fakes"
        self.bin.mkdir()
        for name in CALLED:
            self.program(name, FAKE.replace("ROOT", str(root)))
        for place in ("run/systemd/system", "etc/ipsec-agent", "var/lib/ipsec-agent"):
            (root / place).mkdir(parents=True)
        (root / "run/ipsec-agent").mkdir()
        self.process("1", "/usr/lib/systemd/systemd")
        self.process("self", "/usr/bin/dash")

    def process(self, pid: str, program: str, capable: str = "000001ffffffffff", **ns: str) -> None:
        """Have a process; `ns` are its namespaces where they are not this one's."""
        place = self.root / "proc" / pid
        (place / "ns").mkdir(parents=True, exist_ok=True)
        (place / "exe").symlink_to(program)
        for kind in ("net", "user"):
            (place / "ns" / kind).symlink_to(ns.get(kind, f"{kind}:[40265]"))
        (place / "status").write_text(f"Name:\tx\nCapPrm:\t{capable}\nCapEff:\t{capable}\n")

    def program(self, name: str, text: str) -> None:
        """Put a program into PATH."""
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def write(self, place: str, text: str = "") -> Path:
        """A file below this root."""
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, script: str, *arguments: str) -> str:
        """Run a maintainer script; what it says."""
        text = (DEB / script).read_text()
        text = re.sub(r"(?<![\w/])/(etc|run|usr|var|proc)\b", rf"{self.root}/\1", text)
        done = subprocess.run(
            ["sh", "-c", text, script, *arguments],
            check=False,
            env={"PATH": f"{self.bin}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def calls(self, program: str) -> list[str]:
        """The arguments of each call."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removeprefix(program).strip() for line in lines if line.startswith(program)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One with a running systemd."""
    return Machine(tmp_path)


def test_the_first_install_starts_nothing(machine: Machine) -> None:
    """The guard and the target come with the next boot; the operator is told what to write."""
    said = machine.run("postinst", "configure", "")

    assert machine.calls("deb-systemd-invoke") == ["try-restart ipsec-agent.service"]
    for unit in ("ipsec-agent-guard.service", "ipsec-agent.target"):
        assert f"enable {unit}" in machine.calls("deb-systemd-helper")
    assert "nothing runs yet" in said
    assert "examples/ipsec.yml" in said


def test_it_starts_nothing_with_a_config_either(machine: Machine) -> None:
    """Who installs may still want to check it; the command is said."""
    machine.write("etc/ipsec-agent/ipsec.yml")

    said = machine.run("postinst", "configure", "")

    assert machine.calls("deb-systemd-invoke") == ["try-restart ipsec-agent.service"]
    assert "systemctl start ipsec-agent.target" in said


def test_an_upgrade_restarts_the_agent_alone(machine: Machine) -> None:
    """Nothing is said of charon, the guard and others' services."""
    machine.write("etc/ipsec-agent/ipsec.yml")
    machine.write("units", "is-active ipsec-agent.target \nis-enabled strongswan.service \n")

    assert machine.run("prerm", "upgrade", "0.3.0") == ""
    assert machine.calls("systemctl") == machine.calls("deb-systemd-invoke") == []
    assert machine.run("postinst", "configure", "0.1.0") == ""
    assert machine.calls("deb-systemd-invoke") == ["try-restart ipsec-agent.service"]
    assert not [call for call in machine.calls("systemctl") if "disable" in call]


def test_what_is_disabled_stays_so(machine: Machine) -> None:
    """An upgrade does not enable what the operator has disabled."""
    machine.write("disabled")

    machine.run("postinst", "configure", "0.1.0")

    assert not [it for it in machine.calls("deb-systemd-helper") if it.startswith("enable")]


@pytest.mark.parametrize(
    ("unit", "place", "text", "kept"),
    [
        ("strongswan.service", "etc/swanctl/conf.d/a.conf", "  connections {\n", True),
        ("strongswan.service", "etc/swanctl/swanctl.conf", "# connections {\n", False),
        ("strongswan.service", "etc/swanctl/swanctl.conf", "include conf.d/*.conf\n", False),
        ("strongswan.service", "etc/swanctl/swanctl.conf", "include /srv/vpn/*.conf\n", True),
        ("strongswan.service", "policies", POLICIES, True),
        ("strongswan.service", "policies", "src 0.0.0.0/0 dst 0.0.0.0/0 \n\tsocket in\n", False),
        ("strongswan.service", "states", "src 192.0.2.1 dst 192.0.2.2\n", True),
        ("strongswan-starter.service", "etc/ipsec.conf", "include /etc/ipsec.d/*.conf\n", True),
        ("strongswan-starter.service", "etc/ipsec.conf", "conn office\n", True),
        ("strongswan-starter.service", "etc/ipsec.conf", "# conn office\nconfig setup\n", False),
    ],
)
def test_a_charon_with_connections_is_left_alone(
    machine: Machine, unit: str, place: str, text: str, *, kept: bool
) -> None:
    """It may be the operator's way in; one without any only has the ports."""
    machine.write(place, text)
    machine.write("units", f"is-enabled {unit} \n")

    said = machine.run("postinst", "configure", "")

    assert (f"--quiet disable {unit}" in machine.calls("systemctl")) is not kept
    assert (f"stop {unit}" in machine.calls("deb-systemd-invoke")) is not kept
    assert ("cannot start beside it" if kept else "is disabled") in said


def test_what_an_agent_of_pip_has_is_not_debians(machine: Machine) -> None:
    """Its SAs keep no other charon at the ports."""
    machine.write("states", "src 192.0.2.1 dst 192.0.2.2\n")
    machine.write("run/ipsec-agent/charon.pid", "7\n")
    machine.write("units", "is-enabled strongswan.service \n")

    assert "is disabled" in machine.run("postinst", "configure", "")


def test_what_pip_installed_is_named(machine: Machine) -> None:
    """It would run in the package's place."""
    machine.write("usr/local/bin/ipsec-agent")

    assert "pip uninstall" in machine.run("postinst", "configure", "")


def test_without_systemd(machine: Machine) -> None:
    """Under monit, or in an image that is made: no unit is asked for anything."""
    (machine.root / "run/systemd/system").rmdir()

    for script, *words in (
        ("postinst", "configure", ""),
        ("prerm", "remove"),
        ("postrm", "remove"),
    ):
        machine.run(script, *words)

    assert machine.calls("deb-systemd-invoke") == []
    assert not [it for it in machine.calls("systemctl") if "is-" not in it]


def test_removal_ends_ipsec_and_keeps_the_state(machine: Machine) -> None:
    """The agent and charon end, also under monit; neither guard, config nor state goes."""
    control = machine.write(
        "usr/share/ipsec-agent/monit/ipsec-agent-ctl",
        f'#!/bin/sh\necho "ctl $*" >> {machine.root}/calls\n',
    )
    control.chmod(0o755)
    kept = [machine.write("etc/ipsec-agent/ipsec.yml"), machine.write("var/lib/ipsec-agent/x")]

    machine.run("prerm", "remove")
    machine.run("postrm", "remove")

    (stopped,) = machine.calls("deb-systemd-invoke")
    assert set(stopped.split()) == {
        *("stop", "ipsec-agent.target", "ipsec-agent.service", "ipsec-agent-charon.service"),
        "ipsec-agent-drain.service",
    }
    assert machine.calls("ctl") == ["stop"]
    assert machine.calls("nft") == []
    assert all(path.exists() for path in kept)


def test_purge(machine: Machine) -> None:
    """The guard, what it saved, the config and the links of the units go, and that is said."""
    machine.write("etc/ipsec-agent/ipsec.yml")
    machine.write("policies", POLICIES)

    said = machine.run("postrm", "purge")

    for table in ("inet ipsec_agent", "netdev ipsec_agent"):
        assert f"delete table {table}" in (machine.root / "nft").read_text()
    assert "travel in clear" in said
    for place in ("etc/ipsec-agent", "var/lib/ipsec-agent", "run/ipsec-agent"):
        assert not (machine.root / place).exists()
    assert machine.calls("deb-systemd-helper") == [
        "purge ipsec-agent.target ipsec-agent-guard.service"
    ]
    assert [it for it in machine.calls("ip") if "delete" in it] == [
        "xfrm policy delete src 10.9.0.1/32 dst 10.9.0.0/24 dir out",
        "xfrm policy delete src 10.9.0.0/24 dst 10.9.0.1/32 dir in",
        "xfrm state deleteall proto esp mode transport",
    ]


@pytest.mark.parametrize(
    ("program", "capable"),
    [
        ("/usr/lib/ipsec/charon", "000001ffffffffff"),
        # One that is not root's, and one whose package has gone.
        ("/usr/sbin/charon-systemd", "0000000000001400"),
        ("/usr/libexec/ipsec/charon (deleted)", "0000000000003000"),
        ("/usr/libexec/ipsec/pluto", "000001ffffffffff"),
    ],
)
def test_purge_leaves_the_policies_of_a_charon_that_runs(
    machine: Machine, program: str, capable: str
) -> None:
    """Some other program's connections are none of the package's."""
    machine.write("etc/ipsec-agent/ipsec.yml")
    machine.write("policies", POLICIES)
    machine.process("77", program, capable)

    machine.run("postrm", "purge")

    assert machine.calls("ip") == []


@pytest.mark.parametrize(
    ("program", "capable", "ns"),
    [
        # Anybody may call his program so.
        ("/tmp/charon", "0000000000000000", {}),
        ("/tmp/charon", "0000000000000400", {}),
        ("/usr/lib/ipsec/charon", "000001ffffffffff", {"net": "net:[7]"}),
        ("/home/u/charon", "000001ffffffffff", {"user": "user:[7]"}),
        ("/usr/bin/not-charon", "000001ffffffffff", {}),
    ],
)
def test_what_is_only_called_charon_keeps_no_policies(
    machine: Machine, program: str, capable: str, ns: dict[str, str]
) -> None:
    """Nor does one of a container; else an orphan would cut this VM off from its peers for ever."""
    machine.write("etc/ipsec-agent/ipsec.yml")
    machine.write("policies", POLICIES)
    machine.process("77", program, capable, **ns)
    machine.write("proc/77/comm", "charon\n")

    machine.run("postrm", "purge")

    assert "xfrm state deleteall proto esp mode transport" in machine.calls("ip")


def test_purge_of_what_was_never_configured(machine: Machine) -> None:
    """Whoever has policies without a program has made them by hand, and keeps them."""
    machine.write("policies", POLICIES)

    machine.run("postrm", "purge")

    assert machine.calls("ip") == []


def test_purge_leaves_another_agent_alone(machine: Machine) -> None:
    """One that pip installed since runs with the same directories."""
    config = machine.write("etc/ipsec-agent/ipsec.yml")
    pid_file = machine.write("run/ipsec-agent/agent.pid", "1\n")

    with pid_file.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = machine.run("postrm", "purge")

    assert "another agent runs" in said
    assert config.exists()
    assert machine.calls("nft") == []


def test_a_new_python(machine: Machine) -> None:
    """Debian tells the package of its new default; what was compiled is made for that one."""
    machine.run("rtupdate", "rtupdate", "3.11", "3.13")

    assert machine.calls("py3clean") == machine.calls("py3compile") != []
    assert machine.calls("deb-systemd-invoke") == []


def test_the_agent_has_the_new_python_at_once(machine: Machine) -> None:
    """Once all of it is there; without systemd there is nothing to ask."""
    machine.run("rtupdate", "post-rtupdate", "3.11", "3.13")
    assert machine.calls("deb-systemd-invoke") == ["try-restart ipsec-agent.service"]

    (machine.root / "run/systemd/system").rmdir()
    machine.run("rtupdate", "post-rtupdate", "3.11", "3.13")
    assert len(machine.calls("deb-systemd-invoke")) == 1


def locked() -> dict[str, tuple[str, int]]:
    """Of each library in the package its version and how many wheels there are of it."""
    entries = re.findall(
        r"^(\S+)==(\S+) ((?:\\\n *\S+ ?)+)", (DEB / "wheels.txt").read_text(), re.MULTILINE
    )
    return {name: (version, hashes.count("--hash=sha256:")) for name, version, hashes in entries}


def test_the_package_has_every_library() -> None:
    """Those that pyproject.toml asks for, in versions that it allows."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    have = locked()
    for requirement in map(Requirement, wanted):
        version, wheels = have[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
        assert wheels


def test_each_python_has_what_is_compiled() -> None:
    """For each Python of scripts/package and each kind of machine there is a wheel."""
    script = (ROOT / "scripts/package").read_text()
    pythons = re.findall(r"^pythons=\((.*)\)$", script, re.MULTILINE)[0].split()
    machines = re.findall(r"\[(\w+)\]=\w+", script)
    for name in ("cffi", "msgspec", "pyyaml"):
        assert locked()[name][1] == len(pythons) * len(machines), name


def test_the_version() -> None:
    """It is written once; the change log has a section for it."""
    assert re.search(
        rf"^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]


@functools.cache
def pems() -> tuple[str, str, str]:
    """Certificate, key and CA."""
    ca = make_ca()
    leaf = make_leaf(ca)
    return leaf.cert_pem, leaf.key_pem, ca.cert_pem


def example(uncommented: Callable[[str], bool] = lambda _: False) -> str:
    """The example with certificates in it, and some of its commented lines in force."""
    text = (DEB / "ipsec.yml").read_text()
    made = iter(pems())
    text = re.sub(
        r"^    -----BEGIN.*?-----END.*?$",
        lambda _: "\n".join(f"    {line}" for line in next(made).splitlines()),
        text,
        flags=re.MULTILINE | re.DOTALL,
    )
    return re.sub(
        r"^  #(\w+)(?=:)",
        lambda it: f"  {it[1]}" if uncommented(it[1]) else it[0],
        text,
        flags=re.MULTILINE,
    )


def parsed(text: str) -> Any:
    """The config, which must be good, and of which nothing is warned."""
    found = parse(text, file="ipsec.yml", now=datetime.now(UTC))
    assert found.complaints == ()
    return found.config


def test_the_example_is_good() -> None:
    """With certificates in it; without them each is asked for."""
    assert parsed(example())
    refused = parse((DEB / "ipsec.yml").read_text(), file="ipsec.yml", now=datetime.now(UTC))
    assert refused.config is None
    assert {"instance_certificate", "instance_private_key", "ca_certificates"} <= {
        word for complaint in refused.complaints for word in re.findall(r"\w+", str(complaint))
    }


def test_the_example_shows_the_defaults() -> None:
    """Each commented line changes nothing, but those of the VM's own."""
    own = {"address", "interface", "charon", "metrics", "vici_socket"}
    shown, plain = example(lambda key: key not in own), example()
    assert shown != plain
    assert parsed(shown) == parsed(plain)


def test_the_example_has_every_key() -> None:
    """As docs/config.md has them, too."""
    tree = yaml.safe_load(example(lambda _: True))
    assert tree["ipsec"].keys() == PROPERTIES - WITHOUT_EFFECT
    assert tree["agent"].keys() == AGENT_KEYS
    assert tree["agent"]["charon"].keys() == CHARON_KEYS
