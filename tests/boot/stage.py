"""Makes the guest a VM, and the world around it, before systemd starts.

Called with the name of the life. `boot` has the agent installed; `bosh` has nothing of it, and the
job where BOSH puts it; `rebooted` has the root disk that a life with BOSH has left.

The VM under test is the guest itself: its link eth0 is there, but neither up nor addressed. Its
peers are namespaces beside it, up and flooding. What shall outlive the VM's own end has a name
that begins with @, which systemd's last round of signals spares (ROOT_STORAGE_DAEMONS of systemd).
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.boot.apparmor import load_profiles
from tests.boot.place import (
    BARE,
    BARE_NS,
    BOOT,
    CONFIG,
    HUB,
    LAB,
    LINE,
    PEER,
    PEER_NS,
    PORT,
    REBOOTED,
    RESULTS,
    ROOT_DISK,
    SAVED_GUARD,
    VM,
    VM_NS,
)
from tests.charon.nodes import Node, ip
from tests.data_files import ROOT, installed
from tests.lab.namespaces import inside

FLOW = Path(__file__).with_name("flow_program.py")
FAREWELL = Path(__file__).with_name("farewell.py")
RECORDER = Path(__file__).with_name("recorder.py")
UNITS = Path("/etc/systemd/system")
RATE = 30

SUPERFLUOUS = (
    *("getty.target", "timers.target", "systemd-logind.service", "systemd-user-sessions.service"),
    *("systemd-tmpfiles-setup.service", "systemd-tmpfiles-setup-dev.service"),
    *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "systemd-sysusers.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "cryptsetup.target"),
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path"),
    *("dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("kmod-static-nodes.service", "systemd-modules-load.service", "systemd-sysctl.service"),
    *("sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "systemd-random-seed.service"),
    *("systemd-journal-flush.service", "systemd-initctl.socket", "e2scrub_reap.service"),
    *("monit.service", "postgresql.service", "dbus.service", "dbus.socket"),
)
"""Units of Debian that have nothing to do with this, and take seconds in the guest."""

NETWORKING = f"""\
[Unit]
Description=The VM's links, up until the power goes, as systemd-networkd leaves them
DefaultDependencies=no
Wants=network.target
After=network-pre.target systemd-remount-fs.service
Before=network.target shutdown.target
Conflicts=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip address add {VM}/24 dev eth0
ExecStart=ip link set eth0 up
ExecStop=sh -c 'read up idle < /proc/uptime; echo "[$up]" > {LAB}/networking.flow'
[Install]
WantedBy=multi-user.target
"""

JOB = """\
[Unit]
Description=A job that needs its network until its own end
After=network.target
[Service]
Type=exec
ExecStart={python} -I -S {program} {results}/farewell.json
[Install]
WantedBy=multi-user.target
"""

DRIVER = """\
[Unit]
Description=What happens to the VM in its life
# systemd forgets how a unit ended that nothing names.
After=ipsec-agent-charon.service ipsec-agent-drain.service
[Service]
Type=exec
WorkingDirectory={root}
Environment=LAB_TIME_SCALE=6
ExecStart={python} -m {driver} {life}
StandardOutput=append:/results/driver.log
StandardError=append:/results/driver.log
[Install]
WantedBy=multi-user.target
"""

MONIT = """\
[Unit]
Description=monit, as a stemcell has it; the BOSH agent starts it once it has mounted /var/vcap
After=network.target
[Service]
ExecStart=nice -n -10 /usr/bin/monit -I -c /var/vcap/monit/monitrc
Restart=always
KillMode=process
"""

WATCHDOG = "WatchdogSec=15s\n"
LAB_ONLY = """\
[Service]
# The tests' interpreter may live in a home directory, and this project in another or in /tmp.
ProtectHome=tmpfs
BindReadOnlyPaths={base} {root}
"""


def sandboxes(more: str = "") -> None:
    """Have the agent's units see the interpreter and this project, wherever they are."""
    for unit, own in (("ipsec-agent", more), ("ipsec-agent-drain", "")):
        drop_in = UNITS / f"{unit}.service.d" / "lab.conf"
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(LAB_ONLY.format(base=sys.base_prefix, root=ROOT) + own)


