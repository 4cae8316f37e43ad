"""Which child answers for a second SA, with two real charons.

The kernel of a test machine may have no ESP, so that charon's own ESP takes its place
(kernel-libipsec, which knows tunnel mode only): what is negotiated is the same. What the kernel
does with it is shown in tests/lab/test_rotation.py.
"""

import asyncio
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.core import handover
from ipsec_agent.core.config import AgentConfig, CharonConfig
from ipsec_agent.core.model import Action, Child, Connection, IkeSettings, TrafficSelector
from ipsec_agent.core.strongswan_conf import PLUGINS
from ipsec_agent.core.swanctl import connection_message, renewal_message
from ipsec_agent.errors import CharonRefusedError
from ipsec_agent.host.charon import CharonClient
from ipsec_agent.host.charon_start import installed_plugins, write_conf
from ipsec_agent.host.vici_wire import ViciConnection, open_vici
from tests.certificates import ec_key
from tests.charon.bare_charons import Vm, both, connection, load
from tests.charon.nodes import CHARON, DEADLINE, SCALE, network
from tests.configs import config
from tests.verdict_table import BY_NAME
from tests.verdicts import leaf

pytestmark = pytest.mark.charon

OWN_ESP = "kernel-libipsec"
SETTINGS = (
    # Between two hosts IKE would travel in what it negotiates.
    (f"plugins.{OWN_ESP}.allow_peer_ts", "yes"),
    ("plugins.kernel-netlink.fwmark", "!0x42"),
    ("plugins.socket-default.fwmark", "0x42"),
)
SUBNET = ip_network("10.9.0.0/24")
TRAP = f"ipsec-{SUBNET}"
REQID = 77


def start(vm: Vm) -> subprocess.Popen[bytes]:
    """A charon with an ESP of its own."""
    kernel = PLUGINS.index("kernel-netlink")
    charon = CharonConfig(
        log=str(vm.node.directory / "charon.log"),
        program=CHARON,
        plugins=(*PLUGINS[:kernel], OWN_ESP, *PLUGINS[kernel:]),
        settings=SETTINGS,
    )
    conf = vm.node.directory / "strongswan.conf"
    write_conf(conf, config(agent=AgentConfig(charon=charon)), vici_socket=vm.vici)
    inside = f"mount -t tmpfs tmpfs /run; STRONGSWAN_CONF={conf} exec {CHARON}"
    return subprocess.Popen(vm.node.command("sh", "-c", inside), stderr=subprocess.DEVNULL)


@pytest.fixture
def vms(tmp_path: Path) -> Iterator[tuple[Vm, Vm]]:
    """Two VMs."""
    if OWN_ESP not in installed_plugins(CHARON):
        pytest.skip("charon's own ESP is not installed (libcharon-extra-plugins)")
    with network(tmp_path, 2, "ho") as nodes, both(nodes, start) as pair:
        yield pair


def in_tunnels(message: dict[str, Any]) -> dict[str, Any]:
    """A message as the agent makes it, but for what charon's own ESP cannot do."""
    for body in message.values():
        for child in body["children"].values():
            child |= {"mode": "tunnel", "start_action": "none"}
    return message


def child(name: str, own: Vm, remote: Any) -> Child:
    """Between a VM and others."""
    local = TrafficSelector(ip_network(own.address))
    return Child(name, Action.ENCRYPT, local, TrafficSelector(ip_network(remote)), REQID)


def renewal(own: Vm, peer: Vm, settings: IkeSettings, mark: str, level: int) -> Connection:
    """As orphans.renewal makes it, of a set with this mark."""
    name = f"ipsec-renew-{mark}-{peer.address}"
    plain = child(name, own, peer.address)
    asking = replace(plain, name=handover.asking(name, level), level=level)
    return Connection(name, Action.ENCRYPT, ip_network(peer.address), (plain, asking), settings)


async def begin(vici: ViciConnection, made: Connection, child_name: str) -> bool:
    """Whether a child of a renewal was negotiated."""
    await vici.request("load-conn", in_tunnels(renewal_message(made)))
    wait = f"{8 * SCALE:.0f}000"
    try:
        await vici.request("initiate", {"ike": made.name, "child": child_name, "timeout": wait})
    except CharonRefusedError:
        return False
    finally:
        await vici.request("unload-conn", {"name": made.name})
    return True


