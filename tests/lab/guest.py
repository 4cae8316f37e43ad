"""Runs a command where the kernel has ESP: here if it has, else in a guest on this same root.

The guest is QEMU without hardware help; its root is this machine's, below an overlay in memory, so
that nothing a test does reaches the machine. Only the directory of results is shared for writing.
"""

import argparse
import contextlib
import functools
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.kernel import fetch, initramfs

ROOT = Path(__file__).parents[2]
VIRTIOFSD: dict[str, tuple[str, ...]] = {
    # Debian 13's tells of mount points, below which an overlay finds nothing (EREMOTE).
    "/usr/libexec/virtiofsd": ("--no-announce-submounts",),
    "/usr/lib/qemu/virtiofsd": (),
}
"""Where the daemon may be, the first that is there, and the options that it needs."""

MEMORY = "4G"
BOOT_DEADLINE = 240.0
"""Seconds until the command runs; 6 on two idle cores."""

UNFINISHED = 70
"""The exit code where the command did not come to its end."""

MODULES = (
    "ansi_cprng ctr echainiv esp4 esp6 xfrm_user veth gcm seqiv ghash-generic bridge af_packet"
    " nf_tables nft_ct nft_nat nft_masq nft_chain_nat nft_xfrm nft_fib_inet nft_reject_inet"
    " nft_flow_offload nf_flow_table_inet nft_fib_netdev br_netfilter 8021q aesni_intel"
    " ghash_clmulni_intel"
)

READY = """\
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LAB_TIME_SCALE=6 CI={ci}
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
ip link set lo up
modprobe -a {modules} 2>/dev/null
# A slow CPU's queue is long: what finds no room in it is lost, on each link and behind ESP.
echo 20000 > /proc/sys/net/core/netdev_max_backlog
# The first SA would make the kernel load generators of random numbers for seconds.
echo > /proc/sys/kernel/modprobe
ip xfrm state add src 127.0.0.1 dst 127.0.0.1 proto esp spi 1 mode transport \
  aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128
ip xfrm state deleteall
cut -d' ' -f1 /proc/uptime > /results/booted
echo "guest: ready after $(cat /results/booted) s"
cd {root}
{command} </dev/null
echo $? > /results/exit
"""

INIT = f"""\
{READY}
sync
exec /bin/busybox reboot -f
"""

SYSTEMD_INIT = f"""\
{READY}
[ $(cat /results/exit) = 0 ] || exec /bin/busybox reboot -f
exec env -i /lib/systemd/systemd
"""


@functools.cache
def has_esp() -> bool:
    """Whether this machine's own kernel has ESP with AES-GCM."""
    name = f"esp{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    try:
        state = (
            "xfrm state add src 127.0.0.1 dst 127.0.0.1 proto esp spi 1 mode transport aead"
            " rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128"
        )
        added = subprocess.run(
            ["ip", "-n", name, *state.split()], check=False, capture_output=True, timeout=60
        )
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=20)
    return added.returncode == 0


@dataclass(frozen=True, slots=True)
class Boot:
    """A guest in which, after the command, the real systemd is process 1 until it ends the VM.

    Attributes:
        options: more of the kernel's command line.
        wire: a file on this machine that holds what the guest writes to /dev/ttyS1.
    """

    options: str
    wire: Path


def in_guest(
    command: list[str], results: Path, deadline: float, *, boot: Boot | None = None
) -> int:
    """Boot a guest, run the command in it, and return its exit code.

    Args:
        results: a directory on this machine that the guest sees as /results.
        deadline: seconds for all of it.
        boot: go on with systemd where the command succeeded.
    """
    kernel = fetch(ROOT / ".cache" / "guest")
    exit_file, booted = results / "exit", results / "booted"
    exit_file.unlink(missing_ok=True)
    booted.unlink(missing_ok=True)
    (results / "init").write_text(
        (SYSTEMD_INIT if boot else INIT).format(
            modules=MODULES,
            root=shlex.quote(str(ROOT)),
            command=shlex.join(command),
            ci=shlex.quote(os.environ.get("CI", "")),
        )
    )
    with tempfile.TemporaryDirectory(prefix="guest-") as place:
        archive = Path(place, "initramfs.gz")
        initramfs(kernel, results, archive)
        channel = Path(place, "virtiofs.sock")
        _boot(channel, _qemu(kernel, archive, channel, boot), booted, deadline)
    try:
        return int(exit_file.read_text())
    except (FileNotFoundError, ValueError):
        what = f"did not finish within {deadline:g} s" if booted.exists() else "did not boot"
        sys.stderr.write(f"guest: it {what}\n")
        return UNFINISHED


@contextlib.contextmanager
def _running(command: list[str], output: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that ends with the context, or with this process, however that ends."""
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def _boot(channel: Path, qemu: list[str], booted: Path, deadline: float) -> None:
    end = time.monotonic() + deadline
    boot_end = min(end, time.monotonic() + BOOT_DEADLINE)
    daemon, special = next(one for one in VIRTIOFSD.items() if Path(one[0]).exists())
    options = ("-o", "source=/,sandbox=chroot,cache=always", "-f", *special)
    with _running([daemon, f"--socket-path={channel}", *options], subprocess.DEVNULL):
        while not channel.exists() and time.monotonic() < boot_end:
            time.sleep(0.05)
        with _running(qemu) as vm:
            while not booted.exists() and vm.poll() is None and time.monotonic() < boot_end:
                time.sleep(0.2)
            if booted.exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    vm.wait(max(end - time.monotonic(), 0))


def here(command: list[str], results: Path, deadline: float) -> int:
    """Run the command on this machine, which has ESP, with the same /results."""
    link = Path("/results")
    if link.is_symlink():
        link.unlink()
    link.symlink_to(results)
    try:
        return subprocess.run(command, check=False, timeout=deadline).returncode
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"guest: the command did not finish within {deadline:g} s\n")
        return UNFINISHED
    finally:
        link.unlink()


def _qemu(kernel: Path, archive: Path, channel: Path, boot: Boot | None) -> list[str]:
    # Without hardware help the kernel's guards against its own processor cost a third of the guest.
    options = "console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off"
    # On a busy machine the boot's count of timer interrupts finds too few, and it panics.
    options += " no_timer_check"
    second = (
        ("-chardev", f"file,id=wire,path={boot.wire}", "-serial", "chardev:wire") if boot else ()
    )
    return [
        "qemu-system-x86_64",
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY),
        *("-object", f"memory-backend-memfd,id=mem,size={MEMORY},share=on"),
        *("-numa", "node,memdev=mem"),
        *("-chardev", f"socket,id=files,path={channel}"),
        *("-device", "vhost-user-fs-pci,chardev=files,tag=root,queue-size=1024"),
        *("-kernel", str(kernel), "-initrd", str(archive)),
        *("-append", f"{options} {boot.options}" if boot else options),
        *("-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *second,
    ]


def main() -> int:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(prog="tests.lab.guest", description=__doc__)
    parser.add_argument("--deadline", type=float, default=600, help="seconds for all of it")
    parser.add_argument("--results", type=Path, help="directory that the guest sees as /results")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args()
    # An ordinary way out of every `with`, and so no guest is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="results-") as place:
        results = (chosen.results or Path(place)).resolve()
        results.mkdir(parents=True, exist_ok=True)
        if has_esp():
            return here(chosen.command, results, chosen.deadline)
        sys.stdout.write("guest: this kernel has no ESP; booting one that has\n")
        sys.stdout.flush()
        return in_guest(chosen.command, results, chosen.deadline)


if __name__ == "__main__":
    sys.exit(main())
