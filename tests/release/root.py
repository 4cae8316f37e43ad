"""A root with what a stemcell brings for compiling; debootstrap makes it once, in .cache/release.

Programs run in it as on a VM that compiles: `/var/vcap` is theirs, nothing else can be written but
what is in memory, and there is no network.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.data_files import ROOT
from tests.debootstrap import debootstrapped

MARKS = (
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        'VERSION_ID="12"' not in Path("/etc/os-release").read_text(),
        reason="the sources of Debian 12 are needed",
    ),
)
"""Of all tests here, besides that of their part."""

CACHE = ROOT / ".cache/release"
PLACE = CACHE / "root"

SUITE = "bookworm"
"""Of the age of a stemcell's: its OpenSSL is 3.0, as that of jammy and noble."""

BROUGHT = (
    *("build-essential", "bzip2", "iproute2", "nftables", "patch", "xz-utils"),
    *("libbz2-dev", "libncurses-dev", "libnsl-dev", "libreadline-dev", "libssl-dev"),
    *("libtirpc-dev", "uuid-dev", "zlib1g-dev"),
)
"""What is in the list of packages of the stemcell noble, too, as far as a `configure` asks for it.
pkg-config and the headers of libffi are not."""

ENTER = """\
set -e
root=$1 vcap=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$vcap" "$root/var/vcap"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=700 tmpfs "$root/var/lib/ipsec-agent"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom; do
  touch "$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
ip link set lo up
umask 022
exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@"
"""
"""The file descriptors' directory is bash's, which BOSH runs scripts with."""


def made() -> None:
    """Make the root, if it is not there.

    Raises:
        AssertionError: debootstrap failed; the end of its log.
    """
    debootstrapped(PLACE, SUITE, BROUGHT)
    for place in ("var/vcap", "var/lib/ipsec-agent"):
        (PLACE / place).mkdir(exist_ok=True)


def inside(
    vcap: Path, words: Sequence[str], deadline: float, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program in the root, which sees this directory as /var/vcap; nothing outlives it.

    Args:
        deadline: seconds.
        given: what it reads from stdin.
    """
    return subprocess.run(
        [
            *("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
            *("sh", "-c", ENTER, "sh", str(PLACE), str(vcap), *words),
        ],
        check=False,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=deadline,
    )
