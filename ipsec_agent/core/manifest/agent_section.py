"""Reads the node section `agent:`, which says what is special about this VM."""

import re
from collections.abc import Iterator

from ipsec_agent.core.config import PROOF_LONGEST, PROOF_SHORTEST, AgentConfig, CharonConfig
from ipsec_agent.core.manifest.complaint import Complaints, shown_key
from ipsec_agent.core.manifest.fields import Fields
from ipsec_agent.core.manifest.log_levels import LEVEL_REMEDY, setting_doubt
from ipsec_agent.core.manifest.yaml_lines import Entry
from ipsec_agent.core.strongswan_conf import SETTINGS

AGENT_KEYS = frozenset(
    {
        "address",
        "interface",
        "uplinks",
        "inside",
        "outside",
        "guard",
        "mtu",
        "run_dir",
        "state_dir",
        "charon",
        "vici_socket",
        "interval",
        "metrics",
        "proof",
    }
)
CHARON_KEYS = frozenset({"program", "plugins", "library_path", "log", "settings"})

LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path (unix(7): sun_path, with its NUL)."""

LONGEST_RUN_DIR = LONGEST_SOCKET - len("/control.sock")
LONGEST_LINK = 127
"""Bytes of any name of a link (linux/if.h: ALTIFNAMSIZ, with its NUL); its first has 15."""

LOG_FILE_KEYS = ("path", "append", "flush_line", "time_format", "default")
START_LOG_KEYS = ("path", "default", "dmn")

SETTING = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ROUTES = "remove it: addresses and routes of the VM are not charon's"
_LOG = "write agent.charon.log and log_level instead"
RESERVED = {
    "load": "write agent.charon.plugins instead",
    "load_modular": "write agent.charon.plugins instead",
    "plugins.vici.socket": "write agent.vici_socket instead",
    "port": "remove it: all VMs speak IKE on UDP 500",
    "port_nat_t": "remove it: all VMs speak IKE on UDP 4500, too",
    "install_routes": _ROUTES,
    "install_virtual_ip": _ROUTES,
    "process_route": _ROUTES,
    "plugins.kernel-netlink.roam_events": "remove it: a connection keeps its own address",
    "plugins.kernel-netlink.xfrm_acq_expires": "remove it: packets would wait longer for an SA",
    "make_before_break": "remove it: packets would wait at each reauthentication",
    "retransmit_base": "write retransmit_tries and retransmit_timeout instead",
    "journal.default": _LOG,
    "syslog.daemon.default": _LOG,
    "syslog.auth.default": _LOG,
    **{f"filelog.agent.{key}": _LOG for key in LOG_FILE_KEYS},
    **{f"filelog.start.{key}": "remove it: the agent reads it" for key in START_LOG_KEYS},
}
"""Settings that the agent needs as they are, and what to write instead."""


def read_agent(entry: Entry | None, complaints: Complaints) -> AgentConfig:
    """The node section; the defaults where there is none."""
    if entry is None or entry.empty or entry.void:
        return AgentConfig()
    fields = Fields.of(entry, "agent", complaints)
    fields.unknown(AGENT_KEYS)
    default = AgentConfig()
    charon = fields.entry("charon")
    interface = _link(fields, "interface", fields.text("interface"))
    uplinks = _links(fields, "uplinks")
    return AgentConfig(
        address=fields.address("address"),
        interface=interface,
        uplinks=uplinks,
        inside=_inside(fields, uplinks, interface),
        outside=fields.choice("outside", default.outside),
        guard=fields.choice("guard", default.guard),
        mtu=fields.choice("mtu", default.mtu),
        run_dir=fields.path_text("run_dir", default.run_dir, longest=LONGEST_RUN_DIR),
        state_dir=fields.path_text("state_dir", default.state_dir),
        charon=_charon(charon[1], complaints) if charon else default.charon,
        vici_socket=fields.path_text("vici_socket", longest=LONGEST_SOCKET),
        interval=fields.number("interval", default.interval, 1, 300),
        metrics=fields.endpoint("metrics"),
        proof=_proof(fields, default.proof),
    )


def _proof(fields: Fields, default: float) -> float:
    """Seconds, 0 for never."""
    found = fields.entry("proof")
    if found is None:
        return default
    value = found[1].value
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (value == 0 or PROOF_SHORTEST <= value <= PROOF_LONGEST)
    ):
        return float(value)
    fields.wrong(
        "proof",
        f"must be 0 (off), or a number from {PROOF_SHORTEST} to {PROOF_LONGEST}",
        "write proof: 60, or leave it out",
    )
    return default


def _links(fields: Fields, key: str) -> tuple[str, ...]:
    return tuple(name for text in fields.texts(key) if (name := _link(fields, key, text)))


def _inside(fields: Fields, uplinks: tuple[str, ...], interface: str) -> tuple[str, ...]:
    """Links that are not guarded; one that the config says leaves the VM cannot be among them."""
    inside = _links(fields, "inside")
    for name in inside:
        if name in uplinks:
            fields.wrong(
                "inside",
                f"{name} is also in agent.uplinks",
                "remove it from one of the two",
            )
        elif name == interface:
            fields.wrong(
                "inside",
                f"{name} is agent.interface, the link with this VM's address",
                f"remove {name}",
            )
    return inside


def _link(fields: Fields, key: str, name: str) -> str:
    if len(name.encode(errors="replace")) > LONGEST_LINK or re.search(r"[\s/:]", name):
        fields.wrong(key, "not a valid link name", "write one that `ip link` shows")
        return ""
    return name


def _charon(entry: Entry, complaints: Complaints) -> CharonConfig:
    fields = Fields.of(entry, "agent.charon", complaints)
    fields.unknown(CHARON_KEYS)
    default = CharonConfig()
    log = fields.text("log", default.log)
    return CharonConfig(
        program=fields.path_text("program"),
        plugins=tuple(word for text in fields.texts("plugins") for word in text.split()),
        library_path=_library_path(fields),
        log=log if log == default.log else fields.path_text("log", default.log),
        settings=_settings(fields),
    )


def _library_path(fields: Fields) -> str:
    text = fields.text("library_path")
    if text and not all(part.startswith("/") and part.isprintable() for part in text.split(":")):
        fields.wrong(
            "library_path", "must be absolute paths, separated by `:`", "write library_path: /…:/…"
        )
        return ""
    return text


def _settings(fields: Fields) -> tuple[tuple[str, str], ...]:
    """Settings as dotted keys, checked so that strongswan.conf keeps its form."""
    found = fields.entry("settings")
    if found is None:
        return ()
    path, entry = found
    if entry.items is None:
        fields.wrong("settings", "must be a mapping", "write settings: {plugins: {…: {…: …}}}")
        return ()
    settings: dict[str, str] = {}
    for key, item in _flat(entry, ""):
        where = f"{path}.{shown_key(key)}"
        wrong, remedy = _wrong_setting(key, item, {*SETTINGS, *RESERVED, *settings})
        if wrong:
            fields.complaints.error(item.line, where, wrong, remedy)
        elif not item.void:
            settings[key] = _word(item.value)
            doubt = setting_doubt(key, settings[key])
            if doubt:
                fields.complaints.warn(item.line, where, doubt, f"write {LEVEL_REMEDY}")
    return tuple(settings.items())


def _wrong_setting(key: str, item: Entry, others: set[str]) -> tuple[str, str]:
    """What is wrong with a setting and what to do; nothing where it is good."""
    if key in RESERVED:
        return "the agent sets this itself", RESERVED[key]
    if not SETTING.fullmatch(key):
        return "not a valid setting name", "use only letters, digits, - and _"
    if item.value is None and not item.void:
        return "must be a single value", "write one string or number; a list as `a b c`"
    if not _word(item.value).isprintable():
        return "contains an unprintable character", "remove it"
    if any(other.startswith(f"{key}.") or key.startswith(f"{other}.") for other in others):
        return "used as both a section and a value", "see strongswan.conf(5)"
    return "", ""


def _flat(entry: Entry, path: str) -> Iterator[tuple[str, Entry]]:
    """Nested settings with their dotted keys."""
    for name, item in (entry.items or {}).items():
        key = f"{path}.{name}" if path else name
        if item.items is None:
            yield key, item
        else:
            yield from _flat(item, key)


def _word(value: object) -> str:
    """A value as strongswan.conf writes it."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
