"""The guard's table in the kernel: tried, loaded, read and watched, by the program nft."""

import asyncio
import collections
import contextlib
import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from ipsec_agent.core.flow_rules import REMOVAL
from ipsec_agent.core.guard_table import mark
from ipsec_agent.core.model import GUARD_TABLE, LinkId
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft_events import DATAGRAM, Transactions, open_events
from ipsec_agent.host.nft_exempt import set_exempt
from ipsec_agent.host.nft_listing import (
    read_flow_rules,
    read_flowtables,
    read_form,
    read_table,
)
from ipsec_agent.host.program import find_program, outcome, start_program

DEADLINE = 10.0
"""Seconds that nft may take; it needs some 10 ms."""

FLOWTABLES = Path("/sys/module/nf_flow_table")
"""Only a kernel that has loaded this module can have flowtables."""

_ABSENT = "No such file or directory"
"""What nft says of a table that is not there."""

_TRY = f'"$0" "$@" && exec "$0" -j list table inet {GUARD_TABLE}'


class Nft:
    """The table `inet ipsec_agent` of this network namespace.

    Whether it is still what was loaded is told by its form: nft echoes what the kernel made of a
    load, in that very transaction, so no other change is between. It is remembered per text, in a
    file if one is given, so that the next process need not load the same table again.

    Args:
        memory: the file; it must not outlive a boot.
        deadline: seconds for each call of nft.
    """

    def __init__(self, memory: Path | None = None, *, deadline: float = DEADLINE) -> None:
        self._memory = memory
        self._deadline = deadline
        self._forms: dict[str, str] = _recall(memory)
        self._flow_form: tuple[str, str] | None = None
        self._readings = 0
        self._own: collections.deque[int] = collections.deque(maxlen=64)
        # nft may have done its work before we learn its process id.
        self._starting = asyncio.Lock()

    async def check(self, text: str) -> None:
        """Have nft and the kernel try a text, and change nothing.

        Raises:
            KernelError: it would not load, and why; or nft is not installed.
        """
        await self._succeed("the guard's table does not load", text, "-c")

    async def load(self, text: str, links: str = "") -> None:
        """Put a table in the place of the old one, all in one transaction.

        Args:
            text: the table; what `form_of` asks for later.
            links: a change of the exempt links, made in the same transaction.

        Raises:
            KernelError: it does not load, and the old one stays; or nft is not installed.
        """
        echo = await self._succeed("the guard's table does not load", text + links, "-j", "-e")
        form = _echoed(echo)
        if form is None:
            listed = await self.read()
            form = listed.form if listed else ""
        self._forms = {mark(text): form}
        if self._memory is not None:
            # A memory that cannot be written costs one more load after a restart.
            with contextlib.suppress(OSError):
                self._memory.write_text(json.dumps(self._forms))

    def exempt(self, links: Iterable[LinkId], ports: Iterable[int] | None = None) -> None:
        """Set the exempt links, and the ports where only IPsec passes (`set_exempt`).

        It takes a fraction of a millisecond, so it waits.

        Raises:
            KernelError: the kernel refuses; the table may be gone.
        """
        # The kernel names who made a transaction by its thread.
        self._own.append(threading.get_native_id())
        set_exempt(links, ports)

    async def delete(self) -> None:
        """Remove the table; a missing one is no error.

        Raises:
            KernelError: the kernel refuses.
        """
        # In this order: without the guard nothing looks for the other.
        if await self._flow_rules():
            await self.load_flow_rules("")
        text = f"table inet {GUARD_TABLE}\ndelete table inet {GUARD_TABLE}\n"
        await self._succeed("cannot remove the guard's table", text)

    async def load_flow_rules(self, text: str) -> None:
        """Replace the table beside flowtables; "" removes it.

        Raises:
            KernelError: it does not load (Linux before 5.16 has no egress hook), and the old one
                stays; or a link is gone.
        """
        try:
            await self._succeed("cannot filter what flowtables forward", text or REMOVAL)
        except KernelError as error:
            hint = "egress hooks need Linux 5.16, nft 1.0.1 and the module nft_fib_netdev"
            raise KernelError(error.message, code=error.code, hint=hint) from error
        found = await self._flow_rules() if text else None
        self._flow_form = (mark(text), found[0]) if found else None

    async def read(self) -> GuardTable | None:
        """The table as it is, None where there is none.

        Its `mark` is that of the text which is known to have made it, "" where none is.

        Raises:
            KernelError: it cannot be read.
        """
        status, out, complaint = await self._run("-j", "list", "table", "inet", GUARD_TABLE)
        if status == 0:
            table = read_table(out, {name: index for index, name in socket.if_nameindex()})
            flowtables, rules = await self._flowtables(), await self._flow_rules()
            known, form = self._flow_form or ("", "")
            self._readings += 1
            return replace(
                table,
                mark=self._mark_of(table.form),
                flowtables=flowtables,
                flow_rules=(known if rules[0] == form else "") if rules else None,
                offloaded=rules[1] if rules else 0,
                reading=self._readings,
            )
        if _ABSENT in complaint:
            return None
        raise _refusal("cannot read the guard's table", complaint)

    async def _flowtables(self) -> tuple[str, ...]:
        # Of sysfs, which does not block.
        if not FLOWTABLES.exists():  # noqa: ASYNC240
            return ()
        status, out, complaint = await self._run("-j", "list", "flowtables")
        if status != 0:
            raise _refusal("cannot read the kernel's flowtables", complaint)
        return read_flowtables(out)

    async def _flow_rules(self) -> tuple[str, int] | None:
        """Form and drops of the table beside flowtables, None where there is none."""
        if not FLOWTABLES.exists():  # noqa: ASYNC240
            return None
        status, out, complaint = await self._run("list", "table", "netdev", GUARD_TABLE)
        if status == 0:
            return read_flow_rules(out)
        if _ABSENT in complaint:
            return None
        raise _refusal("cannot read the table that filters flowtables", complaint)

    def form_of(self, text: str) -> str | None:
        """The form that the table has if it is what this text loaded, None if that is not known.

        It is "" of a text that makes no table with rules.
        """
        return self._forms.get(mark(text))

    def _mark_of(self, form: str) -> str:
        # A table without rules has no form that could be known.
        known = (key for key, made in self._forms.items() if form and made == form)
        return next(known, "")

    async def learn(self, text: str) -> None:
        """Find out which form a text makes, by loading it where it filters nothing.

        So a table that another program loaded from the same text, as at boot, is known by its
        `mark`. It takes some 20 ms and a network namespace of its own, which ends with it.

        Raises:
            KernelError: it does not load, or no namespace can be made.
        """
        with _as_file(text) as descriptor:
            path = f"/proc/self/fd/{descriptor}"
            status, listed, complaint = await self._run(
                *("-f", path), keep=descriptor, around=("unshare", "--net", "sh", "-c", _TRY)
            )
        # A text may load and make no table.
        if status != 0 and _ABSENT not in complaint:
            raise _refusal("cannot try the guard's table in a network namespace", complaint)
        self._forms[mark(text)] = (read_form(listed) if status == 0 else None) or ""

    async def watch(self, wake: Callable[[], None]) -> None:
        """Wake once it listens, and at every foreign change of the table, until cancelled.

        A flowtable of anybody counts, too.

        Raises:
            KernelError: the kernel does not tell of changes.
        """
        while True:
            with open_events() as events:
                wake()
                try:
                    await self._hear(events, wake)
                except OSError as error:
                    # Some were lost, and more would be until this socket is empty.
                    if error.errno != errno.ENOBUFS:
                        raise KernelError(
                            f"the kernel reports no more changes of nftables: {error.strerror}",
                            code=error.errno or 0,
                        ) from error

    async def _hear(self, events: socket.socket, wake: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        transactions = Transactions(GUARD_TABLE)
        while True:
            datagram = await loop.sock_recv(events, DATAGRAM)
            for author in transactions.feed(datagram):
                async with self._starting:
                    ours = author in self._own
                if not ours:
                    wake()

    async def _succeed(self, doing: str, text: str, *options: str) -> str:
        with _as_file(text) as descriptor:
            path = f"/proc/self/fd/{descriptor}"
            status, out, complaint = await self._run(
                *options, "-f", path, keep=descriptor, changing=True
            )
        if status != 0:
            raise _refusal(doing, complaint)
        return out

    async def _run(
        self,
        *arguments: str,
        keep: int | None = None,
        around: tuple[str, ...] = (),
        changing: bool = False,
    ) -> tuple[int, str, str]:
        program = _program()
        async with self._starting:
            with _startable(program):
                process = await start_program(*around, program, *arguments, keep=keep)
            if changing:
                self._own.append(process.pid)
        try:
            return await outcome(process, self._deadline)
        except TimeoutError as error:
            raise KernelError(
                f"nft did not answer within {self._deadline:g} s",
                code=errno.ETIMEDOUT,
                hint="the machine is overloaded; the agent tries again",
            ) from error


def _program() -> str:
    program = find_program("nft")
    if program is None:
        raise KernelError(
            "the program nft is not installed",
            code=errno.ENOENT,
            hint="apt install nftables, or set agent.guard: none",
        )
    return program


@contextlib.contextmanager
def _startable(program: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelError(
            f"cannot start {program}: {error.strerror}",
            code=error.errno or 0,
            hint="check the program and the number of processes; the agent tries again",
        ) from error


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[int]:
    """A descriptor to name to nft: with -j it reads its input twice, once as JSON."""
    with os.fdopen(os.memfd_create("guard"), "w+") as file:
        file.write(text)
        file.flush()
        yield file.fileno()


def _refusal(doing: str, complaint: str) -> KernelError:
    reason = complaint.strip().splitlines()[0] if complaint.strip() else "nft gave no reason"
    code, hint = 0, "try `nft -c -f FILE` by hand"
    if "not permitted" in reason:
        code, hint = errno.EPERM, "run as root, or with the capability CAP_NET_ADMIN"
    elif "not supported" in reason or "Netlink socket" in reason:
        code = errno.EOPNOTSUPP
        hint = "this kernel lacks nf_tables: run `modprobe nf_tables`, or set agent.guard: none"
    elif _ABSENT in reason:
        code = errno.ENOENT
        hint = (
            "this kernel lacks a module: run `modprobe -a nft_fib_inet nft_xfrm`, or try `nft -c -f"
            " FILE`"
        )
    return KernelError(f"{doing}: {reason}", code=code, hint=hint)


def _echoed(echo: str) -> str | None:
    # nft before 1.0.5 echoes no JSON for such a text; then the listing has to do.
    try:
        return read_form(echo)
    except KernelError:
        return None


def _recall(memory: Path | None) -> dict[str, str]:
    if memory is None:
        return {}
    try:
        found = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(form) for key, form in found.items()} if isinstance(found, dict) else {}
