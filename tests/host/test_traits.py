"""What /proc says of a machine."""

from ipaddress import ip_address
from pathlib import Path

from ipsec_agent.core.doctor.facts import Mount
from ipsec_agent.host import traits


def test_cpu(tmp_path: Path) -> None:
    """Flags and drivers, as x86 and ARM write them."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu aes pclmulqdq\n")
    (tmp_path / "crypto").write_text("name : x\ndriver       : rfc4106-gcm-aesni\n")
    found = traits.cpu(tmp_path)

    assert {"aes", "pclmulqdq"} <= found.flags
    assert found.drivers == {"rfc4106-gcm-aesni"}
    (tmp_path / "cpuinfo").write_text("Features\t: fp aes pmull\n")
    assert "pmull" in traits.cpu(tmp_path).flags
    assert traits.cpu(tmp_path / "none").flags == frozenset()


def test_mounts(tmp_path: Path) -> None:
    """Those that name another machine."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mounts").write_text(
        "proc /proc proc rw 0 0\n"
        "10.0.0.9:/x /data nfs4 rw,vers=4.2,addr=10.0.0.9,clientaddr=10.0.0.5 0 0\n"
        "//nas/x /nas cifs rw,addr=fd00::9 0 0\n"
        "y /y nfs addr=name 0 0\n"
        "10.0.0.7:6789,[fd00::7]:6789,b:6789:/ /ceph ceph rw,name=x 0 0\n"
        "x@1.cephfs=/ /new ceph rw,mon_addr=10.0.0.6:3300/10.0.0.5:3300 0 0\n"
        "10.0.0.4:/volume /gluster fuse.glusterfs rw 0 0\n"
    )

    assert traits.mounts(tmp_path) == (
        Mount("/data", "nfs4", ip_address("10.0.0.9")),
        Mount("/nas", "cifs", ip_address("fd00::9")),
        Mount("/ceph", "ceph", ip_address("10.0.0.7")),
        Mount("/ceph", "ceph", ip_address("fd00::7")),
        Mount("/new", "ceph", ip_address("10.0.0.6")),
        Mount("/new", "ceph", ip_address("10.0.0.5")),
        Mount("/gluster", "fuse.glusterfs", ip_address("10.0.0.4")),
    )


def test_fips(tmp_path: Path) -> None:
    """A kernel without it has no such file."""
    assert not traits.fips(tmp_path)
    (tmp_path / "sys/crypto").mkdir(parents=True)
    (tmp_path / "sys/crypto/fips_enabled").write_text("1\n")
    assert traits.fips(tmp_path)


def test_programs(tmp_path: Path) -> None:
    """In this network namespace only; a container's is its own affair. One charon is ours."""
    for name, pid, namespace in (
        ("pluto", 7, "a"),
        ("pluto", 8, "b"),
        ("sshd", 9, "a"),
        ("charon-systemd", 10, "a"),
        ("charon-systemd", 11, "a"),
    ):
        place = tmp_path / str(pid)
        (place / "ns").mkdir(parents=True)
        (place / "comm").write_text(f"{name}\n")
        (place / "ns/net").symlink_to(f"net:[{namespace}]")
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/net").symlink_to("net:[a]")

    assert traits.ike_programs(10, tmp_path) == (("charon-systemd", 11), ("pluto", 7))


def test_a_charon_whose_files_were_replaced(tmp_path: Path) -> None:
    """By its program or by a library or plugin of strongSwan's; what else is gone is another's."""
    (tmp_path / "77").mkdir()
    maps, pid_file = tmp_path / "77/maps", tmp_path / "charon.pid"
    assert traits.replaced(pid_file, tmp_path) == 0
    pid_file.write_text("77\n")
    line = "7f3a6000-7f3a8000 r-xp 00002000 fe:00 260131                     "
    for text, found in (
        (f"{line}/usr/sbin/charon-systemd\n{line}/usr/lib/ipsec/libcharon.so.0.0.0\n", 0),
        (f"{line}/usr/sbin/charon-systemd\n{line}/memfd:x (deleted)\n{line}[stack]\n", 0),
        (f"{line}/usr/sbin/charon-systemd (deleted)\n{line}[stack]\n", 77),
        (f"{line}/usr/lib/ipsec/plugins/libstrongswan-x509.so (deleted)\n", 77),
    ):
        maps.write_text(text)
        assert traits.replaced(pid_file, tmp_path) == found