async def children(vici: ViciConnection) -> dict[str, list[str]]:
    """The names of the installed CHILD_SAs of each IKE_SA, by its connection and number."""
    return {
        f"{sa.name} {sa.unique_id}": [
            child.name
            for child in sa.children
            if child.state == "INSTALLED" and child.reqid == REQID
        ]
        for sa in await CharonClient(vici).sas()
    }


async def soon(vici: ViciConnection, wanted: dict[str, list[str]]) -> None:
    """Wait until these are its SAs."""
    found: dict[str, list[str]] = {}
    for _ in range(int(50 * SCALE)):
        found = await children(vici)
        if found == wanted:
            break
        await asyncio.sleep(0.1)
    assert found == wanted


async def rekeyed(vici: ViciConnection, name: str) -> None:
    """Rekey a CHILD_SA, and wait until another one has its name."""
    before = await numbers(vici)
    await vici.request("rekey", {"child": name})
    for _ in range(int(50 * SCALE)):
        if await numbers(vici) - before:
            break
        await asyncio.sleep(0.1)
    assert await numbers(vici) - before


async def numbers(vici: ViciConnection) -> set[int]:
    """charon's numbers of the installed CHILD_SAs."""
    return {
        child.unique_id
        for sa in await CharonClient(vici).sas()
        for child in sa.children
        if child.state == "INSTALLED"
    }


async def test_the_label_decides_who_answers(vms: tuple[Vm, Vm]) -> None:
    """Also in a rekeying; what no label fits is refused, and the IKE_SA stays for what does."""
    chain = BY_NAME["an intermediate behind the leaf"].make()
    theirs = leaf((*chain.behind[-1:], *chain.cas)[0], "VM 2", key=ec_key(8))
    one, other = vms
    async with open_vici(one.vici, DEADLINE) as asking, open_vici(other.vici, DEADLINE) as asked:
        for vici, case, mine in (
            (asking, connection(one, other, chain.leaf, chain.cas), chain.leaf),
            (asked, connection(other, one, theirs, chain.cas), theirs),
        ):
            await load(vici, case, mine, chain.behind)
            await vici.request("unload-conn", {"name": case.name})
        behind = connection(other, one, theirs, chain.cas).settings
        trap = Connection(TRAP, Action.ENCRYPT, SUBNET, (child(TRAP, other, SUBNET),), behind)
        await asked.request("load-conn", in_tunnels(connection_message(trap)))
        ours = connection(one, other, chain.leaf, chain.cas).settings
        assert ours is not None

        # Which certificate it is makes no difference here; another setting makes another IKE_SA.
        first, second, third = (
            renewal(one, other, replace(ours, dpd_delay=30 + number), f"{number:012x}", level)
            for number, level in ((1, 1), (2, 1), (3, handover.LEVELS + 1))
        )
        plain, labelled = (one.name for one in first.children)
        assert await begin(asking, first, plain)
        await soon(asked, {f"{TRAP} 1": [TRAP]})

        labelled = second.children[1].name
        assert await begin(asking, second, labelled)
        later = handover.answering(TRAP, 1)
        await soon(asking, {f"{first.name} 1": [plain], f"{second.name} 2": [labelled]})
        await soon(asked, {f"{TRAP} 1": [TRAP], f"{TRAP} 2": [later]})

        await rekeyed(asked, later)
        await soon(asking, {f"{first.name} 1": [plain], f"{second.name} 2": [labelled]})
        await soon(asked, {f"{TRAP} 1": [TRAP], f"{TRAP} 2": [later]})

        # The old CHILD_SA ends by who asked for the new one; the IKE_SA does not go with it.
        await asking.request("terminate", {"child": plain, "timeout": "5000"})
        await soon(asked, {f"{TRAP} 1": [], f"{TRAP} 2": [later]})

        assert not await begin(asking, third, third.children[1].name)
        # 6.0 ends the IKE_SA with its first child.
        stays = (await CharonClient(asked).version()).startswith("5.")
        refused: dict[str, list[str]] = {f"{TRAP} 3": []} if stays else {}
        await soon(asked, {f"{TRAP} 1": [], f"{TRAP} 2": [later], **refused})
        assert await begin(asking, third, third.name)
        number = 3 if stays else 4
        await soon(asked, {f"{TRAP} 1": [], f"{TRAP} 2": [later], f"{TRAP} {number}": [TRAP]})


