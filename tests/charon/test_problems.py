"""Problems that few VMs ever have: each is provoked, told in its whole sentence, and over once its
cause has gone."""

import contextlib
import json
import shlex
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from vici.exception import CommandException

from ipsec_agent.core.guard_table import PEERS_COUNTED
from tests.charon.nodes import AGENT, PYTHON, Node, ip, ips, knows, network, until
from tests.charon.reading import WITHIN, ends, found, tells
from tests.charon.shared_manifest import configure as give
from tests.charon.test_doctor_problems import container
from tests.lab.deployment import A, B, configure, double, issued
from tests.lab.namespaces import inside
from tests.lab.truth import charon_of, sas

pytestmark = [pytest.mark.charon, pytest.mark.timeout(240)]

IMPATIENT = (PYTHON, "-m", "tests.charon.impatient")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two VMs that encrypt."""
    with network(tmp_path, 2, "pb") as (first, second):
        configure([first, second], [])
        first.start()
        second.start()
        first.settled()
        second.settled()
        yield first, second


@contextlib.contextmanager
def unloading(node: Node) -> Iterator[None]:
    """Another client of charon's takes the private key away as soon as it is there."""
    gone, done = threading.Event(), threading.Event()

    def unload() -> None:
        with charon_of(node) as charon:
            (key,) = charon.get_keys()["keys"]
            while not done.wait(0.01):
                with contextlib.suppress(CommandException):
                    charon.unload_key({"id": key})
                    gone.set()

    program = threading.Thread(target=unload)
    program.start()
    try:
        assert gone.wait(WITHIN), "it was not unloaded"
        yield
    finally:
        done.set()
        program.join()


def handshake(node: Node, own: str, peer: str) -> None:
    """Begin one, whatever comes of it."""
    with charon_of(node) as charon:
        # One that has succeeded would be used again, and nobody would have to sign.
        for sa in sas(node):
            list(charon.terminate({"ike-id": sa.number, "force": "yes", "timeout": "-1"}))
    with contextlib.suppress(CommandException):
        double(node, own, peer)


def test_the_key_is_unloaded(pair: tuple[Node, Node]) -> None:
    """It is this VM's own fault, whoever began the handshake, and the agent does not load the key
    at full speed for ever."""
    ours, theirs = pair
    with unloading(ours):
        tells(
            ours,
            "own-key-missing",
            "warning",
            "charon has no private key for this VM's certificate"
            " (charon: no private key found for 'CN=VM')",
            "the agent loads it again; where that does not last, find the program that unloads it"
            " over charon's VICI socket",
            asking=lambda: handshake(theirs, B, A),
        )
        tells(
            ours,
            "repair-paused",
            "error",
            "another program keeps undoing the agent's repairs (private key); the agent repairs"
            " less often",
            "find the other program that changes IPsec, nftables or links on this VM, and stop it:"
            " `ip xfrm monitor`, `nft monitor`, `ip monitor link`",
        )

    ends(ours, "own-key-missing")
    ends(ours, "repair-paused")


def asks_for_another(node: Node, own: str, peer: str) -> None:
    """Another IPsec program, or another config of it, which expects somebody else there."""
    ca, leaf = (one.certificate.public_bytes(Encoding.DER) for one in issued())
    stranger = {
        "version": "2",
        "local_addrs": [own],
        "remote_addrs": [peer],
        "local": {"auth": "pubkey", "certs": [leaf]},
        "remote": {"auth": "pubkey", "cacerts": [ca], "id": "CN=somebody else"},
        "children": {"stranger": {"mode": "transport"}},
    }
    with charon_of(node) as charon:
        charon.load_conn({"stranger": stranger})
        try:
            with pytest.raises(CommandException):
                list(charon.initiate({"child": "stranger", "timeout": "60000"}))
        finally:
            with contextlib.suppress(CommandException):
                charon.unload_conn({"name": "stranger"})


def test_a_peer_asks_for_another_identity(pair: tuple[Node, Node]) -> None:
    """Who it is, and that no list of subnets is the cause; a handshake as usual ends it."""
    ours, theirs = pair
    asks_for_another(theirs, B, A)

    tells(
        ours,
        "peer-not-configured",
        "warning",
        f"{B} asks for a connection that this VM's config does not have"
        " (charon: no matching peer config found)",
        "find out what runs IPsec on that peer: it asks for another identity than that of this"
        " VM's certificate, or proves its own by another way than a certificate",
    )

    ends(ours, "peer-not-configured", lambda: handshake(theirs, B, A))


DIRECTOR = "director.example"
OWN_FILES = """
mount -t tmpfs vm /var
mkdir -p /var/vcap/bosh
cp "$0/settings.json" /var/vcap/bosh
for one in hosts resolv.conf nsswitch.conf; do mount --bind "$0/$one" "/etc/$one"; done
exec "$@"
"""
"""Runs a program on a VM of BOSH's, within mounts of its own (ip-netns(8))."""


