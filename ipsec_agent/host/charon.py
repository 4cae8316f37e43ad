"""What we ask of charon, in model types: connections, credentials, SAs."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager
from ipaddress import ip_address, ip_network, summarize_address_range
from itertools import chain
from pathlib import Path
from typing import Any

from ipsec_agent.core.charon_log import Said
from ipsec_agent.core.model import Action, Address, Authority, Connection, Credentials, Network
from ipsec_agent.core.observed import ChildSa, IkeSa, LoadedConnection
from ipsec_agent.core.sa_details import ChildDetails, IkeDetails
from ipsec_agent.core.swanctl import connection_message, renewal_message
from ipsec_agent.errors import CharonGoneError, CharonRefusedError
from ipsec_agent.host.decoded import Decoded
from ipsec_agent.host.understood import understood
from ipsec_agent.host.vici_message import decoded
from ipsec_agent.host.vici_wire import DEADLINE, ViciConnection, open_vici

KEPT = 4096
"""Addresses and selectors that are not decoded again: two of each of 1,000 peers."""


class CharonClient:
    """charon's commands, on one VICI connection."""

    def __init__(self, vici: ViciConnection) -> None:
        self._vici = vici

    async def version(self) -> str:
        """charon's version, such as 5.9.8."""
        answer = await self._vici.request("version")
        with _understood("version"):
            return _text(answer.get("version", b""))

    async def reopen_log(self) -> None:
        """Have charon read its strongswan.conf again, and with it open its log files again."""
        await self._vici.request("reload-settings")

    async def exchanges(self) -> frozenset[str]:
        """The names of the key exchanges that charon's plugins have, such as CURVE_25519."""
        answer = await self._vici.request("get-algorithms")
        with _understood("get-algorithms"):
            # Before 6.0 they are called `dh`.
            return frozenset((*answer.get("ke", {}), *answer.get("dh", {})))

    async def plugins(self) -> tuple[str, ...]:
        """The plugins that charon loaded."""
        answer = await self._vici.request("stats")
        with _understood("stats"):
            return _texts(answer, "plugins")

    async def connections(
        self, known: Decoded[tuple[LoadedConnection, ...]] | None = None
    ) -> tuple[LoadedConnection, ...]:
        """The loaded connections, without what only a fingerprint can tell.

        Args:
            known: keeps what charon listed the last time.
        """
        found = await self._vici.frames("list-conns", "list-conn")
        with _understood("list-conns"):
            entries = (known or loaded_connections()).all(found)
        return tuple(chain.from_iterable(entries))

    async def authorities(self) -> tuple[str, ...]:
        """The names of the CAs that charon trusts through load-authority."""
        answer = await self._vici.request("get-authorities")
        with _understood("get-authorities"):
            return _texts(answer, "authorities")

    async def keys(self) -> tuple[str, ...]:
        """The ids of the private keys that charon has."""
        answer = await self._vici.request("get-keys")
        with _understood("get-keys"):
            return _texts(answer, "keys")

    async def sas(self) -> tuple[IkeSa, ...]:
        """The IKE_SAs and their CHILD_SAs, all of them.

        With `noblock` charon would leave out those that it is busy with, and their policies and SAs
        in the kernel would look unowned.
        """
        found = await self._vici.stream("list-sas", "list-sa")
        with _understood("list-sas"):
            return tuple(_ike_sa(name, body) for entry in found for name, body in entry.items())

    async def certificates(self) -> tuple[bytes, ...]:
        """DER of the X.509 certificates that charon has, also of those that it keeps of peers."""
        found = await self._vici.stream("list-certs", "list-cert", {"type": "X509", "flag": "ANY"})
        return tuple(
            data for entry in found for data in (entry.get("data"),) if isinstance(data, bytes)
        )

    async def load_connection(self, connection: Connection) -> None:
        """Load or replace a connection. Success says nothing of its policies: read the kernel."""
        await self._vici.request("load-conn", connection_message(connection))

    async def load_renewal(self, connection: Connection) -> None:
        """Load a connection with one peer, to be initiated."""
        await self._vici.request("load-conn", renewal_message(connection))

    async def initiate(self, child: str, connection: str) -> None:
        """Begin to negotiate a child's SAs, without waiting for what comes of it."""
        await self._vici.request("initiate", {"child": child, "ike": connection, "timeout": "-1"})

    async def establish(self, connection: str, seconds: float) -> bool | None:
        """Establish an IKE_SA without a CHILD_SA, and wait for what comes of it.

        Returns:
            whether it is there; None where nothing came of it in that time.
        """
        try:
            await self._vici.request(
                "initiate", {"ike": connection, "timeout": str(round(seconds * 1000))}
            )
        except CharonRefusedError as error:
            # vici_control.c: initiate.
            return None if "not established after" in error.message else False
        return True

    async def terminate_begun(self, connection: str) -> None:
        """End the IKE_SAs of a connection that this VM has begun, without waiting for the peer.

        What the peer has begun meanwhile may carry the traffic.
        """
        found = await self._vici.stream("list-sas", "list-sa", {"ike": connection})
        with _understood("list-sas"):
            sas = [_ike_sa(name, body) for entry in found for name, body in entry.items()]
        for sa in sas:
            if sa.initiator:
                await self.terminate(sa.unique_id)

    async def unload_connection(self, name: str) -> None:
        """Unload a connection; its SAs stay."""
        await self._vici.request("unload-conn", {"name": name})

    async def load_authority(self, authority: Authority) -> None:
        """Trust a CA."""
        await self._vici.request(
            "load-authority", {authority.name: {"cacert": authority.certificate}}
        )

    async def unload_authority(self, name: str) -> None:
        """Remove a CA."""
        await self._vici.request("unload-authority", {"name": name})

    async def load_key(self, credentials: Credentials, *, only: bool = False) -> None:
        """Give charon the private key, from memory, and the intermediates.

        Args:
            only: it forgets other keys and certificates first, also CAs that were loaded with a
                connection, which nothing else takes from it. Those of `load_authority` stay, and
                so do connections and SAs.

        Raises:
            CharonRefusedError: the key is refused, or charon names it otherwise than we do.
        """
        if only:
            await self._vici.request("clear-creds")
        for certificate in credentials.intermediates:
            await self._vici.request(
                "load-cert", {"type": "X509", "flag": "NONE", "data": certificate}
            )
        answer = await self._vici.request(
            "load-key", {"type": "any", "data": bytes(credentials.private_key)}
        )
        if answer.get("id", b"") != credentials.key_id.encode():
            raise CharonRefusedError("charon loaded a private key with another id than expected")

    async def unload_key(self, key_id: str) -> None:
        """Remove a private key."""
        await self._vici.request("unload-key", {"id": key_id})

    async def reinstall(self, child: str, connection: str, action: Action) -> None:
        """Install a child's trap or shunt, whether charon believes it there or not."""
        install = self._vici.request("install", {"child": child, "ike": connection})
        if action is Action.PASS:
            # A trap is replaced as a whole, a shunt is refused while charon has it (trap_manager.c,
            # shunt_manager.c: install). Both are sent at once, and charon keeps their order.
            await asyncio.gather(self._uninstall(child, connection), install)
        else:
            await install

    async def _uninstall(self, child: str, connection: str) -> None:
        # Refused as not found where somebody had that done by hand.
        with contextlib.suppress(CharonRefusedError):
            await self._vici.request("uninstall", {"child": child, "ike": connection})

    async def terminate(self, unique_id: int, *, at_once: bool = False) -> None:
        """End an IKE_SA and its CHILD_SAs, without waiting for the peer.

        Args:
            at_once: do not keep them until the peer has answered.
        """
        more = {"force": "yes"} if at_once else {}
        await self._terminate("ike-id", unique_id, more)

    async def terminate_child(self, unique_id: int) -> None:
        """End a CHILD_SA, without waiting for the peer."""
        await self._terminate("child-id", unique_id)

    async def _terminate(
        self, kind: str, unique_id: int, more: Mapping[str, str] | None = None
    ) -> None:
        # One that has ended by itself is refused as not found, and that is what was wanted.
        with contextlib.suppress(CharonRefusedError):
            await self._vici.request(
                "terminate", {kind: str(unique_id), "timeout": "-1", **(more or {})}
            )


