"""From the operator's text to a Config: the one place that may refuse it, with all complaints."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ipsec_agent.core import certificates
from ipsec_agent.core.complaint import Complaint, Complaints
from ipsec_agent.core.config import (
    AgentConfig,
    CharonConfig,
    Config,
    ExpiryPeriods,
    GuardMode,
    MtuMode,
    Outside,
    Subnet,
)
from ipsec_agent.core.config_credentials import read_credentials
from ipsec_agent.core.config_forms import Located, locate
from ipsec_agent.core.fields import Fields
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.proposals import DEFAULT_ESP, DEFAULT_IKE, cleaned, fault, weakness
from ipsec_agent.core.yaml_lines import Entry, read

DAY = 86400
PERIODS = ("info", "warn", "error", "critical")

PROPERTIES = frozenset(
    {
        "ipsec_subnets",
        "no_ipsec_subnets",
        "instance_certificate",
        "instance_private_key",
        "ca_certificates",
        "prestart_timeout",
        "stop_timeout",
        "optional",
        "optional_warn_interval",
        "esp_proposals",
        "ike_proposals",
        "force_udp_encapsulation",
        "log_level",
        "ike_version",
        "dpdaction",
        *(f"instance_certificate_{period}_period" for period in PERIODS),
    }
)

AGENT_KEYS = frozenset(
    {
        "address",
        "interface",
        "uplinks",
        "outside",
        "guard",
        "mtu",
        "run_dir",
        "state_dir",
        "charon",
        "vici_socket",
        "interval",
    }
)

CHARON_KEYS = frozenset({"program", "plugins", "plugin_dir", "library_path", "log", "settings"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """What came of a text: the config, None where an error refuses it, and every complaint."""

    config: Config | None
    complaints: tuple[Complaint, ...]


def parse(text: str, *, file: str, now: datetime) -> Parsed:
    """Read a config. Never raises for what the text holds.

    Args:
        file: the file's name, for the complaints.
        now: the time at which certificates must be valid.
    """
    complaints = Complaints(file)
    root = read(text, complaints)
    located = locate(root, PROPERTIES, complaints) if root is not None else None
    config = _config(located, complaints, now) if located is not None else None
    return Parsed(None if complaints.refused else config, complaints.in_order())


def _config(located: Located, complaints: Complaints, now: datetime) -> Config | None:
    fields = Fields(located.properties, located.line, complaints)
    fields.unknown(PROPERTIES)
    _replaced(fields)
    ipsec, no_ipsec = _subnets(fields)
    held = read_credentials(fields, now)
    agent = _agent(located.agent, complaints)
    read_rest = _rest(fields)
    if held is None:
        return None
    leaf, secrets, facts = held
    return Config(
        ipsec_subnets=ipsec,
        no_ipsec_subnets=no_ipsec,
        certificate=certificates.der(leaf),
        credentials=secrets,
        certificates=facts,
        agent=agent,
        **read_rest,
    )


def _rest(fields: Fields) -> dict[str, Any]:
    periods = ExpiryPeriods()
    return {
        "prestart_timeout": fields.number("prestart_timeout", 30, 1, 3600),
        "stop_timeout": fields.number("stop_timeout", 30, 0, 3600),
        "optional": fields.flag("optional"),
        "optional_warn_interval": fields.number("optional_warn_interval", 1, 0, 8760),
        "esp_proposals": _proposals(fields, "esp_proposals", DEFAULT_ESP, ike=False),
        "ike_proposals": _proposals(fields, "ike_proposals", DEFAULT_IKE, ike=True),
        "force_udp_encapsulation": fields.flag("force_udp_encapsulation"),
        "log_level": int(fields.number("log_level", 1, -1, 4)),
        "expiry": ExpiryPeriods(
            *(
                int(
                    fields.number(
                        f"instance_certificate_{name}_period", getattr(periods, name), 0, 3650
                    )
                )
                for name in PERIODS
            )
        ),
    }


def _replaced(fields: Fields) -> None:
    """Properties of later add-ons that mean nothing here, and what stands in their place."""
    for name, instead in (
        ("ike_version", "IKEv2 is always used"),
        ("dpdaction", "a dead peer's SA is always ended, and its trap stays"),
    ):
        if fields.entry(name) is not None:
            fields.complaints.warn(
                fields.line(name), fields.path(name), "this has no effect", instead
            )


def _proposals(
    fields: Fields, name: str, default: tuple[str, ...], *, ike: bool
) -> tuple[str, ...]:
    written = tuple(part for text in fields.texts(name) for part in text.split(","))
    proposals = tuple(cleaned(text) for text in written)
    for proposal in proposals:
        wrong = fault(proposal, ike=ike)
        if wrong:
            fields.wrong(name, f"{proposal!r}: {wrong}", f"write for example {default[0]}")
        elif weakness(proposal):
            fields.complaints.warn(
                fields.line(name),
                fields.path(name),
                f"{weakness(proposal)} is weak",
                f"write for example {default[0]}",
            )
    return proposals or default


def _subnets(fields: Fields) -> tuple[tuple[Subnet, ...], tuple[Subnet, ...]]:
    ipsec, no_ipsec = fields.subnets("ipsec_subnets"), fields.subnets("no_ipsec_subnets")
    if fields.entry("ipsec_subnets") is None or not (ipsec or fields.complaints.refused):
        fields.wrong(
            "ipsec_subnets",
            "there is no subnet to encrypt",
            "list at least one, such as `- 10.0.0.0/20`",
        )
    for subnet in ipsec:
        network = subnet.network
        if network.is_loopback or network.is_multicast or network.is_link_local:
            fields.wrong(
                "ipsec_subnets", f"{subnet.written} cannot be encrypted", "list subnets of VMs"
            )
    for name, subnets in (("ipsec_subnets", ipsec), ("no_ipsec_subnets", no_ipsec)):
        seen: dict[object, str] = {}
        for subnet in subnets:
            if subnet.network in seen:
                fields.complaints.warn(
                    fields.line(name),
                    fields.path(name),
                    f"{subnet.written} and {seen[subnet.network]} are one subnet",
                    "remove one",
                )
            seen[subnet.network] = subnet.written
    _covered(fields, ipsec, no_ipsec)
    return ipsec, no_ipsec


def _covered(fields: Fields, ipsec: tuple[Subnet, ...], no_ipsec: tuple[Subnet, ...]) -> None:
    lists = Promise(
        tuple(subnet.network for subnet in ipsec), tuple(subnet.network for subnet in no_ipsec)
    )
    covered = [subnet for subnet in ipsec if lists.covered(subnet.network)]
    for subnet in covered:
        fields.complaints.warn(
            fields.line("no_ipsec_subnets"),
            fields.path("no_ipsec_subnets"),
            f"nothing of {subnet.network} is encrypted: no-ipsec always wins",
            "narrow the no-ipsec subnet",
        )


def _agent(entry: Entry | None, complaints: Complaints) -> AgentConfig:
    if entry is None or entry.empty:
        return AgentConfig()
    fields = _section(entry, "agent", complaints)
    fields.unknown(AGENT_KEYS)
    default = AgentConfig()
    charon = fields.entry("charon")
    return AgentConfig(
        address=fields.address("address"),
        interface=fields.text("interface"),
        uplinks=fields.texts("uplinks"),
        outside=fields.choice("outside", Outside.ERROR),
        guard=fields.choice("guard", GuardMode.ENFORCE),
        mtu=fields.choice("mtu", MtuMode.WARN),
        run_dir=_path(fields, "run_dir", default.run_dir),
        state_dir=_path(fields, "state_dir", default.state_dir),
        charon=_charon(charon[1], complaints) if charon else CharonConfig(),
        vici_socket=_path(fields, "vici_socket", ""),
        interval=fields.number("interval", default.interval, 1, 300),
    )


def _path(fields: Fields, name: str, default: str) -> str:
    text = fields.text(name, default)
    if text and not text.startswith("/"):
        fields.wrong(name, f"{text!r} is no absolute path", f"write {name}: /…")
    return text


def _charon(entry: Entry, complaints: Complaints) -> CharonConfig:
    fields = _section(entry, "agent.charon", complaints)
    fields.unknown(CHARON_KEYS)
    settings = fields.entry("settings")
    return CharonConfig(
        program=_path(fields, "program", ""),
        plugins=tuple(word for text in fields.texts("plugins") for word in text.split()),
        plugin_dir=_path(fields, "plugin_dir", ""),
        library_path=fields.text("library_path"),
        log=fields.text("log", "journal"),
        settings=tuple(_flat(settings[1], "")) if settings else (),
    )


def _flat(entry: Entry, path: str) -> list[tuple[str, str]]:
    """Nested settings as dotted keys; yes and no as charon wants them."""
    if entry.items is None:
        value = entry.value
        return [(path, ("yes" if value else "no") if isinstance(value, bool) else str(value))]
    return [
        pair
        for name, item in entry.items.items()
        for pair in _flat(item, f"{path}.{name}" if path else name)
    ]


def _section(entry: Entry, path: str, complaints: Complaints) -> Fields:
    if entry.items is None:
        complaints.error(entry.line, path, "this is no mapping", "write its keys below it")
    items = {name: (f"{path}.{name}", item) for name, item in (entry.items or {}).items()}
    return Fields(items, entry.line, complaints)
