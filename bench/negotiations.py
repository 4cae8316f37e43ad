"""A deployment's IKE as events: what each VM's CPUs do, in which order, and what comes too late.

Modelled as strongSwan 5.9 does it: IKE_AUTH waits behind IKE_SA_INIT (process_message_job.c), an
IKE_SA_INIT is refused where too many jobs are queued (receiver.c), a request is sent again until it
has an answer (task_manager_v2.c). The kernel forgets an SPI that waits too long for its SA.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum

from msgspec import Struct, field

SEED = 20_261_127

LATENCY, LOSS = 0.001, 0.001
"""Seconds on the way, up to twice that; the part of all packets that gets lost."""


class Costs(Struct, frozen=True):
    """Seconds of CPU.

    Attributes:
        sign: one signature; each end makes one for each negotiation.
        verify: two, of a certificate and of the peer.
        exchange: Diffie-Hellman, each end.
        message: all else for one message, or the installation of an SA.
        again: a request that was seen before.
    """

    sign: float
    verify: float
    exchange: float = 0.0002
    message: float = 0.0003
    again: float = 0.0001

    def negotiation(self) -> float:
        """Of one end of a negotiation."""
        return self.sign + self.verify + self.exchange + 2 * self.message


class Settings(Struct, frozen=True):
    """What charon is set to.

    Attributes:
        timeout: seconds before a request is sent again for the first time.
        base: by which each next wait is longer.
        tries: retransmissions before it gives up.
        jitter: per cent by which a wait may be shorter.
        jobs: queued jobs beyond which an IKE_SA_INIT is refused; 0 for none.
        acquire: seconds for which the kernel keeps an acquire, and an SPI without its SA.
        limit: seconds that no wait exceeds; 0 for none.
    """

    timeout: float
    base: float
    tries: int
    jitter: int
    jobs: int
    acquire: float
    limit: float = 0.0

    def wait(self, sent: int) -> float:
        """Seconds after the request was sent so many times."""
        wait = self.timeout * float(self.base ** (sent - 1))
        return min(wait, self.limit) if self.limit else wait

    def patience(self) -> float:
        """Seconds until it gives up, without jitter."""
        return sum(self.wait(sent) for sent in range(1, self.tries + 2))


class Machine(Struct, frozen=True):
    """A VM's CPUs: how many, and how many times slower than the measured one each is."""

    cpus: int = 2
    slowness: float = 1.0


class Stage(IntEnum):
    """How far a negotiation is, as its initiator sees it."""

    INIT = 0
    AUTH = 1
    DONE = 2
    FAILED = 3


class Negotiation(Struct):
    """An IKE_SA with its CHILD_SA.

    Attributes:
        heard: requests that the responder has taken, by stage, and those that it has answered.
        spi: when the initiator's SPI was allocated.
    """

    initiator: int
    responder: int
    began: float
    stage: Stage = Stage.INIT
    sent: int = 0
    heard: set[Stage] = field(default_factory=set)
    answered: set[Stage] = field(default_factory=set)
    processing: bool = False
    spi: float = 0.0


class Tally(Struct):
    """What happened, in negotiations and messages."""

    begun: int = 0
    retransmissions: int = 0
    refused: int = 0
    gave_up: int = 0
    expired: int = 0
    crossed: int = 0


Job = tuple[Callable[[], float], Callable[[], None]]
"""Seconds of CPU, asked when it starts, and what comes of it."""


class Node:
    """A VM's queues, and its peers: those with which it has an SA, and with which it negotiates.

    Attributes:
        full: when it got the last SA that it lacked, below 0 while it lacks one.
        up: when it begins to answer.
        worked: seconds of CPU.
    """

    def __init__(self, cpus: int) -> None:
        self.free = cpus
        self.medium: deque[Job] = deque()
        self.low: deque[Job] = deque()
        self.peers: set[int] = set()
        self.trying: set[int] = set()
        self.full = -1.0
        self.up = 0.0
        self.worked = 0.0