def loaded_connections() -> Decoded[tuple[LoadedConnection, ...]]:
    """What list-conns has listed; most of hundreds of connections stay as they are."""
    return Decoded(_loaded)


def _loaded(entry: bytes) -> tuple[LoadedConnection, ...]:
    return tuple(
        LoadedConnection(name, "", tuple(sorted(body.get("children", {}).keys())))
        for name, body in decoded(entry).items()
    )


@contextlib.asynccontextmanager
async def open_charon(path: Path, deadline: float = DEADLINE) -> AsyncIterator[CharonClient]:
    """charon's commands on a connection of their own.

    Raises:
        CharonGoneError: no process listens on the socket.
    """
    async with open_vici(path, deadline) as vici:
        yield CharonClient(vici)


def _understood(what: str) -> AbstractContextManager[None]:
    return understood(
        lambda error: CharonGoneError(
            f"charon's {what} cannot be understood: {error}",
            hint="another program may listen on agent.vici_socket; the agent asks again",
        )
    )


def said_by(body: dict[str, Any]) -> Said:
    """A line of charon's log, out of its event.

    Raises:
        CharonGoneError: it is no such event.
    """
    with _understood("log"):
        return Said(
            group=_text(body.get("group", b"")),
            level=int(body.get("level", b"1")),
            text=_text(body.get("msg", b"")),
            ike_sa=_number(body, "ikesa-uniqueid"),
        )


