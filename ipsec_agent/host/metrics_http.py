"""Serves one page over HTTP/1.1: GET /metrics, and nothing else.

Whoever reaches the address may ask, so that each caller costs little: a request is short, has a
deadline, and one for each connection.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qsl

from ipsec_agent.core.config import Endpoint
from ipsec_agent.errors import ControlError

MAX_REQUEST = 8 * 1024
"""Bytes of the longest request line with its headers."""

MAX_CALLERS = 16
"""Callers at once; one more takes the place of the oldest that has sent no request yet, and is told
to come again where all have."""

DEADLINE = 5.0
"""Seconds that a caller may take to send its request, and to take the answer."""

PATH = "/metrics"

REQUEST = re.compile(r"(?P<method>[A-Z]+) (?P<target>/\S*) HTTP/1\.[01]")

Page = Callable[[str, bool], Awaitable[tuple[str, str]]]
"""Makes text and content type from the header Accept, and whether each peer is asked for."""


@contextlib.asynccontextmanager
async def serve_metrics(endpoint: Endpoint, page: Page) -> AsyncIterator[None]:
    """Answer requests while the context is open.

    Raises:
        ControlError: the address cannot be used; the message says why.
    """
    callers: set[asyncio.StreamWriter] = set()
    silent: dict[asyncio.StreamWriter, None] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.add(writer)
        try:
            if len(callers) > MAX_CALLERS and not _makes_room(silent):
                await _send(writer, _plain(HTTPStatus.SERVICE_UNAVAILABLE))
            else:
                silent[writer] = None
                head = await _head(reader)
                silent.pop(writer, None)
                await _send(writer, await _reply(head, page))
        except ConnectionError:
            pass
        finally:
            silent.pop(writer, None)
            callers.discard(writer)
            writer.close()

    try:
        server = await asyncio.start_server(
            answer, str(endpoint.address), endpoint.port, limit=MAX_REQUEST
        )
    except OSError as error:
        raise ControlError(
            f"the metrics cannot be served on {endpoint}: {error.strerror or error}"
        ) from error
    try:
        yield
    finally:
        server.close()
        for writer in callers:
            writer.transport.abort()


def _makes_room(silent: dict[asyncio.StreamWriter, None]) -> bool:
    """Let go of the oldest caller that has sent no request; whether there was one."""
    for oldest in silent:
        del silent[oldest]
        oldest.transport.abort()
        return True
    return False


async def _reply(head: bytes | HTTPStatus, page: Page) -> bytes:
    if isinstance(head, HTTPStatus):
        return _plain(head)
    first, *headers = head.decode("latin-1").split("\r\n")
    request = REQUEST.fullmatch(first)
    if request is None:
        return _plain(HTTPStatus.BAD_REQUEST)
    path, _, query = request["target"].partition("?")
    if path != PATH:
        return _plain(HTTPStatus.NOT_FOUND)
    if request["method"] != "GET":
        return _plain(HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET\r\n")
    peers = any(name == "peers" for name, _ in parse_qsl(query, keep_blank_values=True))
    return _response(HTTPStatus.OK, *await page(_header(headers, "accept"), peers))


async def _head(reader: asyncio.StreamReader) -> bytes | HTTPStatus:
    """The request's first line and headers, or why there are none."""
    try:
        async with asyncio.timeout(DEADLINE):
            return await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        return HTTPStatus.REQUEST_TIMEOUT
    except asyncio.LimitOverrunError:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    except asyncio.IncompleteReadError:
        return HTTPStatus.BAD_REQUEST


def _header(headers: list[str], name: str) -> str:
    found = (line.partition(":") for line in headers)
    return ", ".join(value.strip() for key, _, value in found if key.lower() == name)


def _plain(status: HTTPStatus, more: str = "") -> bytes:
    return _response(status, f"{status.phrase}\n", "text/plain; charset=utf-8", more)


def _response(status: HTTPStatus, text: str, content_type: str, more: str = "") -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + body


async def _send(writer: asyncio.StreamWriter, response: bytes) -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            # The drain is over once the kernel has all of it.
            writer.transport.set_write_buffer_limits(0)
            writer.write(response)
            await writer.drain()
    except TimeoutError:
        # To close it would still wait for a caller that does not read.
        writer.transport.abort()
