"""The dummy SA as it travels to the kernel, how it is left out, and what is read of a failure."""

import errno
import gzip
import os
import socket
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.core.esp import DummySa, dummy_sas
from ipsec_agent.host.preflight import esp_ability, read_evidence
from ipsec_agent.host.xfrm_messages import INFINITE, NewSa, SaId
from ipsec_agent.host.xfrm_records import TIMES, dummy_deletion, dummy_sa, matters, state_of
from tests.configs import config
from tests.host.xfrm_made import Message, SaExpire, SaInfo
from tests.host.xfrm_made import sent as made

HEADER = 16
RELEASE = os.uname().release


def wanted(proposal: str = "aes128gcm16", version: int = 4, *, udp: bool = False) -> DummySa:
    """The SA of a proposal."""
    settings = replace(config(force_udp_encapsulation=udp), esp_proposals=(proposal,))
    return replace(dummy_sas(settings, [ip_address("10.0.0.5")])[0], version=version)


def sent(sa: DummySa) -> bytes:
    """The request's bytes."""
    message = dummy_sa(sa, lambda count: bytes(range(count)))
    message.encode()
    return bytes(message.data)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes behind the SA, by type."""
    found, at = {}, HEADER + 224
    while at < len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind] = data[at + 4 : at + length]
        at += -(-length // 4) * 4
    return found


def test_aead() -> None:
    """`struct xfrm_algo_aead`: name, bits of key and ICV, the key with its salt."""
    found = attributes(sent(wanted()))

    assert list(found) == [18]
    assert found[18][:64].rstrip(b"\0") == b"rfc4106(gcm(aes))"
    assert struct.unpack_from("=II", found[18], 64) == (160, 128)
    assert found[18][72:] == bytes(range(20))


def test_a_kernel_that_takes_no_sas(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error: what keeps the interface away is read."""
    family = socket.AF_NETLINK

    def none(asked: int, *_: int) -> socket.socket:
        assert asked == family
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))

    monkeypatch.setattr("ipsec_agent.host.preflight.socket.socket", none)

    found = esp_ability((wanted(),))

    assert found.no_xfrm
    assert found.evidence == read_evidence()


def test_cipher_and_integrity() -> None:
    """`struct xfrm_algo` and `xfrm_algo_auth`, which tells the ICV's bits."""
    found = attributes(sent(wanted("aes256-sha256")))

    assert sorted(found) == [2, 20]
    assert found[2][:64].rstrip(b"\0") == b"cbc(aes)"
    assert (struct.unpack_from("=I", found[2], 64), found[2][68:]) == ((256,), bytes(range(32)))
    assert found[20][:64].rstrip(b"\0") == b"hmac(sha256)"
    assert struct.unpack_from("=II", found[20], 64) == (256, 128)


def test_encapsulation_and_extended_numbers() -> None:
    """ESP in UDP between the ports 4500; a window where the sequence numbers are extended."""
    data = sent(wanted("aes128-sha256-esn", udp=True))
    found = attributes(data)

    assert struct.unpack_from("=H", found[4]) + struct.unpack_from(">HH", found[4], 2) == (
        2,
        4500,
        4500,
    )
    assert struct.unpack("=7I", found[23]) == (1, 0, 0, 0, 0, 32, 0)
    assert data[HEADER + 216] == 128


@pytest.mark.parametrize(("version", "family", "address"), [(4, 2, "127.0.0.1"), (6, 10, "::1")])
def test_where_it_is(version: int, family: int, address: str) -> None:
    """On loopback, with a reserved SPI, in transport mode, and over by itself after 2 s."""
    message = NewSa(sent(wanted(version=version)))
    message.decode()
    raw = ip_address(address).packed.ljust(16, b"\0")

    assert message["daddr"] == message["saddr"] == raw
    assert (message["spi"], message["proto"], message["mode"]) == (255, 50, 0)
    assert (message["family"], message["sel_family"]) == (family, family)
    assert message["hard_add_expires_seconds"] == 2
    # None of the other times: of seconds 0 is none, and all ones would be over at once.
    assert [message[name] for name in TIMES] == [0, 0, 0]
    assert message["hard_byte_limit"] == message["soft_packet_limit"] == INFINITE
    gone = dummy_deletion(version)
    assert (gone["daddr"], gone["spi"], gone["family"]) == (raw, 255, family)


def shown(kind: type[Any], number: int, *, spi: int = 255, address: str = "127.0.0.1") -> Message:
    """An SA of a dump, or an event of one."""
    message = kind()
    message["daddr"] = ip_address(address).packed.ljust(16, b"\0")
    message["family"] = 2 if ip_address(address).version == 4 else 10
    message["spi"], message["proto"] = spi, 50
    if kind is SaExpire:
        message["hard"] = 1
    if kind is not SaId:
        message["saddr"] = message["daddr"]
    return made(message, number)