async def test_both_ask_in_the_same_moment(vms: tuple[Vm, Vm]) -> None:
    """charon then takes the renewal to answer with (core/swanctl.py): both ends send on what they
    have asked for, in one IKE_SA or in two, and neither on what it was asked for.
    """
    chain = BY_NAME["an intermediate behind the leaf"].make()
    theirs = leaf((*chain.behind[-1:], *chain.cas)[0], "VM 2", key=ec_key(8))
    one, other = vms
    async with open_vici(one.vici, DEADLINE) as ours, open_vici(other.vici, DEADLINE) as answering:
        made = []
        for vici, own, peer, mine in (
            (ours, one, other, chain.leaf),
            (answering, other, one, theirs),
        ):
            case = connection(own, peer, mine, chain.cas)
            await load(vici, case, mine, chain.behind)
            await vici.request("unload-conn", {"name": case.name})
            assert case.settings is not None
            made.append(renewal(own, peer, case.settings, f"{1:012x}", 1))
            await vici.request("load-conn", in_tunnels(renewal_message(made[-1])))
        first, second = made
        asked, answered = (
            [how(one.name, 1) for one in made] for how in (handover.asking, handover.answering)
        )

        assert await begin(ours, first, asked[0])
        await soon(ours, {f"{first.name} 1": [asked[0]]})
        await soon(answering, {f"{second.name} 1": [answered[1]]})

        assert await begin(answering, second, asked[1])
        await soon(ours, {f"{first.name} 1": [asked[0], answered[0]]})
        await soon(answering, {f"{second.name} 1": [answered[1], asked[1]]})


async def test_a_removed_ca_is_forgotten(vms: tuple[Vm, Vm]) -> None:
    """Also where a connection brought it; connections, the SA and what comes next stay."""
    chain, gone = (BY_NAME[name].make() for name in ("an intermediate behind the leaf", "a root"))
    theirs = leaf((*chain.behind[-1:], *chain.cas)[0], "VM 2", key=ec_key(8))
    one, other = vms
    async with open_vici(one.vici, DEADLINE) as asking, open_vici(other.vici, DEADLINE) as asked:
        charon = CharonClient(asked)
        await load(asking, connection(one, other, chain.leaf, chain.cas), chain.leaf, chain.behind)
        both = connection(other, one, theirs, (*chain.cas, *gone.cas))
        credentials = await load(asked, both, theirs, chain.behind)
        ours = connection(one, other, chain.leaf, chain.cas).settings
        assert ours is not None
        await asked.request("unload-conn", {"name": both.name})
        trap = Connection(
            TRAP, Action.ENCRYPT, SUBNET, (child(TRAP, other, SUBNET),), both.settings
        )
        await asked.request("load-conn", in_tunnels(connection_message(trap)))
        first, second = (
            renewal(one, other, replace(ours, dpd_delay=30 + number), f"{number:012x}", 1)
            for number in (1, 2)
        )
        assert await begin(asking, first, first.name)
        await soon(asked, {f"{TRAP} 1": [TRAP]})

        now = connection(other, one, theirs, chain.cas).settings
        await asked.request(
            "load-conn", in_tunnels(connection_message(replace(trap, settings=now)))
        )
        await charon.unload_authority(f"ca-{len(chain.cas)}")
        removed = gone.cas[0].der
        assert removed in await charon.certificates(), "this step is not needed any more"
        await charon.load_key(credentials, only=True)
        assert removed not in await charon.certificates()
        assert {ca.der for ca in chain.cas} <= {*await charon.certificates()}
        assert await charon.keys() == (credentials.key_id,)
        assert TRAP in [loaded.name for loaded in await charon.connections()]
        await soon(asked, {f"{TRAP} 1": [TRAP]})
        assert await begin(asking, second, second.children[1].name)
        await soon(asked, {f"{TRAP} 1": [TRAP], f"{TRAP} 2": [handover.answering(TRAP, 1)]})
