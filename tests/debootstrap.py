"""A root of another Debian than this machine's, which debootstrap makes once, in .cache."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

INSTALLED_WITHIN, MADE_WITHIN = 300.0, 1500.0


def mirror() -> str:
    """Where this machine's apt has Debian from."""
    asked = ["indextargets", "--format", "$(REPO_URI)", "Label: Debian", "Component: main"]
    found = subprocess.run(
        ["apt-get", *asked], check=True, capture_output=True, text=True, timeout=60
    )
    return found.stdout.split()[0]


def debootstrapped(place: Path, suite: str, packages: Sequence[str]) -> None:
    """Make the root, if it is not there.

    Args:
        packages: what it has besides what every root has.

    Raises:
        AssertionError: debootstrap failed; the end of its log, which is beside the root.
    """
    if place.exists():
        return
    if shutil.which("debootstrap") is None:
        for words in (["update"], ["install", "-y", "--no-install-recommends", "debootstrap"]):
            apt = ["apt-get", "-qq", *words]
            subprocess.run(apt, check=True, capture_output=True, timeout=INSTALLED_WITHIN)
    partial, log = place.with_name(f"{place.name}.partial"), place.with_name("debootstrap.log")
    shutil.rmtree(partial, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        done = subprocess.run(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "debootstrap"),
                *("--variant=minbase", f"--include={','.join(packages)}", suite, str(partial)),
                mirror(),
            ],
            check=False,
            stdout=sink,
            stderr=sink,
            timeout=MADE_WITHIN,
        )
    assert done.returncode == 0, log.read_text()[-2000:]
    partial.rename(place)
