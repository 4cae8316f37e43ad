"""Echo requests (ICMP) to one peer, of any size, never fragmented."""

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ipsec_agent.core.model import Address
from ipsec_agent.core.path_mtu import SMALLEST
from ipsec_agent.host.exhausted import refused
from ipsec_agent.host.socket_policy import forget_route

IP4 = 4
HEADERS = {4: 28, 6: 48}
"""Bytes of an IP header and one of ICMP."""

REQUEST, ANSWER = {4: 8, 6: 128}, {4: 0, 6: 129}
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IPV6_DONTFRAG, IP_PMTUDISC_DO = 10, 23, 62, 2
LARGEST = 65_535
AT_ONCE = 256
"""Answers that are read before others have their turn."""


def _family(peer: Address) -> socket.AddressFamily:
    return socket.AF_INET if peer.version == IP4 else socket.AF_INET6


def _opened(own: Address, peer: Address) -> socket.socket:
    four = peer.version == IP4
    protocol = socket.IPPROTO_ICMP if four else socket.IPPROTO_ICMPV6
    opened = socket.socket(_family(peer), socket.SOCK_RAW, protocol)
    try:
        opened.setblocking(False)
        if four:
            opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO)
            opened.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
        opened.bind((str(own), 0))
    except OSError:
        opened.close()
        raise
    return opened


def _connected(opened: socket.socket, peer: Address) -> bool:
    """Whether the socket is connected: where a policy blocks it cannot be, and each request is
    refused as well."""
    try:
        opened.connect((str(peer), 0))
    except OSError:
        return False
    return True


class Echo:
    """Echo requests to a peer, and their answers.

    Attributes:
        own, peer, allowed: as given.
        answers: when the answer to each number came, by time.monotonic.
        sent: when each was sent.
        refused: names of the errors with which this VM did not send.
    """

    def __init__(
        self, own: Address, peer: Address, allowed: Callable[[socket.socket], None] | None = None
    ) -> None:
        """Open it.

        Args:
            allowed: is called with the socket before each request; it raises where none may be
                sent, whatever it likes.

        Raises:
            KernelError: not root, or there is no descriptor left for a socket.
        """
        self.own, self.peer, self.allowed = own, peer, allowed
        self.answers: dict[int, float] = {}
        self.sent: dict[int, float] = {}
        self.refused: list[str] = []
        self._version, self._id = peer.version, int.from_bytes(os.urandom(2))
        try:
            self._socket = _opened(own, peer)
        except OSError as error:
            raise refused(f"cannot send echo requests to {peer}", error, "run as root") from error
        self._connected = _connected(self._socket, peer)
        if allowed is not None:
            forget_route(self._socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def descriptor(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds from each request to its answer, in the order of the requests."""
        return tuple(
            self.answers[number] - at for number, at in self.sent.items() if number in self.answers
        )

    def forget(self) -> None:
        """Begin to count again; late answers to earlier requests do not count."""
        self.answers, self.refused = {}, []
        self.sent = {}
        self._id = int.from_bytes(os.urandom(2))

    def send(self, size: int = SMALLEST) -> int | None:
        """Send a request whose IP packet has so many bytes; its number, None where it is refused.

        A packet that does not fit is refused as EMSGSIZE. What `allowed` raises is passed on.
        """
        number, failed = len(self.sent) + 1, 0
        payload = bytes(max(size - HEADERS[self._version], 0))
        # An error of an earlier packet is told to the next call, and only once.
        for _ in range(2):
            if self.allowed is not None:
                self.allowed(self._socket)
            try:
                self._send(self._message(number, payload))
            except OSError as error:
                failed = error.errno or 0
            else:
                self.sent[number] = time.monotonic()
                return number
        self.refused.append(errno.errorcode.get(failed, str(failed)))
        return None

    def _send(self, message: bytes) -> None:
        if self._connected:
            self._socket.send(message)
        else:
            self._socket.sendto(message, (str(self.peer), 0))

    def _message(self, number: int, payload: bytes) -> bytes:
        head = struct.pack("!BBHHH", REQUEST[self._version], 0, 0, self._id, number)
        if self._version != IP4:
            return head + payload  # The kernel computes the checksum (RFC 3542, section 3.1).
        # The payload is zeroes.
        total = sum(struct.unpack("!4H", head))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return head[:2] + struct.pack("!H", ~total & 0xFFFF) + head[4:] + payload

    def receive(self) -> None:
        """Note the answers that have come."""
        for _ in range(AT_ONCE):
            try:
                packet = self._socket.recv(LARGEST + 1)
            except BlockingIOError:
                return
            except OSError:
                # Of a packet that was sent; the next call tells what came.
                continue
            self._note(packet)

    def _note(self, packet: bytes) -> None:
        at = (packet[0] & 15) * 4 if self._version == IP4 and packet else 0
        with contextlib.suppress(struct.error):
            kind, _, _, whose, number = struct.unpack_from("!BBHHH", packet, at)
            if kind == ANSWER[self._version] and whose == self._id and number in self.sent:
                self.answers.setdefault(number, time.monotonic())

    def watched(self, add: Callable[[int, Callable[[], None]], object]) -> None:
        """Have an event loop receive whenever there is something.

        Args:
            add: `loop.add_reader`.
        """
        add(self.descriptor, self.receive)
