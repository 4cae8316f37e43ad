"""What happens to a VM."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from ipsec_agent.host.control_client import ask
from tests.certificates import ec_key
from tests.charon.nodes import DEADLINE, OTHER_CHARON, SCALE, Node, ip, until
from tests.charon.wedge import wedge
from tests.lab.bed import BARE, FLOATING, Bed, Setting
from tests.lab.namespaces import inside
from tests.lab.questions import RECENT, Question
from tests.lab.truth import traps

BY_EVENT, KILLED, STOPPED, CRASHED = 0.5, 1.5, 3.0, 3.0
"""Seconds within which policies and table, a killed charon, a stopped one, and the SAs of before a
crash are mended."""

LOST = BY_EVENT
"""Seconds until CHILD_SAs without an SA in the kernel end. Where this VM sends, charon ends them,
too, when the SA expires that the kernel asks for in their place (it bears their SPI): after the 3 s
of `xfrm_acq_expires`, which do not grow with the slowness of the lab, and must not be in time."""

CHANGED = 3.0
"""Seconds until what a changed config says is in force; until then the old is."""

MISSED = 2 * 5.0
"""Seconds of the two deadlines that a charon may miss."""

STARTING = 3.0
"""Seconds for which a charon without its socket counts as one that starts."""

FLOWS_AGAIN = 3.0
"""Seconds on a real machine after which every flood arrives again."""

DPD = 15.0
"""Seconds after which a VM notices that its peer is gone."""

AGENT_START = 4.0
"""Seconds from the agent's start until charon runs and has the traps."""


REMOVED = frozenset({"XfrmOutStateInvalid", "XfrmInStateInvalid"})
"""A packet found an SA that was removed before it was through (xfrm_output.c, xfrm_input.c)."""

NEGOTIATED = REMOVED | {"XfrmOutNoStates", "XfrmInNoStates", "XfrmAcquireError"}
"""Beside that: packets to a peer wait for an SA, one that is not there any more is still sent on,
and one is sent on before the VM that asked for it has installed it (strongSwan, child_create.c)."""

UNHEARD = NEGOTIATED | {"XfrmInTmplMismatch"}
"""And IKE for a charon that is not there: what no socket wants meets the trap, as all that is clear
does (net/ipv4/udp.c: __udp4_lib_rcv; seen)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to VM a.

    Attributes:
        do: makes it happen; returns the moment from which healing counts, if not its own start.
        question: made before, asked all the time: is all as it was? None where nothing breaks.
        limit: seconds on a real machine until it is.
        undo: puts back what nobody heals.
        lossless: no datagram that the kernel took may be lost.
        calm: the answer never becomes no.
        crash: VM a comes back with nothing; meanwhile only floods towards it run.
        slow: deadlines that do not grow with the slowness of the lab.
        nat: also where packets are translated, which a flush of all nftables rules would end.
        nics: links that VM a must have for it.
        moves: counters of /proc/net/xfrm_stat that it may move, on either VM.
        shown: the settings in which it runs without --long: elsewhere it tells nothing more.
        racing: datagrams that the kernel may refuse, as an SA ends while they pass through it.
    """

    name: str
    do: Callable[[Bed], float | None]
    question: Callable[[Bed], Question] | None = None
    limit: float = BY_EVENT
    undo: Callable[[Bed], None] | None = None
    lossless: bool = False
    calm: bool = False
    crash: bool = False
    slow: float = 0.0
    nat: bool = True
    nics: int = 1
    moves: frozenset[str] = frozenset()
    shown: tuple[Setting, ...] = (BARE,)
    racing: int = 0

    def fits(self, setting: Setting) -> bool:
        """Whether it can happen there."""
        return setting.nics >= self.nics and (self.nat or not setting.containers)


# Policies and tables -------------------------------------------------------------------------


def _out(bed: Bed, peer: str, nic: int = 0) -> tuple[str, ...]:
    own = bed.setting.address(1, nic)
    return ("src", f"{own}/{bed.prefix}", "dst", peer, "dir", "out")


def delete_trap(bed: Bed, nic: int = 0) -> None:
    """Another program deletes a policy."""
    ip("xfrm", "policy", "delete", *_out(bed, bed.setting.subnet, nic), netns=bed.a.name)


