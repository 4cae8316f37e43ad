"""The guest itself: what reaches this machine from it."""

import uuid
from pathlib import Path

import pytest

from tests.lab.guest import ROOT, in_guest

pytestmark = [pytest.mark.boot, pytest.mark.timeout(300)]

ESP = (
    "ip xfrm state add src 127.0.0.1 dst 127.0.0.2 proto esp spi 9 mode transport"
    " aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128"
)


def test_exit_code_esp_and_isolation(tmp_path: Path) -> None:
    """It has ESP, gives back the exit code, and writes nothing but results to this machine."""
    name = f"written-by-a-guest-{uuid.uuid4()}"
    script = f"{ESP} || exit 1; touch {ROOT}/{name} /{name} /results/seen && exit 37"

    code = in_guest(["sh", "-c", script], tmp_path, 240)

    assert code == 37
    assert (tmp_path / "seen").exists()
    assert not Path("/", name).exists()
    assert not (ROOT / name).exists()