def install() -> None:
    """The agent, as `pip install --prefix=/usr` does it, its config, and the guard it saved."""
    for place, source in installed().items():
        target = Path("/", place)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    # The agent of this project, whatever project its virtual environment was made for.
    program = Path("/usr/bin/ipsec-agent")
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m ipsec_agent "$@"\n')
    program.chmod(0o755)
    for target, name in ((CONFIG, "vm.yml"), (SAVED_GUARD, "guard.nft")):
        target.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(RESULTS / name, target)
    sandboxes(WATCHDOG)


def enable(*names: str) -> None:
    """Have units start at the boot."""
    subprocess.run(["systemctl", "enable", *names], check=True, timeout=60)


def units(life: str) -> None:
    """Nothing starts but systemd's own, the lab, and what the life enables."""
    for wants in UNITS.glob("*.wants"):
        shutil.rmtree(wants)
    for name in SUPERFLUOUS:
        (UNITS / name).unlink(missing_ok=True)
        (UNITS / name).symlink_to("/dev/null")
    values = {
        "root": ROOT,
        "python": sys.executable,
        "program": FAREWELL,
        "results": RESULTS,
        "driver": "tests.boot.driver" if life == BOOT else "tests.boot.bosh_driver",
        "life": life,
    }
    (UNITS / "networking.service").write_text(NETWORKING)
    (UNITS / "lab-job.service").write_text(JOB.format(**values))
    (UNITS / "lab-driver.service").write_text(DRIVER.format(**values))
    enable("networking.service", "nftables.service", "lab-driver.service")


def links() -> None:
    """A bridge with the VM, a peer and a VM that never got IPsec."""
    for name in (HUB, PEER_NS, BARE_NS):
        ip("netns", "add", name)
    ip("netns", "attach", VM_NS, "1")
    ip("link", "add", "br0", "type", "bridge", netns=HUB)
    ip("link", "set", "br0", "up", netns=HUB)
    # The guest's own comes last: a name that it has cannot be given in any other namespace.
    for number, (name, address) in enumerate(((PEER_NS, PEER), (BARE_NS, BARE), (VM_NS, "")), 1):
        port = ("peer", f"p{number}", "netns", HUB)
        ip("link", "add", "eth0", "netns", name, "type", "veth", *port)
        ip("link", "set", f"p{number}", "master", "br0", "up", netns=HUB)
        if address:
            ip("link", "set", "lo", "up", netns=name)
            ip("link", "set", "eth0", "up", netns=name)
            ip("addr", "add", f"{address}/24", "dev", "eth0", netns=name)


def outliving(netns: str, program: Path, *arguments: str) -> None:
    """Start a program that lives until the power goes."""
    with inside(netns):
        subprocess.Popen(
            [f"@{program.stem}", "-S", str(program), *arguments],
            executable=os.path.realpath(sys.executable),
            env={
                "PYTHONHOME": sys.base_prefix,
                "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}",
                "LAB_TIME_SCALE": "6",
            },
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def disk(life: str) -> None:
    """What of IPsec is on the VM's disk as its power comes on."""
    if life == BOOT:
        load_profiles(RESULTS)
        install()
        enable("ipsec-agent.target", "lab-job.service")
        return
    (UNITS / "monit.service").unlink()
    (UNITS / "monit.service").write_text(MONIT)
    if life == REBOOTED:
        subprocess.run(["tar", "-xf", ROOT_DISK, "-C", "/"], check=True, timeout=60)


def main(life: str) -> None:
    """Set all of it up; systemd starts once the peer has IPsec."""
    LAB.mkdir()
    units(life)
    disk(life)
    links()
    peer = Node(PEER_NS, LAB)
    shutil.copy(RESULTS / "peer.yml", peer.config)
    peer.start()
    outliving(HUB, RECORDER, str(LINE), str(LAB))
    for netns in (VM_NS, PEER_NS):
        # Any address: the VM's own comes later.
        outliving(netns, FLOW, "answer", "0.0.0.0", str(PORT))
    peer.settled()
    for name, netns, address in (
        ("vm", VM_NS, PEER),
        ("vm-bare", VM_NS, BARE),
        ("peer", PEER_NS, VM),
        ("bare", BARE_NS, VM),
    ):
        outliving(netns, FLOW, "ask", str(LAB / f"{name}.flow"), address, str(PORT), str(RATE))


if __name__ == "__main__":
    main(sys.argv[1])
