"""Incidents of a night, for real: one look at the status, or at the log, leads to the cause.

Those that need ESP are in tests/lab/test_incidents.py; docs/testing.md has all of them.
"""

import contextlib
import functools
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import incidents
from tests.certificates import Issued, ec_key, make_ca, make_leaf
from tests.charon.impatient import SHOWN_AFTER
from tests.charon.nodes import PYTHON, Node, complaints, ip, network, until
from tests.charon.reading import codes, reads
from tests.charon.shared_manifest import EXPECTED, configure
from tests.charon.test_ike_ports import held
from tests.charon.test_repair import loaded
from tests.charon.test_repair import rules as guard_rules
from tests.lab.deployment import A, B
from tests.lab.firewall import rules

pytestmark = [pytest.mark.charon, pytest.mark.timeout(240)]

CA = make_ca("CA", key=ec_key(1))

CONNECTIONS = 3
"""Those of the manifest that the VMs share."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two VMs; nothing runs yet."""
    with network(tmp_path, 2, "in") as (first, second):
        yield first, second


def up(*nodes: Node) -> None:
    """Start agents, and wait until each is content."""
    for node in nodes:
        node.start()
    for node in nodes:
        node.settled()


def obeys(node: Node, code: str) -> None:
    """Run the command that the hint of a problem has, as an operator does, and be content."""
    hint = next(one["hint"] for one in node.status()["problems"] if one["code"] == code)
    (command,) = re.findall(r"`(ip .*?)`", hint)
    subprocess.run(node.command(*shlex.split(command)), check=True, timeout=30)
    node.settled()


def test_ports_taken(node: Node) -> None:
    """Another program has UDP 4500 before charon: its pid and name, and the command to see it."""
    with held(node, "0.0.0.0", 4500) as pid:
        node.start()
        reads(node, incidents.PORT_TAKEN.of(port=4500, pid=pid, program="python"))

    node.settled()


def replaced(node: Node, old: int) -> bool:
    """Whether another charon has its connections."""
    return node.charon_pid != old and loaded(node) >= CONNECTIONS


def test_charon_killed_in_a_loop(node: Node) -> None:
    """By which signal, how often, and where to look; no other program is accused."""
    node.up()
    for _ in range(4):
        old = node.charon_pid
        os.kill(old, signal.SIGKILL)
        until(functools.partial(replaced, node, old), "charon is started again")

    reads(node, incidents.CHARON_KILLED)
    assert ", 4 times in " in node.ask("status").stdout


IMPATIENT = (PYTHON, "-m", "tests.charon.impatient")


def test_config_broken_for_the_next_shift(node: Node) -> None:
    """Somebody edits the file and goes: the line is named, once it has stayed so for a while."""
    configure(node, agent=node.agent_section(interval=1))
    node.start(around=IMPATIENT)
    node.settled()
    good = node.config.read_text()
    line = 1 + good[: good.index("10.9.0.0/24")].count("\n")
    node.config.write_text(good.replace("10.9.0.0/24", "10.9.0.0/33"))
    edited = time.monotonic()

    broken = incidents.CONFIG_BROKEN.of(path=node.config, line=line, subnet="10.9.0.0/33")
    reads(node, broken)

    assert time.monotonic() - edited >= SHOWN_AFTER
    assert node.policies() == EXPECTED
    node.config.write_text(good)
    until(lambda: not codes(node), "it is corrected")


def other_ca(node: Node) -> None:
    """Give a VM the certificate of another CA, and its trust in that one only."""
    stranger = make_ca("Strange CA", key=ec_key(3))
    configure(node, leaf=make_leaf(stranger, "stranger", key=ec_key(4)), cas=[stranger])


def test_a_ca_missing(pair: tuple[Node, Node]) -> None:
    """Both VMs name the other one: whose certificate is not trusted where, and what to compare."""
    ours, theirs = pair
    give(ours, CA, "ours")
    other_ca(theirs)
    up(*pair)
    ours.send(B)

    reads(ours, incidents.REFUSED.of(peer=B))
    reads(theirs, incidents.CA_MISSING.of(peer=A, subject="CN=ours"))
    theirs.send(A)
    reads(theirs, incidents.REFUSED.of(peer=A), {"peer-not-trusted"})
    reads(ours, incidents.CA_MISSING.of(peer=B, subject="CN=stranger"), {"peer-refuses-us"})


