"""Checks of what is around the agent: CPU, other programs, firewalls, mounts, plugins, FIPS."""

from collections.abc import Iterator

from ipsec_agent.core.config import DEFAULT_ESP, Config
from ipsec_agent.core.doctor.agent import CHECK_MACHINE, command_of
from ipsec_agent.core.doctor.facts import Facts, Finding
from ipsec_agent.core.model import Role
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.strongswan_conf import PLUGINS

AES = {"x86_64": ("aes", "pclmulqdq"), "aarch64": ("aes", "pmull")}
"""Flags of a CPU that has AES-GCM in hardware, by the machine."""

FAST = ("aesni", "-ce", "vaes", "-neon", "aes-avx")
"""What the names of the kernel's drivers have that use it."""

SLOW = ("3des", "camellia")
"""Ciphers for which a CPU has no instructions."""

OTHERS = (
    "strongswan.service",
    "strongswan-starter.service",
    "ipsec.service",
    "libreswan.service",
    "racoon.service",
    "racoon2.service",
)
"""Units of IPsec programs that would take the ports, or flush policies."""

HARMFUL = {
    "bypass-lan": "it lets the whole local network pass in clear",
    "kernel-libipsec": "it encrypts outside the kernel, which the agent does not see",
    "kernel-pfkey": "it writes policies in the place of kernel-netlink",
    "stroke": "another program can then change charon's connections",
    "farp": "it answers ARP for other machines",
    "forecast": "it changes rules of the firewall",
    "connmark": "it narrows policies by marks",
    "updown": "it runs scripts for each SA",
}
NOT_FIPS = ("chacha20poly1305", "camellia", "3des", "md5", "curve25519", "x25519")
NETWORK_MOUNTS = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.glusterfs"})


def _esp(config: Config) -> tuple[str, ...]:
    return config.esp_proposals or DEFAULT_ESP


def _encrypts(facts: Facts) -> bool:
    return facts.wish is not None and facts.wish.role is Role.ENCRYPT


def cpu(facts: Facts) -> Iterator[Finding]:
    """It has AES in hardware, and the proposals use that."""
    wanted = AES.get(facts.cpu.machine)
    if facts.config is None or wanted is None or not facts.cpu.flags or not _encrypts(facts):
        return
    proposals = _esp(facts.config)
    lacks = [flag for flag in wanted if flag not in facts.cpu.flags]
    aes = [one for one in proposals if one.startswith("aes")]
    if lacks and aes:
        yield Finding(
            "cpu",
            Severity.WARNING,
            f"this CPU has no AES in hardware ({', '.join(lacks)} is missing), so {aes[0]} takes"
            " many times the CPU time",
            "grep -m1 -wo -e aes -e pclmulqdq /proc/cpuinfo",
            "have the hypervisor show the CPU's AES to the VM (a CPU model with `aes`), or write"
            " esp_proposals: chacha20poly1305 on every VM",
        )
    elif aes and facts.cpu.drivers and not _has_fast_driver(facts):
        module = "aesni_intel" if facts.cpu.machine == "x86_64" else "aes_ce_blk"
        yield Finding(
            "cpu",
            Severity.INFO,
            "the kernel has loaded no driver that uses the CPU's AES",
            f"modprobe {module}",
            "charon's first SA may load it; see `grep -A1 gcm /proc/crypto`",
        )
    slow = [one for one in proposals if any(word in one.split("-")[0] for word in SLOW)]
    if slow and not lacks:
        yield Finding(
            "cpu",
            Severity.INFO,
            f"{slow[0]} does not use the CPU's AES; aes128gcm16 is many times faster",
            "openssl speed -evp aes-128-gcm",
            "write esp_proposals: aes128gcm16 on every VM",
        )


def _has_fast_driver(facts: Facts) -> bool:
    return any(word in name for name in facts.cpu.drivers for word in FAST)


def others(facts: Facts) -> Iterator[Finding]:
    """No other IPsec program runs, or starts at boot."""
    for unit in facts.units or ():
        if unit.name in OTHERS and (unit.enabled or unit.active):
            does = "runs" if unit.active else "starts at the next boot"
            yield Finding(
                "other-ipsec",
                Severity.ERROR if unit.active else Severity.WARNING,
                f"{unit.name} {does}: it would take UDP 500 and 4500 from the agent's charon, and"
                " remove its policies",
                f"systemctl disable --now {unit.name}",
            )
    for name, pid in facts.daemons:
        yield Finding(
            "other-ipsec",
            Severity.ERROR,
            f"{name} (pid {pid}), an IPsec program that is not the agent's, runs",
            f"ps -fp {pid}",
            "end it, and see what starts it",
        )


def firewall(facts: Facts) -> Iterator[Finding]:
    """No rule of somebody else's drops or redirects what IPsec needs."""
    for rule in facts.blocking[:5]:
        yield Finding(
            "firewall",
            Severity.WARNING,
            f"a rule that is not the agent's stops ESP or IKE: {rule}",
            "nft -a list ruleset",
            "remove it, or let UDP 500, UDP 4500 and protocol 50 pass before it",
        )


def stop(facts: Facts) -> Iterator[Finding]:
    """Nothing hangs at a stop of IPsec, because it needs an encrypted machine."""
    if facts.config is None:
        return
    promise = Promise.of(facts.config)
    # One may have many servers.
    hanging = {
        mount.target: mount
        for mount in reversed(facts.mounts)
        if mount.kind in NETWORK_MOUNTS and promise.encrypted(mount.server)
    }
    for mount in hanging.values():
        yield Finding(
            "stop",
            Severity.INFO,
            f"{mount.target} ({mount.kind}) is on {mount.server}, which is encrypted: once"
            " IPsec has stopped, whoever uses it hangs",
            f"umount {mount.target}",
            "stop the jobs that use it, and unmount it, before IPsec; or list the server in"
            " no_ipsec_subnets on every VM",
        )


def plugins(facts: Facts) -> Iterator[Finding]:
    """charon has no plugin that undoes what the agent promises."""
    added = facts.config.agent.charon.plugins if facts.config else ()
    check = f"grep -n -A3 plugins {facts.path}"
    for name in added:
        if name in HARMFUL:
            yield Finding(
                "plugins",
                Severity.ERROR,
                f"agent.charon.plugins has {name}: {HARMFUL[name]}",
                check,
                "remove it, then `ipsec-agent reload`",
            )
    foreign = [name for name in added if name not in PLUGINS and name not in HARMFUL]
    if foreign:
        yield Finding(
            "plugins",
            Severity.INFO,
            f"agent.charon.plugins adds {', '.join(foreign)}, which the agent does not need",
            check,
        )


def fips(facts: Facts) -> Iterator[Finding]:
    """In FIPS mode the kernel and OpenSSL refuse what is not approved."""
    if not facts.fips or facts.config is None:
        return
    proposals = (*_esp(facts.config), *facts.config.ike_proposals)
    bad = [one for one in proposals if any(word in one for word in NOT_FIPS)]
    if bad:
        yield Finding(
            "fips",
            Severity.ERROR,
            f"this kernel is in FIPS mode and refuses {', '.join(bad)}",
            f"ipsec-agent check {facts.path} --machine",
            "use AES-GCM, SHA-2 and the NIST curves on every VM",
        )


def tools(facts: Facts) -> Iterator[Finding]:
    """What could not be read is told, as it is not known then."""
    for what in facts.unread:
        command = command_of(what.hint, CHECK_MACHINE)
        yield Finding("unread", Severity.INFO, f"not checked: {what.message}", command, what.hint)