def delete_sas_policies(bed: Bed) -> None:
    """Another program deletes the policies of an SA, and the trap behind them."""
    host = f"{bed.other}/{bed.prefix}"
    for peer in (host, bed.setting.subnet):
        ip("xfrm", "policy", "delete", *_out(bed, peer), netns=bed.a.name)


def weaken_trap(bed: Bed) -> None:
    """Another program makes a policy optional, as `level use` does."""
    _update(bed, "action", "allow", tmpl=("proto", "esp", "mode", "transport", "level", "use"))


def block_trap(bed: Bed) -> None:
    """Another program makes a policy block."""
    _update(bed, "action", "block")


def _update(bed: Bed, *what: str, tmpl: tuple[str, ...] = ()) -> None:
    shown = ip("xfrm", "policy", "get", *_out(bed, bed.setting.subnet), netns=bed.a.name)
    priority = re.search(r"priority (\d+)", shown)
    assert priority is not None, shown
    rest = ("priority", priority[1], *what, *(("tmpl", *tmpl) if tmpl else ()))
    ip("xfrm", "policy", "update", *_out(bed, bed.setting.subnet), *rest, netns=bed.a.name)


def flush_policies(bed: Bed) -> None:
    """`ip xfrm policy flush`."""
    ip("xfrm", "policy", "flush", netns=bed.a.name)


def flush_states(bed: Bed) -> None:
    """`ip xfrm state flush`."""
    ip("xfrm", "state", "flush", netns=bed.a.name)


def nft(node: Node, *words: str) -> str:
    """Run nft(8) on a VM."""
    with inside(node.name):
        program = subprocess.Popen(["nft", *words], stdout=subprocess.PIPE, text=True)
    said, _ = program.communicate(timeout=DEADLINE)
    assert program.returncode == 0, words
    return said


def flush_ruleset(bed: Bed) -> None:
    """`nft flush ruleset`, as every firewall script begins."""
    nft(bed.a, "flush", "ruleset")


def alter_table(bed: Bed) -> None:
    """Another program deletes the rule that drops what VM a would send in clear."""
    chain = f"clear_out{bed.setting.version}"
    rules = nft(bed.a, "-a", "list", "chain", "inet", "ipsec_agent", chain)
    handle = re.search(r" drop .*# handle (\d+)", rules)
    assert handle is not None, rules
    nft(bed.a, "delete", "rule", "inet", "ipsec_agent", chain, "handle", handle[1])


def delete_table(bed: Bed) -> None:
    """Another program deletes the guard."""
    nft(bed.a, "delete", "table", "inet", "ipsec_agent")


# charon --------------------------------------------------------------------------------------


def load_nothing(bed: Bed) -> None:
    """`swanctl --load-all` by hand, with an empty config: it unloads our connections."""
    empty = bed.a.directory / "empty.conf"
    empty.write_text("")
    uri = f"unix://{bed.a.run_dir}/charon.vici"
    subprocess.run(
        ["swanctl", "--load-all", "--file", str(empty), "--uri", uri],
        check=True,
        capture_output=True,
        timeout=DEADLINE,
    )


def kill_charon(bed: Bed) -> None:
    """kill -9."""
    os.kill(bed.a.charon_pid, signal.SIGKILL)


def stop_charon(bed: Bed) -> None:
    """kill -STOP."""
    os.kill(bed.a.charon_pid, signal.SIGSTOP)


def wedge_charon(bed: Bed) -> float:
    """Hold all of charon's threads, while the agent does not look."""
    with held(bed):
        wedge(bed.a, bed.one, bed.setting.address(250), bed.held)
    return time.monotonic()


@contextlib.contextmanager
def held(bed: Bed) -> Iterator[None]:
    """Keep the agent from looking meanwhile; it looks at once afterwards, not at its interval."""
    try:
        with bed.a.held():
            yield
    finally:
        look(bed)


def look(bed: Bed) -> None:
    """Something happens on VM a that has the agent look."""
    ip("link", "add", "look", "type", "bridge", netns=bed.a.name)
    ip("link", "del", "look", netns=bed.a.name)


