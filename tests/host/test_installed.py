"""What is installed on this machine, and which rules of others stop IPsec."""

from pathlib import Path

import pytest

from ipsec_agent.core.doctor.facts import Unit
from ipsec_agent.host import installed

RULESET = """
table inet ipsec_agent {
  chain input { ip protocol esp drop
    udp dport { 500, 4500 } drop
  }
}
table ip filter {
  chain before {
    type filter hook prerouting priority -450; policy accept;
    ip saddr 10.0.0.9 ip protocol esp counter packets 3 bytes 400 drop
    udp dport { 500, 4500 } drop
    udp dport 4500 redirect to :45000
    tcp dport 22 accept
    udp dport 5001 drop
    ip protocol esp accept
    meta l4proto tcp drop
  }
}
"""


def test_blocking_rules() -> None:
    """Rules that drop or redirect ESP or IKE are found; the guard's own are not meant."""
    assert installed.blocking_rules(RULESET) == (
        "ip saddr 10.0.0.9 ip protocol esp counter packets 3 bytes 400 drop",
        "udp dport { 500, 4500 } drop",
        "udp dport 4500 redirect to :45000",
    )


@pytest.mark.parametrize(
    ("text", "release"), [("12.11\n", 12), ("13\n", 13), ("trixie/sid\n", 0), ("", 0)]
)
def test_release(text: str, release: int, tmp_path: Path) -> None:
    """The number of Debian's release; a derivative that has another text is none."""
    file = tmp_path / "debian_version"
    file.write_text(text)

    assert installed.debian_release(file) == release
    assert installed.debian_release(tmp_path / "none") == 0


def test_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what is installed now counts, not what was removed and left its files."""
    said = "ii  libstrongswan 5.9.8-5+deb12u6\nrc  charon-systemd 5.9.8-5\n"
    monkeypatch.setattr(installed, "_output", lambda *_: said)

    assert installed.packages("libstrongswan") == {"libstrongswan": "5.9.8-5+deb12u6"}


def test_units(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Units that are not installed are left out; without systemd nothing is known."""
    said = (
        "Id=strongswan.service\nLoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\n\n"
        "Id=racoon.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n\n"
        "Id=ipsec-agent.target\nLoadState=loaded\nActiveState=active\nUnitFileState=disabled\n"
    )
    monkeypatch.setattr(installed, "_output", lambda *_: said)

    found = installed.units("x", booted=tmp_path)

    assert found == (
        Unit("strongswan.service", enabled=True, active=False),
        Unit("ipsec-agent.target", enabled=False, active=True),
    )
    assert installed.units("x", booted=tmp_path / "none") is None


def test_a_program_that_is_not_there() -> None:
    """It says nothing."""
    assert installed._output("no-such-program", "x") == ""
