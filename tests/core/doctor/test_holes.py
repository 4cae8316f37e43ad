"""strongSwan's known holes: by version and by Debian's patch level."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsec_agent.core.doctor.holes import HOLES, has, key
from tests.examples import examples

BY_NAME = {hole.name: hole for hole in HOLES}


@pytest.mark.parametrize(
    ("name", "version", "release", "open_"),
    [
        ("CVE-2026-35331", "5.9.8-5+deb12u3", 12, True),
        ("CVE-2026-35331", "5.9.8-5+deb12u4", 12, False),
        ("CVE-2026-35331", "5.9.8-5+deb12u10", 12, False),
        ("CVE-2026-35331", "6.0.1-6+deb13u4", 13, True),
        ("CVE-2026-35331", "6.0.1-6+deb13u5", 13, False),
        # Ubuntu and others correct holes and keep strongSwan's number.
        ("CVE-2026-35331", "5.9.13-2ubuntu4.24.04.1", 0, None),
        ("CVE-2026-35331", "5.4.0", 0, None),
        ("CVE-2026-35331", "6.0.6", 0, False),
        ("CVE-2026-35331", "6.0.6~rc1-1", 0, None),
        ("CVE-2026-35331", "1:6.0.6-1", 0, False),
        ("CVE-2022-40617", "5.9.1-1+deb11u3", 11, None),
        ("CVE-2026-35331", "1:5.9.8-1", 12, False),
        ("CVE-2026-35331", "6.0.10-1", 14, False),
        ("CVE-2026-47895", "5.9.8-5", 12, True),
        ("CVE-2026-47895", "6.0.9", 0, None),
        ("CVE-2026-78133", "5.9.8-5+deb12u1", 12, False),
        ("CVE-2023-41913", "5.9.8-5", 12, True),
    ],
)
def test_holes(name: str, version: str, release: int, *, open_: bool | None) -> None:
    """By Debian's numbers; by strongSwan's only that a hole is closed."""
    assert has(BY_NAME[name], version, release) is open_


def test_the_data() -> None:
    """Each line has a number, says what it does, and its versions can be compared."""
    for hole in HOLES:
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}", hole.name)
        assert hole.does
        assert hole.upstream or hole.debian
        for release, version in hole.debian:
            assert key("5.9.8") < key(version)
            assert f"deb{release}u" in version or release == 12


@given(st.lists(st.integers(0, 99), min_size=2, max_size=4), st.integers(1, 50))
def test_order(parts: list[int], patch: int) -> None:
    """A later patch is later, however many digits it has; a candidate of a release is earlier."""
    version = ".".join(map(str, parts))

    assert key(version) < key(f"{version}-1")
    assert key(f"{version}-1+deb12u{patch}") < key(f"{version}-1+deb12u{patch + 1}")
    assert key(f"{version}-1") < key(f"{version}-1+deb12u{patch}")
    assert key(f"{version}~rc1") < key(version)


NUMBERS = ("5.9.8", "6.0.1", "-1", "-5", "+deb12u", ".24.04", "0", "00", "1", "2", "10", "-")
SIGNS = ("ubuntu", "~rc", "~", "~~", "+", ".", "a", "z", "Z", "dfsg", "+b", "build")
WORDS = st.sampled_from(NUMBERS + SIGNS)
VERSIONS = st.builds(
    lambda epoch, words: f"{epoch}5{''.join(words)}0",
    st.sampled_from(["", "", "0:", "1:"]),
    st.lists(WORDS, max_size=5),
)
COMPARE = """\
while read -r one other; do
  dpkg --compare-versions "$one" lt "$other" && echo yes || echo no
done
"""


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no dpkg")
@settings(max_examples=examples(10), deadline=None)
@given(st.lists(st.tuples(VERSIONS, VERSIONS), min_size=20, max_size=20))
def test_as_dpkg(pairs: list[tuple[str, str]]) -> None:
    """Epochs, ~ and +, revisions and what has none, the suffixes of Ubuntu and of backports."""
    done = subprocess.run(
        ["sh", "-c", COMPARE],
        input="".join(f"{one} {other}\n" for one, other in pairs),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    ours = ["yes" if key(one) < key(other) else "no" for one, other in pairs]

    assert list(zip(pairs, ours, strict=True)) == list(zip(pairs, done.stdout.split(), strict=True))
    assert not done.stderr
