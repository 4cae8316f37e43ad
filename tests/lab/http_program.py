"""A job that serves HTTP and asks its peers, again and again: run in a VM's namespace.

It prints a line once each peer has answered. Once it gets a line, it prints one with what came of
all requests, and serves on until its input ends. With each peer one connection lasts all the time;
others are new.
"""

import http.client
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8080
BODY = b"x" * 4000
"""More than one packet."""


class Answer(BaseHTTPRequestHandler):
    """The same to each request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


class Client(threading.Thread):
    """Asks one peer until told to end."""

    def __init__(self, peer: str, patience: float, every: float) -> None:
        """Ask `peer` every so many seconds; an answer may take `patience`."""
        super().__init__(daemon=True)
        self.peer, self.patience, self.every = peer, patience, every
        self.answered, self.failed = 0, list[str]()
        self.over = threading.Event()
        self._kept = http.client.HTTPConnection(peer, PORT, timeout=patience)

    def begin(self) -> None:
        """Wait until the peer serves; the connection lasts from here on."""
        end = time.monotonic() + self.patience
        while True:
            try:
                self._kept.connect()
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return

    def run(self) -> None:
        """Ask."""
        self._kept.auto_open = 0
        while not self.over.wait(self.every):
            new = http.client.HTTPConnection(self.peer, PORT, timeout=self.patience)
            for name, connection in (("kept", self._kept), ("new", new)):
                try:
                    connection.request("GET", "/")
                    assert connection.getresponse().read() == BODY
                except (OSError, http.client.HTTPException) as error:
                    self.failed.append(f"{name} connection with {self.peer}: {error!r}")
                else:
                    self.answered += 1
            new.close()


def main() -> None:
    """Serve and ask."""
    own, patience, every, *peers = sys.argv[1:]
    server = ThreadingHTTPServer((own, PORT), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    clients = [Client(peer, float(patience), float(every)) for peer in peers]
    for client in clients:
        client.begin()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for client in clients:
        client.start()
    sys.stdin.readline()
    for client in clients:
        client.over.set()
    for client in clients:
        client.join(2 * float(patience))
    answers = {client.peer: client.answered for client in clients}
    failed = [line for client in clients for line in client.failed]
    sys.stdout.write(json.dumps({"answered": answers, "failed": failed}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