def remove_socket(bed: Bed) -> float:
    """The file of charon's VICI socket is gone."""
    (bed.a.run_dir / "charon.vici").unlink()
    look(bed)
    return time.monotonic()


# Links and addresses -------------------------------------------------------------------------


def plain(address: str, bed: Bed) -> str:
    """An address with the length of its network, as ip(8) wants it."""
    return f"{address}/{24 if bed.setting.version == 4 else 64}"


def _address(bed: Bed, verb: str, address: str, nic: int = 0) -> None:
    more = ("nodad",) if bed.setting.version == 6 and verb == "add" else ()
    ip("addr", verb, plain(address, bed), "dev", f"eth{nic}", *more, netns=bed.a.name)


def add_address(bed: Bed) -> None:
    """VM a gets a further address."""
    _address(bed, "add", bed.setting.address(11))


def drop_address(bed: Bed) -> None:
    """It loses it again."""
    _address(bed, "del", bed.setting.address(11))


def blink_address(bed: Bed, nic: int = 0) -> float:
    """VM a loses its address, and gets it back a little later.

    With containers behind it a route to the peers is there meanwhile, so that masquerade takes
    another link's address. The kernel removes those that were there with the last address.
    """
    own = bed.setting.address(1, nic)
    route = ("to", bed.setting.subnet, "dev", f"eth{nic}")
    _address(bed, "del", own, nic)
    if bed.setting.containers:
        ip("route", "add", *route, netns=bed.a.name)
    time.sleep(0.3 * SCALE)
    if bed.setting.containers:
        ip("route", "del", *route, netns=bed.a.name)
    _address(bed, "add", own, nic)
    return time.monotonic()


def change_address(bed: Bed) -> None:
    """VM a gets another address instead of the one it had."""
    # In this order: with its first address the kernel takes all of a network's.
    _address(bed, "del", bed.one)
    _address(bed, "add", bed.setting.address(21))


def change_back(bed: Bed) -> None:
    """It has the first one again."""
    _address(bed, "del", bed.setting.address(21))
    _address(bed, "add", bed.one)


def blink_link(bed: Bed, nic: int = 0) -> float:
    """The link goes down and comes up again."""
    ip("link", "set", f"eth{nic}", "down", netns=bed.a.name)
    time.sleep(0.3 * SCALE)
    ip("link", "set", f"eth{nic}", "up", netns=bed.a.name)
    if bed.setting.version == 6:
        # The kernel takes IPv6 addresses away with the link; whoever manages it gives them back.
        ip("addr", "replace", plain(bed.one, bed), "dev", "eth0", "nodad", netns=bed.a.name)
    if not nic and bed.setting.nics > 1:
        # It took the default route with it.
        _default_route(bed, "replace", nic)
    return time.monotonic()


def add_default_route(bed: Bed) -> None:
    """A second default route appears, on the second link."""
    _default_route(bed, "add", 1, "metric", "100")


def drop_default_route(bed: Bed) -> None:
    """It goes."""
    _default_route(bed, "del", 1, "metric", "100")


def move_default_route(bed: Bed) -> None:
    """The default route moves to the second link."""
    _default_route(bed, "replace", 1)


def move_default_route_back(bed: Bed) -> None:
    """It moves back."""
    _default_route(bed, "replace", 0)


def _default_route(bed: Bed, verb: str, nic: int, *more: str) -> None:
    gateway = bed.setting.gateway(nic)
    ip("route", verb, "default", "via", gateway, "dev", f"eth{nic}", *more, netns=bed.a.name)


def change_mtu(bed: Bed, nic: int = 0) -> None:
    """The MTU becomes smaller, and large again."""
    for mtu in ("1400", "1500"):
        ip("link", "set", f"eth{nic}", "mtu", mtu, netns=bed.a.name)
        time.sleep(0.1 * SCALE)


def move_floating(bed: Bed) -> float:
    """The floating address moves to the third VM."""
    return _moved(bed, bed.a, bed.nodes[2])


def bring_floating_back(bed: Bed) -> None:
    """It moves back."""
    _moved(bed, bed.nodes[2], bed.a)


