"""How long charon's list of SAs takes to be read: `python -m bench.vici`, median milliseconds.

Each line is a figure: all of it from the bytes as charon sends them to the records of a pass. The
anchor decodes the same messages by the package `vici`, and no more, in the same run.
"""

import asyncio
import json
import statistics
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from typing import Any

from vici.protocol import FiniteStream, Message, Packet

from ipsec_agent.core.observed import IkeSa
from ipsec_agent.host.charon import CharonClient
from ipsec_agent.host.vici_wire import ViciConnection

PEERS = (100, 1000, 2000)
TIMES = 7
OWN = "10.0.0.5"
FIRST_PEER = IPv4Address("10.0.1.0")


def main() -> None:
    """Print the figures."""
    for peers in PEERS:
        bodies = [Message.serialize(_sa(number)) for number in range(peers)]
        found = _median(partial(_read, _sent(bodies)))
        anchor = _median(partial(_decoded_by_vici, bodies))
        line = {
            "figure": f"list-sas, {peers} peers",
            "ms": found,
            "anchor": anchor,
            "ratio": round(found / anchor, 2),
        }
        sys.stdout.write(json.dumps(line) + "\n")


def _median(measured: Callable[[], object]) -> float:
    measured()
    took = []
    for _ in range(TIMES):
        began = time.process_time()
        measured()
        took.append(time.process_time() - began)
    return round(statistics.median(took) * 1000, 2)


def _read(sent: bytes) -> tuple[IkeSa, ...]:
    return asyncio.run(_sas(sent))


async def _sas(sent: bytes) -> tuple[IkeSa, ...]:
    reader = asyncio.StreamReader()
    reader.feed_data(sent)
    reader.feed_eof()
    return await CharonClient(ViciConnection(reader, _Deaf(), 5.0)).sas()


def _decoded_by_vici(bodies: list[bytes]) -> list[dict[str, Any]]:
    return [Message.deserialize(FiniteStream(one)) for one in bodies]


class _Deaf(asyncio.StreamWriter):
    """A writer whose words nobody hears: the answers are there already."""

    def __init__(self) -> None: ...

    def write(self, data: Any) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...

    def __del__(self) -> None: ...


def _sent(bodies: list[bytes]) -> bytes:
    """What charon 5.9 sends: one event for each IKE_SA, then the answer."""
    event = bytes([Packet.EVENT, len(b"list-sa")]) + b"list-sa"
    frames = [bytes([Packet.EVENT_CONFIRM]), *(event + one for one in bodies)]
    frames.append(bytes([Packet.CMD_RESPONSE]))
    return b"".join(struct.pack("!I", len(one)) + one for one in frames)


def _sa(number: int) -> dict[str, Any]:
    """An IKE_SA with its CHILD_SA, all that charon 5.9.8 tells of it (vici_query.c)."""
    peer = str(FIRST_PEER + number)
    child = {
        "name": "ipsec-10.0.0.0/16", "uniqueid": str(number + 1), "reqid": str(number + 1),
        "state": "INSTALLED", "mode": "TRANSPORT", "protocol": "ESP",
        "spi-in": f"c{number:07x}", "spi-out": f"d{number:07x}",
        "encr-alg": "AES_GCM_16", "encr-keysize": "128",
        "bytes-in": str(84 * number), "packets-in": str(number), "use-in": "3",
        "bytes-out": str(84 * number), "packets-out": str(number), "use-out": "3",
        "rekey-time": "3251", "life-time": "3960", "install-time": "349",
        "local-ts": [f"{OWN}/32"], "remote-ts": [f"{peer}/32"],
    }  # fmt: skip
    return {
        "ipsec-10.0.0.0/16": {
            "uniqueid": str(number + 1), "version": "2", "state": "ESTABLISHED",
            "local-host": OWN, "local-port": "500", "local-id": "CN=Example VMs",
            "remote-host": peer, "remote-port": "500", "remote-id": "CN=Example VMs",
            "initiator": "yes", "initiator-spi": f"{number:016x}",
            "responder-spi": f"{number + 1:016x}",
            "encr-alg": "AES_GCM_16", "encr-keysize": "128", "prf-alg": "PRF_HMAC_SHA2_256",
            "dh-group": "ECP_256", "established": "349", "rekey-time": "13251",
            "child-sas": {f"ipsec-10.0.0.0/16-{number + 1}": child},
        }
    }  # fmt: skip


if __name__ == "__main__":
    main()