class Fleet:
    """VMs that negotiate with each other; each stands for `weight` of a larger deployment.

    What a VM does for one peer counts `weight` times: CPU, queued jobs, what is counted.
    """

    def __init__(
        self, vms: int, weight: float, machine: Machine, costs: Costs, settings: Settings
    ) -> None:
        self.nodes = [Node(machine.cpus) for _ in range(vms)]
        self.now = 0.0
        self.tally = Tally()
        self.missing = 0
        self.weight, self._scale = weight, weight * machine.slowness
        self._costs, self._settings = costs, settings
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._random = random.Random(SEED)  # noqa: S311 - drawn alike in each run

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something happen later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._count), what))

    def run(self, most: float, events: int) -> None:
        """Until all have an SA with each peer that they lack, or for so many seconds or events."""
        for _ in range(events):
            if not (self._events and self.missing):
                return
            self.now, _, what = heapq.heappop(self._events)
            if self.now > most:
                return
            what()

    def lack(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Have these pairs lack an SA, and all others have one."""
        vms = range(len(self.nodes))
        for vm in vms:
            self.nodes[vm].peers = set(vms) - {vm}
        for one, other in pairs:
            self.nodes[one].peers.discard(other)
            self.nodes[other].peers.discard(one)
        self.missing = sum(len(vms) - 1 - len(node.peers) for node in self.nodes)

    def begin(self, vm: int, peer: int) -> None:
        """A packet finds no SA, or an agent wants one: negotiate, unless that is under way."""
        node = self.nodes[vm]
        if peer in node.peers or peer in node.trying:
            return
        node.trying.add(peer)
        self.tally.begun += 1
        one = Negotiation(vm, peer, self.now)
        self._work(vm, self._costs.message, lambda: self._send(one), low=False)

    def draw(self, most: float) -> float:
        """Some number below that."""
        return self._random.random() * most

    def _work(self, vm: int, seconds: float, then: Callable[[], None], *, low: bool) -> None:
        self._queue(vm, (lambda: seconds, then), low=low)

    def _queue(self, vm: int, job: Job, *, low: bool) -> None:
        node = self.nodes[vm]
        if node.free:
            node.free -= 1
            self._start(node, job)
        else:
            (node.low if low else node.medium).append(job)

    def _start(self, node: Node, job: Job) -> None:
        begins, then = job
        seconds = begins() * self._scale
        node.worked += seconds

        def done() -> None:
            then()
            queue = node.medium or node.low
            if queue:
                self._start(node, queue.popleft())
            else:
                node.free += 1

        self.after(seconds, done)

    def _travel(self, what: Callable[[], None]) -> None:
        if self._random.random() >= LOSS:
            self.after(LATENCY * (1 + self._random.random()), what)

    def _send(self, one: Negotiation) -> None:
        """A request, for the first time or again; and the wait for its answer."""
        one.sent += 1
        stage, sent = one.stage, one.sent
        self._travel(lambda: self._requested(one, stage))
        wait = self._settings.wait(sent)
        wait -= self.draw(wait * self._settings.jitter / 100)
        self.after(wait, lambda: self._waited(one, stage, sent))

    def _waited(self, one: Negotiation, stage: Stage, sent: int) -> None:
        if (one.stage, one.sent) != (stage, sent):
            return
        if sent > self._settings.tries:
            self.tally.gave_up += 1
            self._fail(one)
        else:
            self.tally.retransmissions += 1
            self._send(one)

    def _fail(self, one: Negotiation) -> None:
        """It comes to nothing; traffic goes on, and asks again once the kernel's acquire ends."""
        one.stage = Stage.FAILED
        vm, peer = one.initiator, one.responder
        self.nodes[vm].trying.discard(peer)
        held = max(0.0, one.began + self._settings.acquire - self.now)
        self.after(held + self.draw(1.0), lambda: self.begin(vm, peer))

    def _requested(self, one: Negotiation, stage: Stage) -> None:
        """The responder has a request, perhaps once more."""
        node, costs = self.nodes[one.responder], self._costs
        if self.now < node.up:
            return
        queued = (len(node.medium) + len(node.low)) * self.weight
        if stage is Stage.INIT and self._settings.jobs and queued > self._settings.jobs:
            self.tally.refused += 1
            return
        low = stage is Stage.AUTH
        if stage in one.heard:
            if stage in one.answered:
                self._work(one.responder, costs.again, lambda: self._answer(one, stage), low=low)
            return
        one.heard.add(stage)
        cost = costs.exchange + costs.message
        if low:
            cost = costs.verify + costs.sign + costs.message
        self._work(one.responder, cost, lambda: self._answer(one, stage), low=low)

    def _answer(self, one: Negotiation, stage: Stage) -> None:
        if stage is Stage.AUTH and stage not in one.answered:
            self._has(one.responder, one.initiator)
        one.answered.add(stage)
        self._travel(lambda: self._answered(one, stage))

    def _answered(self, one: Negotiation, stage: Stage) -> None:
        """The initiator has an answer; the request is sent again until it works on that."""
        costs, init = self._costs, stage is Stage.INIT
        cost = costs.message + (costs.exchange + costs.sign if init else costs.verify)
        mine = False

        def begins() -> float:
            nonlocal mine
            mine = one.stage is stage and not one.processing
            if not mine:
                return costs.again
            one.processing = True
            one.sent += 1
            return cost

        def then() -> None:
            if mine:
                (self._authenticate if init else self._install)(one)

        self._queue(one.initiator, (begins, then), low=not init)

    def _authenticate(self, one: Negotiation) -> None:
        one.stage, one.sent, one.processing, one.spi = Stage.AUTH, 0, False, self.now
        self._send(one)

    def _install(self, one: Negotiation) -> None:
        if self.now - one.spi > self._settings.acquire:
            self.tally.expired += 1
            self._lost(one.responder, one.initiator)
            self._fail(one)
            return
        one.stage = Stage.DONE
        self.nodes[one.initiator].trying.discard(one.responder)
        if not self._has(one.initiator, one.responder):
            self.tally.crossed += 1
        self._has(one.responder, one.initiator)

    def _has(self, vm: int, peer: int) -> bool:
        """A VM has an SA with a peer; whether that is its first one."""
        node = self.nodes[vm]
        if peer in node.peers:
            return False
        node.peers.add(peer)
        self.missing -= 1
        if len(node.peers) == len(self.nodes) - 1:
            node.full = self.now
        return True

    def _lost(self, vm: int, peer: int) -> None:
        """The peer could not install its end, and says so."""
        node = self.nodes[vm]
        if peer in node.peers and vm not in self.nodes[peer].peers:
            node.peers.discard(peer)
            node.full = -1.0
            self.missing += 1
