"""monit's word for who runs, as 5.2.5 and newer ones print it, by a server of the test's."""

import base64
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ipsec_agent.core.drain import Claim
from ipsec_agent.host import monit
from ipsec_agent.host.monit import monit_claims

OLD = """<?xml version="1.0" encoding="ISO-8859-1"?><monit><server><uptime>9</uptime></server>
<service type="5"><name>system</name><collected_sec>90</collected_sec></service>
<service type="3"><name>nfs</name><collected_sec>100</collected_sec><monitor>1</monitor>
<pid>12</pid><ppid>1</ppid></service>
<service type="3"><name>gone</name><collected_sec>100</collected_sec><monitor>0</monitor></service>
<service type="3"><name>ended</name><collected_sec>100</collected_sec><pid>0</pid></service>
</monit>"""
NEW = """<?xml version="1.0"?><monit id="1" version="5.33.0"><services><service name="nfs">
<type>3</type><collected_sec>100</collected_sec><pid>12</pid></service></services></monit>"""

AUTHORIZED = "Basic " + base64.b64encode(b"vcap:secret").decode()


class Handler(BaseHTTPRequestHandler):
    """Answers as monit does to who knows the password."""

    answer = ""
    paths: list[str]

    def do_GET(self) -> None:
        """Answer."""
        self.paths.append(self.path)
        body = self.answer.encode()
        self.send_response(200 if self.headers["Authorization"] == AUTHORIZED else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A monit on a port of its own."""
    Handler.paths = []
    with HTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.05,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The file with the password."""
    path = tmp_path / "monit.user"
    path.write_text("vcap:secret\n")
    return path


@pytest.fixture
def _of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test may be run by anybody."""
    monkeypatch.setattr(monit, "ROOT", os.getuid())


@pytest.mark.usefixtures("_of_ours")
@pytest.mark.parametrize("answer", [OLD, NEW])
def test_processes(
    server: HTTPServer, user: Path, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes that have a pid, and when monit saw them."""
    monkeypatch.setattr(Handler, "answer", answer)

    assert monit_claims(user, server.server_port) == (Claim("nfs", 12, 100.0),)


@pytest.mark.usefixtures("_of_ours")
@pytest.mark.parametrize("answer", ["", "<monit>", "<x/>", OLD.replace("100", "then"), "\0"])
def test_what_cannot_be_read(
    server: HTTPServer, user: Path, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nothing, and no error."""
    monkeypatch.setattr(Handler, "answer", answer)

    assert monit_claims(user, server.server_port) == ()


@pytest.mark.usefixtures("_of_ours")
def test_refused(server: HTTPServer, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password, no password, no file, and no monit: nothing, and no error."""
    monkeypatch.setattr(Handler, "answer", OLD)
    user.write_text("vcap:wrong\n")
    assert monit_claims(user, server.server_port) == ()
    user.write_text("")
    assert monit_claims(user, server.server_port) == ()
    assert monit_claims(user.with_name("none"), server.server_port) == ()
    user.write_text("vcap:secret\n")
    assert monit_claims(user, 1) == ()
    assert len(Handler.paths) == 1


def test_the_password_is_for_root(
    server: HTTPServer, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who listens on monit's port, but is not root, is not asked, and so not told."""
    monkeypatch.setattr(Handler, "answer", OLD)
    monkeypatch.setattr(monit, "ROOT", os.getuid() + 1)

    assert monit_claims(user, server.server_port) == ()
    assert Handler.paths == []