def test_a_refusal_and_the_next_agent(pair: tuple[Node, Node]) -> None:
    """Killed and started again, the agent says what the one before knew; a handshake ends it."""
    ours, theirs = pair
    give(ours, CA, "ours")
    other_ca(theirs)
    up(*pair)
    ours.send(B)
    reads(ours, incidents.REFUSED.of(peer=B))

    ours.end_agent(signal.SIGKILL)
    before = len(ours.log)
    ours.start()
    reads(ours, incidents.REFUSED.of(peer=B), since=before)

    give(theirs, CA, "theirs")
    assert theirs.ask("reload").returncode == 0

    def over() -> bool:
        ours.send(B)
        return incidents.REFUSED.code not in codes(ours)

    until(over, lambda: f"it is over: {codes(ours)}", every=0.5)


@functools.cache
def issued(ca: Issued, name: str, ends: timedelta) -> Issued:
    """A certificate that ends so long from now, or did before; one of each name."""
    start = datetime.now(UTC) + ends - timedelta(days=400)
    return make_leaf(ca, name, key=ec_key(10 + len(name)), days=400, not_before=start)


def give(node: Node, ca: Issued, name: str, ends: timedelta = timedelta(days=300)) -> None:
    """Give a VM a certificate of a CA, and its trust in that CA."""
    configure(node, leaf=issued(ca, name, ends), cas=[ca])


@pytest.mark.parametrize("names", [("vm", "vm"), ("vm", "other")], ids=["shared", "one each"])
def test_a_certificate_that_has_expired(pair: tuple[Node, Node], names: tuple[str, str]) -> None:
    """Which one, when, and how a new one is taken; not what a handshake with it came to."""
    ago = timedelta(days=-2)
    for node, name in zip(pair, names, strict=True):
        give(node, CA, name, ago)
        node.start()
    for node in pair:
        until(node.enforces, "its policies are there")
    pair[0].send(B)
    until(lambda: "AUTH_FAILED" in pair[0].charon_log, "a handshake is refused")

    for node, name in zip(pair, names, strict=True):
        date = f"{issued(CA, name, ago).certificate.not_valid_after_utc:%Y-%m-%d}"
        reads(node, incidents.EXPIRED.of(subject=f"CN={name}", date=date))


def test_a_peers_certificate_has_expired(pair: tuple[Node, Node]) -> None:
    """On its VM as above; on the others whose it is and since when, and not that it has no CA."""
    ago = timedelta(days=-2)
    for node, name, ends in zip(pair, ("vm", "other"), (timedelta(days=300), ago), strict=True):
        give(node, CA, name, ends)
        node.start()
    for node in pair:
        until(node.enforces, "its policies are there")
    pair[1].send(A)

    ended = issued(CA, "other", ago).certificate.not_valid_after_utc
    # charon tells local time.
    reads(pair[0], incidents.EXPIRED_THERE.of(peer=B, date=f"{ended.astimezone():%b %d %H:%M:%S}"))
    reads(pair[1], incidents.EXPIRED.of(subject="CN=other", date=f"{ended:%Y-%m-%d}"))


def test_a_peer_with_other_subnets(pair: tuple[Node, Node]) -> None:
    """Both VMs say with whom, and which lists to compare."""
    configure(pair[0], no_ipsec=[])
    configure(pair[1], no_ipsec=[], ipsec=[f"{B}/32", "10.9.0.128/25"])
    for node in pair:
        node.start()
    for node in pair:
        until(node.enforces, "its policies are there")
    pair[0].send(B)

    reads(pair[0], incidents.SUBNETS_DIFFER.of(peer=B))


@pytest.mark.parametrize("kind", ["esp", "ike"])
def test_proposals_that_do_not_match(pair: tuple[Node, Node], kind: str) -> None:
    """Both VMs say with whom, and which properties to compare."""
    rare = {"esp": "aes256gcm16!", "ike": "aes128-sha512-modp3072!"}[kind]
    usual = {"esp": "aes128gcm16!", "ike": "aes256gcm16-prfsha384-ecp384!"}[kind]
    for node, proposal in zip(pair, (rare, usual), strict=True):
        configure(node, no_ipsec=[], **{f"{kind}_proposals": [proposal]})
    up(*pair)

    for node, peer in ((pair[0], B), (pair[1], A)):
        reads(node, incidents.PROPOSALS_DIFFER.of(peer=peer), asking=lambda: pair[0].send(B))


def test_udp_500_blocked(pair: tuple[Node, Node]) -> None:
    """Who does not answer IKE, and which ports to look at."""
    for node in pair:
        configure(node, no_ipsec=[])
    up(*pair)
    with rules(pair[1].name, "before udp dport { 500, 4500 } drop"):
        reads(pair[0], incidents.IKE_BLOCKED.of(peer=B), asking=lambda: pair[0].send(B))