def test_a_director_without_an_address(tmp_path: Path) -> None:
    """Nobody answers for its name; once somebody does, the next reload knows."""
    with network(tmp_path, 1, "pl") as (node,):
        give(node)
        hosts = node.directory / "hosts"
        hosts.touch()
        (node.directory / "settings.json").write_text(
            json.dumps({"mbus": f"nats://user:secret@{DIRECTOR}:4222"})
        )
        (node.directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (node.directory / "nsswitch.conf").write_text("hosts: files dns\n")
        node.start(around=("sh", "-ec", OWN_FILES, str(node.directory)))
        node.settled()

        tells(
            node,
            "lockout-unresolved",
            "info",
            f"{DIRECTOR} (BOSH director or blobstore) has no address that this VM can resolve:"
            " whether the config cuts it off is not known",
            f"try `getent ahosts {DIRECTOR}`; if it is inside ipsec_subnets, list it in"
            " no_ipsec_subnets",
        )

        hosts.write_text(f"192.0.2.7 {DIRECTOR}\n")
        done = node.ask("reload")
        assert (done.returncode, done.stderr) == (0, "")
        ends(node, "lockout-unresolved")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """A VM that soon forgets what it has seen, and one beside it without an agent."""
    with network(tmp_path, 2, "pg") as (node, bare):
        give(node, ipsec=["10.9.0.0/16"], no_ipsec=[], agent=node.agent_section(interval=1))
        node.start(around=IMPATIENT)
        node.settled()
        yield node, bare


IN_A_CONTAINER = "10.9.200.2"


def test_a_link_of_a_container(guarded: tuple[Node, Node]) -> None:
    """That leads nowhere else is not guarded: what travels there is told, until nothing does."""
    node, _ = guarded
    with container(node) as netns:
        ips(f"addr add {IN_A_CONTAINER}/32 dev v1", netns=netns)
        until(lambda: inside_is(node, "v0"), "its link is known")

        sent = 0

        def send() -> None:
            nonlocal sent
            if sent == 0:
                datagram(netns, IN_A_CONTAINER, A)
                sent += 1

        tells(
            node,
            "link-not-guarded",
            "info",
            "1 packet between encrypted addresses went in clear over v0, which is not guarded:"
            " its other end is in a container that has no other way out",
            "if v0 leaves this VM, write agent.uplinks: [v0]",
            asking=send,
        )
        ends(node, "link-not-guarded")


def inside_is(node: Node, link: str) -> bool:
    """Whether the guard leaves a link alone."""
    listed = subprocess.run(
        node.command("nft", "list", "table", "inet", "ipsec_agent"),
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    return f'"{link}"' in listed


def datagram(netns: str, source: str, target: str) -> bool:
    """Send one from an address; False where the guard forbids it."""
    with inside(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        try:
            sender.sendto(b"clear", (target, 9))
        except PermissionError:
            return False
        return True


VIRTUAL = "192.0.2.1"


def test_an_address_that_the_link_does_not_have(guarded: tuple[Node, Node]) -> None:
    """A program sends from a virtual address on lo: whose it is, how often, and what to do."""
    node, _ = guarded
    ip("addr", "add", f"{VIRTUAL}/32", "dev", "lo", netns=node.name)
    for _ in range(3):
        assert not datagram(node.name, VIRTUAL, B)

    tells(
        node,
        "source-not-on-link",
        "warning",
        f"the guard dropped clear packets to encrypted addresses from {VIRTUAL} (3 packets), which"
        " their outgoing link does not have",
        "let the program send from an address of that link; list an address that must stay clear,"
        " such as a virtual one on lo, in no_ipsec_subnets of every VM",
    )
    ends(node, "source-not-on-link")


def forged(source: IPv4Address, target: str) -> bytes:
    """A packet of an unknown protocol; the kernel fills in the sum."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 21, 7, 0, 64, 99, 0)
    return head + source.packed + IPv4Address(target).packed + b"x"


def test_forged_senders(guarded: tuple[Node, Node]) -> None:
    """They fill the guard's list: that is told, and also that somebody whom it cannot name sends
    clear; the commands of the hint empty it."""
    node, bare = guarded
    # The first packets would wait for the address, and only a few can.
    knows(bare, A, node)
    where = f"--config {node.config} --socket {node.run_dir / 'control.sock'}"
    down, up = (f"ipsec-agent guard {verb} {where}" for verb in ("down", "up"))
    commands = f"`{down}` and `{up}`"
    first = IPv4Address("10.9.16.0")
    with (
        inside(bare.name),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
    ):
        for number in range(PEERS_COUNTED + 1):
            raw.sendto(forged(first + number, A), (A, 0))

    tells(
        node,
        "guard-counters-full",
        "info",
        "the guard's lists are full (clear_in): it drops further peers without naming them",
        f"an address leaves an hour after its last packet; {commands} empty them now",
    )
    ends(node, "clear-received")
    before = node.status()["guard"]["dropped_in"]
    for _ in range(7):
        datagram(bare.name, B, A)
    until(
        lambda: [
            message
            for _, message, _ in found(node, "clear-received")
            if message.startswith("the guard dropped 7 clear packets from addresses")
        ],
        lambda: f"the real one is told: {found(node, 'clear-received')}",
        WITHIN,
    )
    assert node.status()["guard"]["dropped_in"] == before + 7

    for command in (down, up):
        words = (*AGENT, *shlex.split(command)[1:])
        subprocess.run(words, check=True, capture_output=True, timeout=60)
    ends(node, "guard-counters-full")
    datagram(bare.name, B, A)
    until(lambda: f"{B} (1 packet)" in str(found(node, "clear-received")), "it is named", WITHIN)
