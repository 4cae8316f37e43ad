"""The text of charon's private strongswan.conf: what charon must know before VICI can tell it."""

from typing import Any

from ipsec_agent.core.config import Config

PLUGINS = (
    "nonce",
    "random",
    "openssl",
    "pem",
    "pkcs1",
    "pkcs8",
    "x509",
    "pubkey",
    "revocation",
    "constraints",
    "kdf",
    "kernel-netlink",
    "socket-default",
    "counters",
    "vici",
)
"""Pinned: nothing that fetches, nothing of another key exchange."""

REPLACED = frozenset({"kdf"})
"""Left out where it is not installed: since 5.9.6 a KDF is needed, and openssl has it as well."""

IKE_PORTS = (500, 4500)
"""charon's UDP ports (RFC 7296, 2.23): the guard lets IKE pass on no other."""

SETTINGS: dict[str, str] = {
    # Addresses and routes of the VM are not charon's.
    "install_routes": "no",
    "install_virtual_ip": "no",
    "process_route": "no",
    # A connection has one own address. Where that goes, charon would negotiate its selectors again
    # from another one, and a peer could not tell that from an address that somebody else claims.
    "plugins.kernel-netlink.roam_events": "no",
    # Nor does any VM send another one to somebody else (RFC 5685), but for one that lies.
    "follow_redirects": "no",
    "make_before_break": "yes",
    # Four critical jobs never end; 16 more keep up with 1,000 peers that come at once.
    "threads": "32",
    # A data centre's round trip is below 10 ms: 1 + 1.3 + 1.7 + 2.2 s until a peer counts as dead.
    # The base must not be 1.0, which makes charon write a larval lifetime of 149 days.
    "retransmit_tries": "3",
    "retransmit_timeout": "1.0",
    "retransmit_base": "1.3",
    # Hash tables for 1,000 IKE_SAs, so that a look-up does not walk them all; segments are locks.
    "ikesa_table_size": "1024",
    "ikesa_table_segments": "16",
    # After a power cut every VM initiates at once; cookies and blocks would refuse them.
    "cookie_threshold": "2000",
    "block_threshold": "50",
    "init_limit_half_open": "0",
    # Packets on their way when an SA is rekeyed still find the old one; 5 s is charon's default.
    "delete_rekeyed_delay": "5",
    # Who starts charon reads there why it ended at once; start and end only, a few lines a life.
    "filelog.start.path": "stderr",
    "filelog.start.default": "-1",
    "filelog.start.dmn": "1",
    # How long a packet that waits for an SA blocks the next attempt; 165 s by default.
    "plugins.kernel-netlink.xfrm_acq_expires": "3",
    "plugins.revocation.enable_crl": "no",
    "plugins.revocation.enable_ocsp": "no",
}

SECTIONS = ("charon", "charon-systemd")
"""Each program reads the section of its own name."""


def render(
    config: Config, *, vici_socket: str, program: str, installed: frozenset[str] = frozenset()
) -> str:
    """The text for this config; it holds no secret.

    Args:
        vici_socket: path of the VICI socket.
        program: path of charon, whose name decides the section.
        installed: the names of the plugins that this charon can load; empty where that is unknown.
    """
    charon = config.agent.charon
    absent = REPLACED - installed if installed else frozenset()
    pinned = (name for name in PLUGINS if name not in absent)
    settings = {
        "load": " ".join(charon.plugins or pinned),
        **SETTINGS,
        "plugins.vici.socket": f"unix://{vici_socket}",
        **_logging(config, program),
        **dict(charon.settings),
    }
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        _plant(tree, key, value)
    name = program.rpartition("/")[2]
    return (
        "# Written by ipsec-agent at each start of charon; change agent.charon.settings instead.\n"
        + _section(name if name in SECTIONS else "charon", tree, 0)
    )


def _logging(config: Config, program: str) -> dict[str, str]:
    level = str(config.log_level)
    log = config.agent.charon.log
    if log != "journal":
        # A file's path may hold dots, so the section has a name of its own (since 5.7).
        return {
            "filelog.agent.path": log,
            "filelog.agent.append": "yes",
            "filelog.agent.flush_line": "yes",
            "filelog.agent.time_format": "%b %e %T",
            "filelog.agent.default": level,
            "syslog.daemon.default": "-1",
            "syslog.auth.default": "-1",
            "journal.default": "-1",
        }
    if program.endswith("charon-systemd"):
        return {"journal.default": level}
    return {"syslog.daemon.default": level}


def _plant(tree: dict[str, Any], key: str, value: str) -> None:
    *path, leaf = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[leaf] = value


def _section(name: str, tree: dict[str, Any], depth: int) -> str:
    indent = "  " * depth
    lines = [f"{indent}{name} {{\n"]
    for key, value in tree.items():
        if isinstance(value, dict):
            lines.append(_section(key, value, depth + 1))
        else:
            lines.append(f'{indent}  {key} = "{_quoted(value)}"\n')
    lines.append(f"{indent}}}\n")
    return "".join(lines)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