def test_a_peer_without_an_agent(pair: tuple[Node, Node]) -> None:
    """Who sends clear, how many packets, and where to look; the next answer has each packet."""
    bare, guarded = pair
    configure(guarded, no_ipsec=[])
    up(guarded)
    bare.send(B, 5)

    reads(guarded, incidents.WITHOUT_AGENT.of(peer=A, packets=5))
    guard = guarded.status()["guard"]
    assert (guard["state"], guard["dropped_in"]) == ("up", 5)
    assert [(it["address"], it["packets"]) for it in guard["clear_in"]] == [(A, 5)]


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A directory is a file system of its own meanwhile, with little room."""
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "state", place], check=True, timeout=30
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, timeout=30)


def fill(place: Path) -> None:
    """Leave no room."""
    with (place / "core.4711").open("wb", buffering=0) as dump, contextlib.suppress(OSError):
        while True:
            dump.write(bytes(4096))


def read_only(place: Path) -> None:
    """As the kernel does where a disk fails."""
    subprocess.run(["mount", "-o", "remount,ro", place], check=True, timeout=30)


DISKS: Mapping[str, tuple[Callable[[Path], None], incidents.Incident]] = {
    "full": (fill, incidents.DISK_FULL),
    "read-only": (read_only, incidents.DISK_READ_ONLY),
}


@pytest.mark.parametrize("how", DISKS)
def test_a_state_dir_without_room(node: Node, how: str) -> None:
    """Which file, why, and how to see it: full and read-only are told apart."""
    spoil, incident = DISKS[how]
    state = node.directory / "state"
    with small_disk(state):
        node.up()
        spoil(state)
        configure(node, no_ipsec=[])
        assert node.ask("reload").returncode == 0

        reads(node, incident.of(file=state / "guard.nft", place=state))
        node.end_agent()


def test_another_ipsec_program(node: Node) -> None:
    """Which policy of whom lets packets past; the command of the hint takes it away."""
    node.up()
    words = f"xfrm policy add src {A}/32 dst {B}/32 dir out priority 1"
    ip(*words.split(), netns=node.name)

    reads(node, incidents.OTHER_IPSEC.of(policy=f"{A}/32 to {B}/32 (out)"))
    obeys(node, "policies-bypassed")


def test_a_foreign_setdefault(node: Node) -> None:
    """What the kernel blocks; the command of the hint has it stop."""
    configure(node, agent=node.agent_section(interval=1))
    node.up()
    ip("xfrm", "policy", "setdefault", "in", "block", "out", "block", netns=node.name)

    reads(node, incidents.SET_DEFAULT.of(ways="in, out"))
    obeys(node, "policy-default-blocks")
    assert complaints(node.status()) <= {"esp-unavailable"}


def test_a_firewall_that_flushes(node: Node) -> None:
    """A script that takes away all of nftables, each time that something is there: what is undone
    by another program, and how to see which; the guard is back once it has ended."""
    node.up()
    script = "while :; do nft flush ruleset; sleep 0.05; done"
    with subprocess.Popen(node.command("sh", "-c", script)) as firewall:
        try:
            reads(node, incidents.REPAIRS_UNDONE.of(what="guard"), {"guard-missing"})
        finally:
            firewall.kill()

    node.settled()
    until(lambda: not codes(node), "it is over")


def test_a_cron_job_that_flushes(node: Node) -> None:
    """So seldom that each repair holds for a while: no problem is told, and the status says what is
    undone again and again."""
    node.up()
    for _ in range(3):
        subprocess.run(node.command("nft", "flush", "ruleset"), check=True, timeout=30)
        until(lambda: guard_rules(node), "the guard is back")
        node.settled()

    said = until(
        lambda: re.findall(r"(?m)^  repaired: load the guard, .*", node.ask("status").stdout),
        "it is told",
    )
    assert re.fullmatch(
        r"  repaired: load the guard, 3 times since [\d-]+ [\d:]+ UTC: find what undoes it", said[0]
    )
    assert not codes(node)


def test_an_address_that_is_gone(node: Node) -> None:
    """Which address no link has any more; the policies stay for the case that it comes back."""
    node.up()
    ip("addr", "del", f"{A}/24", "dev", "eth0", netns=node.name)

    reads(node, incidents.ADDRESS_GONE.of(address=A))
    assert node.policies() == EXPECTED
    ip("addr", "add", f"{A}/24", "dev", "eth0", netns=node.name)
    node.settled()
