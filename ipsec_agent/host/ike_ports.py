"""Who has the UDP ports of IKE in this network namespace: charon, or somebody else."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import CharonProcess, IkePorts, PortHolder
from ipsec_agent.core.strongswan_conf import IKE_PORTS
from ipsec_agent.errors import KernelError
from ipsec_agent.host import proc_net
from ipsec_agent.host.socket_holders import PROC, Holder, holders, sockets
from ipsec_agent.host.understood import understood

# Not /proc/net: that is the network namespace of the process's first thread. udp6 is missing where
# IPv6 is disabled at boot.
TABLES = ((4, "thread-self/net/udp"), (6, "thread-self/net/udp6"))


class Bound(NamedTuple):
    """A line of the kernel's table of UDP sockets."""

    version: int
    port: int
    address: Address
    inode: int
    user: int


class IkePortsReader:
    """Reads who has the ports, and remembers what no second look changes.

    Args:
        lasts: seconds for which a reading without a problem is kept: no event tells of sockets,
            and a name server may have thousands.
    """

    def __init__(self, lasts: Callable[[], float], proc: Path = PROC) -> None:
        self._lasts = lasts
        self._proc = proc
        self._read = -math.inf
        self._found = IkePorts()
        self._charon: CharonProcess | None = None
        self._inodes: frozenset[int] = frozenset()
        self._owners: dict[int, Holder] = {}
        self._contested = True

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """A charon is started within: from then on it is known whether a port was taken."""
        taken = False
        with contextlib.suppress(KernelError):
            taken = bool(self._look(None).others)
        yield
        self._contested = taken
        self._read = -math.inf

    def get(self, process: CharonProcess | None) -> IkePorts:
        """Who has the ports now; a look in which all was well is kept for a while.

        Args:
            process: charon, None where none runs.

        Raises:
            KernelError: the kernel does not tell it.
        """
        same = (process and process.identity) == (self._charon and self._charon.identity)
        if same and self._found.well and time.monotonic() - self._read < self._lasts():
            return self._found
        if not same:
            self._charon, self._inodes = process, frozenset()
        self._read = time.monotonic()
        self._found = self._look(process)
        return self._found

    def outdate(self) -> None:
        """Keep no reading."""
        self._read = -math.inf

    def changed(self) -> bool:
        """Whether what was amiss in the newest reading is otherwise now."""
        # Without a charon there is none to be started again.
        if self._found.well or self._charon is None:
            return False
        before = self._found
        return self.get(self._charon) != before

    def _look(self, process: CharonProcess | None) -> IkePorts:
        with understood(_odd):
            bound = tuple(self._bound())
        inodes = {one.inode for one in bound}
        if process is not None and not inodes <= self._inodes:
            self._inodes = self._inodes_of(process.pid)
        strange = [one for one in bound if one.inode not in self._inodes]
        self._name(one.inode for one in strange)
        self._contested = self._contested or bool(strange)
        own = sorted(
            {(one.version, one.port, one.address) for one in bound if one.inode in self._inodes}
        )
        return IkePorts(
            owned=frozenset((version, port) for version, port, _ in own),
            others=tuple(
                PortHolder(
                    one.version, one.port, one.address, *self._owners[one.inode], user=one.user
                )
                for one in strange
            ),
            versions=tuple(version for version, table in TABLES if (self._proc / table).exists()),
            contested=self._contested,
            addresses=tuple(own),
        )

    def _bound(self) -> Iterator[Bound]:
        """The sockets on the ports."""
        for _, table in TABLES:
            try:
                lines = (self._proc / table).read_text(encoding="ascii").splitlines()[1:]
            except FileNotFoundError:
                continue
            except OSError as error:
                raise KernelError(
                    f"cannot read the kernel's UDP sockets: {error.strerror}",
                    code=error.errno or 0,
                    hint="until then it is not known whether charon has its ports",
                ) from error
            for line in lines:
                # The port first: of many sockets few are on these.
                address, _, port = line.split(maxsplit=2)[1].partition(":")
                if int(port[:4], 16) in IKE_PORTS:
                    words = line.split()
                    found = proc_net.address(address)
                    yield Bound(
                        # An IPv6 socket on ::ffff:a.b.c.d is listed as one, and has IPv4's port.
                        found.version,
                        int(port[:4], 16),
                        found,
                        inode=int(words[9]),
                        user=int(words[7]),
                    )

    def _inodes_of(self, pid: int) -> frozenset[int]:
        try:
            with understood(_odd):
                return frozenset(sockets(self._proc / str(pid)))
        except (FileNotFoundError, ProcessLookupError):
            # It has just ended.
            return frozenset()
        except PermissionError as error:
            raise KernelError(
                f"cannot read which sockets charon (pid {pid}) has: {error.strerror}",
                code=error.errno or 0,
                hint="run the agent as root, or with the capability CAP_SYS_PTRACE",
            ) from error

    def _name(self, inodes: Iterable[int]) -> None:
        """Find out the processes of some sockets; each is looked for once."""
        wanted = set(inodes)
        self._owners = {inode: owner for inode, owner in self._owners.items() if inode in wanted}
        self._owners |= holders(wanted - self._owners.keys(), self._proc)


def _odd(error: Exception) -> KernelError:
    return KernelError(
        f"cannot understand the kernel's list of UDP sockets: {error}",
        hint="until then it is not known whether charon has its ports",
    )
