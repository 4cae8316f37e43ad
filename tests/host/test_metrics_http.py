"""The metrics over HTTP, from real sockets."""

import asyncio
import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address

import pytest

from ipsec_agent.core.config import Endpoint
from ipsec_agent.errors import ControlError
from ipsec_agent.host import metrics_http
from ipsec_agent.host.metrics_http import MAX_CALLERS, MAX_REQUEST, serve_metrics
from tests.loopback import LOOPBACK


@contextmanager
def taken() -> Iterator[Endpoint]:
    """An endpoint on which somebody else listens."""
    with socket.create_server((str(LOOPBACK), 0)) as listener:
        yield Endpoint(LOOPBACK, listener.getsockname()[1])


def free() -> Endpoint:
    """An endpoint on which nobody listens."""
    with taken() as endpoint:
        return endpoint


async def page(accept: str, peers: bool) -> tuple[str, str]:
    """Tells what was asked for."""
    return f"{accept} {peers}\n", "text/made"


def asked(endpoint: Endpoint, target: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and text of an answer."""
    connection = http.client.HTTPConnection(str(endpoint.address), endpoint.port, timeout=10)
    connection.request(method, target, headers={"Accept": "a/b;q=1", "X": "y"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers["Content-Type"], text


def raw(endpoint: Endpoint, sent: bytes) -> bytes:
    """The answer to bytes as they are, after which the sender sends no more."""
    with socket.create_connection((str(endpoint.address), endpoint.port), timeout=10) as channel:
        channel.sendall(sent)
        channel.shutdown(socket.SHUT_WR)
        with channel.makefile("rb") as answer:
            return answer.read()


@pytest.mark.parametrize(
    ("target", "peers"),
    [("/metrics", False), ("/metrics?peers", True), ("/metrics?a=1&peers=1", True)],
)
async def test_page(target: str, peers: bool) -> None:
    """GET /metrics is answered; the page gets the header and whether peers are asked for."""
    async with serve_metrics(endpoint := free(), page):
        answer = await asyncio.to_thread(asked, endpoint, target)

    assert answer == (200, "text/made", f"a/b;q=1 {peers}\n")


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 405), ("PUT", "/x", 404)],
)
async def test_nothing_else(method: str, target: str, status: int) -> None:
    """No other path, and no other method."""
    async with serve_metrics(endpoint := free(), page):
        answer = await asyncio.to_thread(asked, endpoint, target, method)

    assert answer[0] == status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 400),
        (b"GET /metrics HTTP/1.1\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"\xff\x00 /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/3.0\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.0\r\nAccept a\r\n: b\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * MAX_REQUEST + b"\r\n\r\n", 431),
    ],
)
async def test_whatever_is_sent(sent: bytes, status: int) -> None:
    """Whatever somebody sends has an answer, and the next one is served."""
    async with serve_metrics(endpoint := free(), page):
        answer = await asyncio.to_thread(raw, endpoint, sent)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert (await asyncio.to_thread(asked, endpoint, "/metrics"))[0] == 200


async def test_who_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that sends no request is told so when its time is over."""
    monkeypatch.setattr(metrics_http, "DEADLINE", 0.1)
    async with serve_metrics(endpoint := free(), page):
        reader, writer = await asyncio.open_connection(str(LOOPBACK), endpoint.port)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_too_many() -> None:
    """One more than there is room for is told to come again; a place that is free is used."""
    answers = asyncio.Event()

    async def slow(accept: str, peers: bool) -> tuple[str, str]:
        await answers.wait()
        return await page(accept, peers)

    async with serve_metrics(endpoint := free(), slow):
        held = [
            await asyncio.open_connection(str(LOOPBACK), endpoint.port) for _ in range(MAX_CALLERS)
        ]
        for _, writer in held:
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.1)
        full = await asyncio.to_thread(asked, endpoint, "/metrics")
        answers.set()
        for reader, writer in held:
            async with asyncio.timeout(10):
                assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()
        free_again = await asyncio.to_thread(asked, endpoint, "/metrics")

    assert (full[0], free_again[0]) == (503, 200)


async def test_too_many_who_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """They keep nobody from the metrics; the oldest one goes, without a word in the log."""
    async with serve_metrics(endpoint := free(), page):
        held = [
            await asyncio.open_connection(str(LOOPBACK), endpoint.port) for _ in range(MAX_CALLERS)
        ]
        answers = [await asyncio.to_thread(asked, endpoint, "/metrics") for _ in range(3)]
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await held[0][0].read() == b""
        for _, writer in held:
            writer.close()

    assert [answer[0] for answer in answers] == [200] * 3
    assert not caplog.records


async def test_a_caller_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is free again after the deadline."""
    monkeypatch.setattr(metrics_http, "DEADLINE", 0.1)
    monkeypatch.setattr(metrics_http, "MAX_CALLERS", 1)

    answering = asyncio.Event()

    async def long(_accept: str, _peers: bool) -> tuple[str, str]:
        answering.set()
        return "x" * (16 << 20), "text/plain"

    async with serve_metrics(endpoint := free(), long), asyncio.timeout(20):
        with socket.create_connection((str(LOOPBACK), endpoint.port)) as channel:
            channel.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            await answering.wait()
            while (await asyncio.to_thread(asked, endpoint, "/"))[0] == 503:
                pass


async def test_the_port_is_taken() -> None:
    """It is said which, and why; what was there stays."""
    with taken() as endpoint:
        with pytest.raises(ControlError) as caught:
            async with serve_metrics(endpoint, page):
                pass
        assert str(endpoint) in caught.value.message
        assert "ddress already in use" in caught.value.message


async def test_an_address_that_is_not_here() -> None:
    """The same for an address of another VM (TEST-NET-1)."""
    with pytest.raises(ControlError, match=r"192\.0\.2\.1:9815"):
        async with serve_metrics(Endpoint(ip_address("192.0.2.1"), 9815), page):
            pass


async def test_it_ends() -> None:
    """With the context nobody listens any more, and a caller that waits is let go."""
    async with serve_metrics(endpoint := free(), page):
        reader, writer = await asyncio.open_connection(str(LOOPBACK), endpoint.port)
        await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(str(LOOPBACK), endpoint.port)
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
