"""The guard's table in the kernel: tried and loaded by the program nft; read, put back and watched.

To start a program takes longer than all the rest of a pass. So nft only makes a table of a text
that is not known yet; what the kernel made of it is put back, and read, in its own language.
"""

import asyncio
import contextlib
import errno
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.flow_rules import REMOVAL
from ipsec_agent.core.guard_table import PEERS_COUNTED, exempt_update, mark, nameable
from ipsec_agent.core.model import GUARD_TABLE, LinkId
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.errors import KernelError
from ipsec_agent.host import own_time
from ipsec_agent.host.exhausted import NO_START, refused
from ipsec_agent.host.files import open_regular
from ipsec_agent.host.nft_events import Authors, Transactions, open_events
from ipsec_agent.host.nft_exempt import set_exempt
from ipsec_agent.host.nft_image import MOST, Image
from ipsec_agent.host.nft_refusals import refusal
from ipsec_agent.host.nft_tables import (
    Tables,
    put_back,
    read_flow_rules,
    read_guard,
    read_tables,
)
from ipsec_agent.host.nft_trial import try_text
from ipsec_agent.host.nft_wire import DATAGRAM
from ipsec_agent.host.program import find_program, outcome, start_program
from ipsec_agent.host.understood import NOT_UNDERSTOOD

DEADLINE = 10.0
"""Seconds that nft may take; it needs some 10 ms."""

FORMS = "guard.json"
"""The file of `run_dir` in which it is remembered what texts make."""

_ROOM = 1 << 23
"""Bytes of events that are kept while nft replaces a table."""

_LEAST, _ENDS = 2 * PEERS_COUNTED, 2
"""Elements of a set: what is read of each in any case, and what a range of addresses, which has a
line of its own in a text, makes."""
_UNSUPPORTED = "Operation not supported"

_OPENING = re.compile(rf"^table \w+ {GUARD_TABLE}\n(?=delete table)", re.MULTILINE)
"""How a text makes sure that there is a table to delete."""


class _Outcome(Struct, frozen=True):
    """How a run of nft ended."""

    status: int
    complaint: str