OTHERS = [(256, "127.0.0.1"), (255, "10.0.0.1"), (0, "127.0.0.1"), (0xC0000001, "10.0.0.1")]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_it_is_no_sa_of_anybody(address: str) -> None:
    """Neither a reading of SAs nor an event of its end tells of it."""
    found = shown(SaInfo, 0x10, address=address)

    assert state_of(found.body) is None
    assert not matters(*shown(SaId, 0x11, address=address))
    assert not matters(*shown(SaExpire, 0x18, address=address))


@pytest.mark.parametrize(("spi", "address"), OTHERS)
def test_others_are_seen(spi: int, address: str) -> None:
    """Only a reserved SPI on loopback is ours."""
    found = shown(SaInfo, 0x10, spi=spi, address=address)

    assert state_of(found.body) is not None
    assert matters(*shown(SaId, 0x11, spi=spi, address=address))
    assert matters(*shown(SaExpire, 0x18, spi=spi, address=address)) is (spi != 0)


def test_nothing_wanted() -> None:
    """Then nothing is asked of the kernel; who is not root may ask for that."""
    assert esp_ability(()).trials == ()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with what a kernel and modprobe have."""
    for path, text in {
        "etc/modprobe.d/b.conf": "etc b",
        "etc/modprobe.d/a.conf": "etc a",
        "etc/modprobe.d/no": "no",
        "run/modprobe.d/b.conf": "hidden",
        "run/modprobe.d/c.conf": "run c",
        "usr/lib/modprobe.d/c.conf": "hidden",
        "lib/modprobe.d/d.conf": "lib d",
        "proc/cmdline": "ro quiet\n",
        "proc/modules": "esp4 28672 0 - Live 0x0\nxfrm_algo 16384 2 esp4,esp6, Live 0x0\n",
        "proc/sys/kernel/modules_disabled": "1\n",
        "proc/sys/kernel/modprobe": "/sbin/modprobe\n",
        f"lib/modules/{RELEASE}/modules.builtin": "kernel/crypto/gcm.ko\n",
        f"lib/modules/{RELEASE}/modules.dep": "kernel/net/ipv4/esp4.ko.xz: kernel/a.ko.xz\n"
        "kernel/crypto/ghash-generic.ko.zst:\n",
        f"boot/config-{RELEASE}": "CONFIG_INET_ESP=m\n# CONFIG_CRYPTO_GCM is not set\nCONFIG_X=y\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_evidence(root: Path) -> None:
    """All that tells why a kernel has no ESP; a file hides weaker ones of its name."""
    found = read_evidence(root)

    assert [(Path(path).relative_to(root).as_posix(), text) for path, text in found.modprobe] == [
        ("etc/modprobe.d/a.conf", "etc a"),
        ("etc/modprobe.d/b.conf", "etc b"),
        ("run/modprobe.d/c.conf", "run c"),
        ("lib/modprobe.d/d.conf", "lib d"),
    ]
    assert found.release == RELEASE
    assert found.command_line.split() == ["ro", "quiet"]
    assert found.loaded == {"esp4", "xfrm_algo"}
    assert found.builtin == {"gcm"}
    assert found.loadable == frozenset({"esp4", "ghash_generic"})
    assert found.options == (("CONFIG_INET_ESP", "m"),)
    assert (found.locked, found.loader) == (True, "/sbin/modprobe")


def test_a_file_that_only_hides_another(root: Path) -> None:
    """A link to /dev/null, as modprobe.d(5) has it; also one to nowhere."""
    for name in ("c.conf", "d.conf"):
        (root / "etc/modprobe.d" / name).symlink_to("/dev/null" if name == "d.conf" else "/none")

    text = "".join(text for _, text in read_evidence(root).modprobe)

    assert text == "etc aetc b"


def test_configuration_in_proc(root: Path) -> None:
    """Kernels without a file in /boot may tell it themselves."""
    (root / "boot" / f"config-{RELEASE}").unlink()
    (root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_CRYPTO_GCM=y\n"))

    assert read_evidence(root).options == (("CONFIG_CRYPTO_GCM", "y"),)


@pytest.mark.skipif(os.geteuid() != 0, reason="what root sees, as the agent does")
def test_hidden_modules(root: Path) -> None:
    """Behind systemd's ProtectKernelModules= nobody knows what the kernel can load."""
    (root / "lib/modules").rename(root / "away")
    (root / "lib/modules").mkdir(mode=0o000)

    assert read_evidence(root).loadable is None


def test_no_list_of_modules(root: Path) -> None:
    """Where depmod has not run, nobody knows either."""
    (root / f"lib/modules/{RELEASE}/modules.dep").unlink()

    assert read_evidence(root).loadable is None


def test_no_evidence(tmp_path: Path) -> None:
    """What cannot be read is unknown, and no error."""
    found = read_evidence(tmp_path)

    assert (found.modprobe, found.loadable, found.options) == ((), frozenset(), None)
    assert (found.locked, found.loader, found.loaded) == (False, "", frozenset())