def _moved(bed: Bed, source: Node, target: Node) -> float:
    address, flood = bed.setting.floating, bed.floods[FLOATING]
    ip("addr", "del", f"{address}/32", "dev", "eth0", netns=source.name)
    ip("addr", "add", f"{address}/32", "dev", "eth0", netns=target.name)
    moved = time.monotonic()
    _announce(target, address)

    def arrives() -> bool:
        _speak(target, address, bed.other)
        time.sleep(0.1 * SCALE)
        return time.monotonic() - flood.arrived_last() < RECENT

    until(arrives, f"{address} is reached at {target.name}: {target.log[-2000:]}", 10 * SCALE)
    return moved


def _announce(node: Node, address: str) -> None:
    """Say to all who has an address now, as whoever moves one does (RFC 5227)."""
    shown = ip("-br", "link", "show", "eth0", netns=node.name)
    mac, own = bytes.fromhex(shown.split()[2].replace(":", "")), socket.inet_aton(address)
    head = b"\xff" * 6 + mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    with inside(node.name):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0))
        raw.send(head + mac + own + bytes(6) + own)


def _speak(node: Node, own: str, peer: str) -> None:
    """The service that moved with an address says something from there, where it may already."""
    with inside(node.name):
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # EPERM of the guard: the VM has no trap for the address yet.
    with out, contextlib.suppress(OSError):
        out.setblocking(False)
        out.bind((own, 0))
        out.sendto(b"here", (peer, 9))


# The agent -----------------------------------------------------------------------------------


def again(number: signal.Signals, bed: Bed) -> None:
    bed.a.end_agent(number)
    bed.a.up()


def flush_while_held(bed: Bed) -> float:
    """The policies are flushed while the agent is stopped: for a second the guard is alone."""
    with held(bed):
        flush_policies(bed)
        time.sleep(1.0)
    return time.monotonic()


def _tell(bed: Bed, verb: str) -> None:
    ask(str(bed.a.run_dir / "control.sock"), verb, deadline=10 * SCALE)


def other_proposals(bed: Bed) -> None:
    """The config proposes another suite; the peer's is still among them."""
    _reload(bed, extra={"esp_proposals": "aes256gcm16,aes128gcm16"})


def other_subnets(bed: Bed) -> None:
    """The config names the two halves of the subnet instead of the whole."""
    _reload(bed, encrypted=[str(half) for half in ip_network(bed.setting.subnet).subnets()])


def other_certificate(bed: Bed) -> None:
    """The config has another certificate and key, of the same CA."""
    _reload(bed, key=ec_key(1))


def first_config(bed: Bed) -> None:
    """The config is what it was."""
    _reload(bed)


def _reload(bed: Bed, **what: Any) -> None:
    bed.setting.write(bed.nodes, 1, **what)
    bed.told = True
    _tell(bed, "reload")


def upgrade(bed: Bed) -> float:
    """`ipsec-agent stop`, a second without charon, and a start with another build of it."""
    assert bed.a.agent is not None
    _tell(bed, "stop")
    assert bed.a.agent.wait(10 * SCALE) == 0
    charon = {"log": str(bed.a.directory / "charon.log"), "program": OTHER_CHARON}
    bed.setting.write(bed.nodes, 1, charon=charon)
    time.sleep(1.0)
    began = time.monotonic()
    bed.a.up()
    return began


def crash(bed: Bed) -> float:
    """VM a dies and comes back: nothing of charon's is left, and the guard stands from the boot."""
    assert bed.a.agent is not None
    bed.a.end_agent(signal.SIGKILL)
    kill_charon(bed)
    flush_policies(bed)
    flush_states(bed)
    with inside(bed.a.name):
        subprocess.run(
            ["nft", "-f", str(bed.a.directory / "state" / "guard.nft")],
            check=True,
            timeout=DEADLINE,
        )
    bed.a.start()
    # The clock runs from where a VM can send again: with the traps of its new charon.
    until(lambda: traps(bed.a), "a's traps are there", 10 * SCALE)
    return time.monotonic()


def crash_and_forget(bed: Bed) -> float:
    """As `crash`, but nobody is poked: the peers' DPD has to notice."""
    (bed.a.directory / "state" / "peers.json").unlink()
    return crash(bed)