class Nft:
    """The table `inet ipsec_agent` of this network namespace.

    Whether it is still what was loaded is told by its form (nft_image.py), as it was right after
    the load, if the kernel tells of no other change in between. It is remembered per text, in a
    file if one is given, so that the next process need not load the same table again.

    Args:
        memory: the file; it must not outlive a boot.
        deadline: seconds for each call of nft.
    """

    def __init__(self, memory: Path | None = None, *, deadline: float = DEADLINE) -> None:
        self._memory = memory
        self._deadline = deadline
        self._forms: dict[str, str] = _recall(memory)
        # By trials: another nft than that which made the table makes another form of its text.
        self._tried: dict[str, str] = {}
        self._image: tuple[str, Image] | None = None
        self._flow_form: tuple[str, str] | None = None
        self._last: Tables | None = None
        self._most = MOST
        self._readings = 0
        self._own = Authors()
        # nft may have done its work before we learn its process id.
        self._starting = asyncio.Lock()

    async def check(self, text: str) -> None:
        """Have nft and the kernel try a text, and change nothing.

        Raises:
            KernelError: it would not load, and why; or nft is not installed.
        """
        await self._succeed("the guard's table does not load", text, "-c")

    async def load(
        self, text: str, exempt: Sequence[LinkId] = (), ports: Sequence[int] = ()
    ) -> None:
        """Put a table in the place of the old one, all in one transaction.

        Args:
            text: the table; what `form_of` asks for later.
            exempt: the links that it does not cover.
            ports: UDP ports of the tunnels among them.

        Raises:
            KernelError: it does not load, and the old one stays; or nft is not installed.
        """
        self._expect(len(exempt))
        known = self._image
        if (
            known is not None
            and known[0] == mark(text)
            and await put_back(known[1], exempt, ports, self._own, self._most)
        ):
            return
        self._image = None
        self._most = _LEAST + _ENDS * text.count("\n")
        self._expect(len(exempt))
        # A closed table has no sets for them.
        links = exempt_update(exempt, ports) if exempt or ports else ""
        with open_events(room=_ROOM) as events:
            await self._succeed("the guard's table does not load", text + links)
            image = await read_guard(self._most)
            alone = image is not None and await self._alone(events, image.generation)
        if not all(nameable(link.name) for link in exempt):
            self.exempt(exempt, ports)
        form = image.form if image is not None and alone else ""
        self._forms = {mark(text): form}
        if form:
            self._know(mark(text), image)
        if self._memory is not None:
            # A memory that cannot be written costs one more load after a restart.
            with contextlib.suppress(OSError):
                self._memory.write_text(json.dumps(self._forms))

    async def _alone(self, events: socket.socket, generation: int) -> bool:
        """Whether up to a generation the table was changed once only, which nft has just done.

        nft has succeeded, so one of the changes is its own. The number of its process says nothing:
        in a namespace of processes the kernel names another one.
        """
        loop = asyncio.get_running_loop()
        transactions, changes = Transactions(GUARD_TABLE), 0
        try:
            async with own_time.timeout(self._deadline):
                while not transactions.reached(generation):
                    datagram = await loop.sock_recv(events, DATAGRAM)
                    changes += sum(1 for _ in transactions.feed(datagram))
        except (OSError, TimeoutError):
            # Some were lost; the next pass loads the table again.
            return False
        return changes == 1

    def exempt(self, links: Iterable[LinkId], ports: Iterable[int] | None = None) -> None:
        """Set the exempt links, and the ports where only IPsec passes (`set_exempt`).

        It takes a fraction of a millisecond, so it waits.

        Raises:
            KernelError: the kernel refuses; the table may be gone.
        """
        wanted = tuple(links)
        self._expect(len(wanted))
        # The kernel names who made a transaction by its thread.
        self._own.expect(threading.get_native_id())
        set_exempt(wanted, ports)

    def _expect(self, elements: int) -> None:
        """Have so many of a set be read."""
        self._most = max(self._most, elements)

    async def delete(self) -> None:
        """Remove the table; a missing one is no error.

        Raises:
            KernelError: the kernel refuses.
        """
        # In this order: without the guard nothing looks for the other.
        if await read_flow_rules() is not None:
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
        found = await read_flow_rules() if text else None
        self._flow_form = (mark(text), found) if found is not None else None

    async def read(self) -> GuardTable | None:
        """The table as it is, None where there is none.

        Its `mark` is that of the text which is known to have made it, "" where none is.

        Raises:
            KernelError: it cannot be read.
        """
        found = self._last = await read_tables(self._most, self._last)
        if found is None:
            return None
        known = self._mark_of(found.guard.form)
        self._know(known, found.image)
        flow_mark, form = self._flow_form or ("", "")
        rules = found.flow_rules
        self._readings += 1
        return replace(
            found.guard,
            mark=known,
            flowtables=found.flowtables,
            flow_rules=None if rules is None else flow_mark if rules == form else "",
            offloaded=found.offloaded,
            reading=self._readings,
        )

    def _know(self, known: str, image: Image | None) -> None:
        """Keep what a text is known to make, so that it can be put back."""
        if known and image is not None:
            self._image = known, image

    def form_of(self, text: str) -> str | None:
        """The form that the table has if it is what this text loaded, None if that is not known.

        It is "" of a text that makes no table with rules.
        """
        made = self._forms.get(mark(text))
        return made or self._tried.get(mark(text), made)

    def _mark_of(self, form: str) -> str:
        # A table without rules has no form that could be known.
        made = (*self._forms.items(), *self._tried.items())
        return next((key for key, one in made if form and one == form), "")

    async def learn(self, text: str) -> None:
        """Find out which form a text makes, by loading it where it filters nothing.

        So a table that another program loaded from the same text, as at boot, is known by its
        `mark`, and so stays what a load has made. It takes some 20 ms and a network namespace of
        its own, which ends with it.

        Raises:
            KernelError: it does not load, or no namespace can be made.
        """
        program = locate_nft()
        doing = "cannot try the guard's table in a network namespace"
        try:
            with _as_file(text) as descriptor, _in_time(self._deadline):
                trial = await try_text(program, descriptor, self._deadline)
        except OSError as error:
            raise KernelError(f"{doing}: {error.strerror}", code=error.errno or 0) from error
        if trial.status != 0:
            raise refusal(doing, trial.complaint)
        self._tried[mark(text)] = trial.image.form if trial.image else ""

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
                    ours = self._own.made(author)
                if not ours:
                    wake()

    async def _succeed(self, doing: str, text: str, *options: str) -> None:
        """Have nft take a text."""
        done = await self._take(text, *options)
        if done.status != 0 and _UNSUPPORTED in done.complaint:
            # A table that outlasts its owner can be deleted, but not named anew (nft_refusals.py).
            again = await self._take(_OPENING.sub("", text, count=1), *options)
            done = again if again.status == 0 else done
        if done.status != 0:
            raise refusal(doing, done.complaint)

    async def _take(self, text: str, *options: str) -> _Outcome:
        with _as_file(text) as descriptor:
            return await self._run(*options, "-f", f"/proc/self/fd/{descriptor}", keep=descriptor)

    async def _run(self, *arguments: str, keep: int) -> _Outcome:
        program = locate_nft()
        async with self._starting:
            with _startable(program):
                process = await start_program(program, *arguments, keep=keep)
            if "-c" not in arguments:
                self._own.expect(process.pid)
        with _in_time(self._deadline):
            status, _, complaint = await outcome(process, self._deadline)
        return _Outcome(status, complaint)


def locate_nft() -> str:
    """The path of nft.

    Raises:
        KernelError: it is not installed.
    """
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
        raise refused(f"cannot start {program}", error, NO_START) from error


@contextlib.contextmanager
def _in_time(deadline: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise KernelError(
            f"nft did not answer within {deadline:g} s",
            code=errno.ETIMEDOUT,
            hint="the machine is overloaded; the agent tries again",
        ) from error


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[int]:
    """A descriptor to name to nft.

    Raises:
        KernelError: there is none left, or no memory.
    """
    with contextlib.ExitStack() as opened:
        try:
            descriptor = os.memfd_create("guard")
            file = opened.enter_context(
                os.fdopen(descriptor, "w+", encoding="utf-8", errors="replace")
            )
            file.write(text)
            file.flush()
        except OSError as error:
            raise refused("cannot write a text for nft", error) from error
        yield file.fileno()


def _recall(memory: Path | None) -> dict[str, str]:
    if memory is None:
        return {}
    try:
        with open_regular(memory) as file:
            found = json.loads(file.read(_ROOM) or b"")
    except (OSError, *NOT_UNDERSTOOD):
        return {}
    return {str(key): str(form) for key, form in found.items()} if isinstance(found, dict) else {}