def _ike_sa(name: str, body: dict[str, Any]) -> IkeSa:
    return IkeSa(
        unique_id=_number(body, "uniqueid"),
        name=name,
        state=_text(body.get("state", b"")),
        local=_host(body.get("local-host", b"")),
        remote=_host(body.get("remote-host", b"")),
        initiator=body.get("initiator") == b"yes",
        age=_number(body, "established"),
        children=tuple(_child_sa(child) for child in body.get("child-sas", {}).values()),
        algorithms=_algorithms(body),
        remote_id=_identity(body, "remote-id"),
        details=IkeDetails(_identity(body, "local-id"), _until(body, "rekey-time")),
    )


def _identity(body: dict[str, Any], key: str) -> str:
    """Who it is; charon writes %any while nobody has said so."""
    said = _text(body.get(key, b""))
    return "" if said == "%any" else said


def _child_sa(body: dict[str, Any]) -> ChildSa:
    selectors = [*body.get("local-ts", []), *body.get("remote-ts", [])]
    return ChildSa(
        unique_id=_number(body, "uniqueid"),
        name=_text(body.get("name", b"")),
        state=_text(body.get("state", b"")),
        spi_in=int(body.get("spi-in", b"0"), 16),
        spi_out=int(body.get("spi-out", b"0"), 16),
        reqid=_number(body, "reqid"),
        local=_networks(body.get("local-ts", [])),
        remote=_networks(body.get("remote-ts", [])),
        bytes_in=_number(body, "bytes-in"),
        bytes_out=_number(body, "bytes-out"),
        packets_in=_number(body, "packets-in"),
        packets_out=_number(body, "packets-out"),
        age=_number(body, "install-time"),
        transport=body.get("mode") == b"TRANSPORT",
        algorithms=_algorithms(body),
        restricted=any(b"[" in selector for selector in selectors),
        details=ChildDetails(
            _until(body, "rekey-time"), _until(body, "life-time"), body.get("encap") == b"yes"
        ),
    )


ALGORITHMS = ("integ-alg", "prf-alg", "dh-group", *(f"ake{number}" for number in range(1, 8)))
"""What list-sas names beside the encryption; `ake1` is the first additional key exchange."""


def _algorithms(body: dict[str, Any]) -> str:
    """What was negotiated, such as AES_GCM_16-128/PRF_HMAC_SHA2_256/ECP_256; "" before."""
    if "encr-alg" not in body:
        return ""
    size = body.get("encr-keysize", b"")
    first = body["encr-alg"] + (b"-" + size if size else b"")
    return _text(b"/".join((first, *(body[key] for key in ALGORITHMS if key in body))))


# Counters and ages of an SA change all the time, its addresses never.
@functools.lru_cache(KEPT)
def _host(value: bytes) -> Address:
    """An address; unspecified where charon has not resolved it yet (`%any`)."""
    try:
        return ip_address(_text(value))
    except ValueError:
        return ip_address("::" if value == b"%any6" else "0.0.0.0")  # noqa: S104 - binds nothing


def _networks(selectors: Iterable[bytes]) -> tuple[Network, ...]:
    """The networks of selectors such as 10.0.0.1/32[tcp/80]; what is none, as dynamic, is left out.

    A peer may propose a range, which charon shows as FIRST..LAST.
    """
    return tuple(network for item in selectors for network in _network(item))


@functools.lru_cache(KEPT)
def _network(selector: bytes) -> tuple[Network, ...]:
    first, _, last = _text(selector).partition("[")[0].partition("..")
    try:
        if last:
            return tuple(summarize_address_range(ip_address(first), ip_address(last)))
        return (ip_network(first, strict=False),)
    except (ValueError, TypeError):
        return ()


def _number(body: dict[str, Any], key: str) -> int:
    return int(body.get(key, b"0") or b"0")


def _until(body: dict[str, Any], key: str) -> int | None:
    """Seconds until something happens, 0 where it is due; None where it never does."""
    return max(_number(body, key), 0) if key in body else None


def _texts(answer: dict[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_text(item) for item in answer.get(key, []))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
