"""The guest's kernel and first file system: Debian's cloud kernel, unpacked, never installed."""

import gzip
import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

PACKAGE = "linux-image-cloud-amd64"
FIRST_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "fuse",
    "virtiofs",
    "overlay",
)

INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module.ko; done
/bin/busybox mount -t virtiofs root /lower || /bin/busybox reboot -f
/bin/busybox mount -t tmpfs -o size=75% tmpfs /rw
/bin/busybox mkdir /rw/upper /rw/work
/bin/busybox mount -t overlay overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work /new
/bin/busybox mkdir -p /new/results /new/usr/lib/modules
/bin/busybox mount --bind /lower{results} /new/results
/bin/busybox mount --bind /lower{modules_dir} /new/usr/lib/modules
/bin/busybox mount -t proc proc /new/proc
/bin/busybox mount -t sysfs sys /new/sys
/bin/busybox mount -t devtmpfs dev /new/dev
/bin/busybox umount /proc
/bin/busybox umount /dev
exec /bin/busybox switch_root /new /bin/bash /results/init
"""


def fetch(cache: Path) -> Path:
    """Unpack the kernel below a directory, once; returns the path of vmlinuz.

    Raises:
        subprocess.CalledProcessError: the package cannot be had.
    """
    tree = cache / "kernel"
    found = sorted(tree.glob("boot/vmlinuz-*"))
    if found:
        return found[-1]
    shown = subprocess.run(
        ["apt-cache", "depends", PACKAGE], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    versioned = re.search(r"Depends: (linux-image-\S+)", shown)
    assert versioned is not None, "run apt-get update first"
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", versioned[1]],
        check=True,
        cwd=cache,
        timeout=300,
    )
    package = next(cache.glob("linux-image-*.deb"))
    partial = cache / "kernel.partial"
    shutil.rmtree(partial, ignore_errors=True)
    subprocess.run(["dpkg", "-x", package, partial], check=True, timeout=120)
    kernel = next(partial.glob("boot/vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    if not (partial / "lib").exists():
        # Debian 13's package has its modules below usr/lib alone.
        (partial / "lib").symlink_to("usr/lib")
    subprocess.run(["depmod", "-b", partial, version], check=True, timeout=120)
    package.unlink()
    partial.rename(tree)
    return tree / "boot" / kernel.name


def unpacked(module: Path) -> bytes:
    """A module as insmod takes it; Debian 13 packs each with xz."""
    content = module.read_bytes()
    return lzma.decompress(content) if module.suffix == ".xz" else content


def initramfs(kernel: Path, results: Path, target: Path) -> None:
    """Write a first file system that mounts the machine's own root below an overlay."""
    version = kernel.name.removeprefix("vmlinuz-")
    modules_dir = (kernel.parents[1] / "lib" / "modules").resolve()
    root = target.with_suffix(".tree")
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "modules", "proc", "dev", "lower", "rw", "new"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for module in FIRST_MODULES:
        source = next((modules_dir / version).rglob(f"{module}.ko*"), None)
        if source is not None:
            (root / "modules" / f"{module}.ko").write_bytes(unpacked(source))
    here = [name for name in FIRST_MODULES if (root / "modules" / f"{name}.ko").exists()]
    (root / "init").write_text(
        INIT.format(modules=" ".join(here), results=results, modules_dir=modules_dir)
    )
    (root / "init").chmod(0o755)
    names = "\n".join(
        os.path.relpath(Path(at, name), root)
        for at, places, files in os.walk(root)
        for name in [*places, *files]
    )
    archive = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"],
        check=True,
        cwd=root,
        input=names.encode(),
        capture_output=True,
        timeout=60,
    ).stdout
    target.write_bytes(gzip.compress(archive, 1))
    shutil.rmtree(root)
