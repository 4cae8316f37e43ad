"""From the operator's text to a Config: the one place that may refuse it, with all complaints."""

import itertools
from datetime import datetime
from typing import Any

from msgspec import Struct

from ipsec_agent.core.config import (
    DEFAULT_ESP,
    DEFAULT_IKE,
    AgentConfig,
    Baseline,
    Config,
    ExpiryPeriods,
)
from ipsec_agent.core.manifest import certificates
from ipsec_agent.core.manifest.agent_section import AGENT_KEYS, read_agent
from ipsec_agent.core.manifest.baseline import judge_proposals
from ipsec_agent.core.manifest.complaint import Complaint, Complaints, shown
from ipsec_agent.core.manifest.credentials import complain, read_credentials
from ipsec_agent.core.manifest.fields import Fields
from ipsec_agent.core.manifest.forms import Located, locate
from ipsec_agent.core.manifest.log_levels import LEVEL_REMEDY, level_doubt
from ipsec_agent.core.manifest.proposals import (
    additional,
    classical,
    cleaned,
    fault,
    strict,
    weakness,
)
from ipsec_agent.core.manifest.subnets import read_subnets
from ipsec_agent.core.manifest.usable import usable
from ipsec_agent.core.manifest.yaml_lines import read

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

ELSEWHERE = {
    **dict.fromkeys(AGENT_KEYS, "write it below `agent:`, which is beside `ipsec:`"),
    "agent": "move it out of `ipsec:`, beside it",
    "ipsec": "it is there twice: delete this line, and move what is below it two columns left",
}
"""What belongs beside the properties, or around them."""


class Parsed(Struct, frozen=True):
    """What came of a text.

    Attributes:
        config: None where an error refuses it.
        outdated: the config that would be accepted at another time, when its certificates hold;
            None where it is accepted, or refused for anything else.
        agent: where things are by the section `agent:`, also where the config is refused; None
            where no section could be found.
    """

    config: Config | None
    complaints: tuple[Complaint, ...]
    outdated: Config | None = None
    agent: AgentConfig | None = None


def parse(text: str, *, file: str, now: datetime, baseline: Baseline = Baseline.DEFAULT) -> Parsed:
    """Read a config. Never raises for what the text holds.

    Args:
        file: the file's name, for the complaints.
        now: the time at which certificates must be valid.
        baseline: whose rules proposals, certificates and keys are judged by, too.
    """
    complaints = Complaints(file)
    root = read(text, complaints)
    located = locate(root, PROPERTIES, complaints) if root is not None else None
    config, agent = (
        _config(located, complaints, now, baseline) if located is not None else (None, None)
    )
    return Parsed(
        None if complaints.refused else config,
        complaints.in_order(),
        config if complaints.outdated else None,
        agent,
    )


def _config(
    located: Located, complaints: Complaints, now: datetime, baseline: Baseline
) -> tuple[Config | None, AgentConfig]:
    properties, section = usable(located, complaints)
    fields = Fields(properties, located.line, located.path, complaints)
    fields.unknown(PROPERTIES, ELSEWHERE)
    _replaced(fields)
    ipsec, no_ipsec = read_subnets(fields)
    read_rest = _rest(fields, baseline)
    held = read_credentials(fields, now, read_rest["expiry"].info, baseline)
    agent = read_agent(section, complaints)
    proposals = read_rest["ike_proposals"], read_rest["esp_proposals"]
    complain(fields, judge_proposals(baseline, *proposals))
    if held is None:
        return None, agent
    leaf, secrets, facts = held
    config = Config(
        ipsec_subnets=ipsec,
        no_ipsec_subnets=no_ipsec,
        certificate=certificates.der(leaf),
        credentials=secrets,
        certificates=facts,
        agent=agent,
        **read_rest,
    )
    return config, agent


def _rest(fields: Fields, baseline: Baseline) -> dict[str, Any]:
    return {
        "prestart_timeout": fields.number("prestart_timeout", 30, 1, 3600),
        "stop_timeout": fields.number("stop_timeout", 30, 0, 3600),
        "optional": fields.flag("optional"),
        "optional_warn_interval": fields.number("optional_warn_interval", 1, 0, 8760),
        "esp_proposals": _proposals(fields, "esp_proposals", DEFAULT_ESP, Baseline.DEFAULT),
        "ike_proposals": _proposals(fields, "ike_proposals", DEFAULT_IKE, baseline),
        "force_udp_encapsulation": fields.flag("force_udp_encapsulation"),
        "log_level": _log_level(fields),
        "expiry": expiry(fields),
    }


def _log_level(fields: Fields) -> int:
    """charon's log level, with a warning where the log would hold what must not get around."""
    level = fields.whole("log_level", 1, -1, 4)
    doubt = level_doubt(level)
    if doubt:
        fields.doubtful("log_level", doubt, f"write log_level: {LEVEL_REMEDY}")
    return level


def expiry(fields: Fields) -> ExpiryPeriods:
    """The periods, each of which should be shorter than the one before."""
    default = ExpiryPeriods()
    days = {
        name: fields.whole(f"instance_certificate_{name}_period", getattr(default, name), 0, 3650)
        for name in PERIODS
    }
    for longer, shorter in itertools.pairwise(PERIODS):
        if days[shorter] > days[longer]:
            fields.doubtful(
                f"instance_certificate_{shorter}_period",
                f"longer than the {longer} period ({days[longer]} days)",
                f"write fewer days; the {longer} would never show",
            )
    return ExpiryPeriods(**days)


def _replaced(fields: Fields) -> None:
    """Properties of later add-ons that mean nothing here, and what is used instead."""
    for name, instead in (
        ("ike_version", "remove it; IKEv2 is always used"),
        ("dpdaction", "remove it; a dead peer's SA always ends, and its trap stays"),
    ):
        if fields.entry(name) is not None:
            fields.doubtful(name, "has no effect", instead)


def _proposals(
    fields: Fields, name: str, default: tuple[str, ...], baseline: Baseline
) -> tuple[str, ...]:
    """The proposals without `!`; the default where there are none.

    Args:
        baseline: whose judgement of proposals without additional key exchanges is another one's.
    """
    written = [part for text in fields.texts(name) for part in text.split(",")]
    proposals = tuple(dict.fromkeys(filter(None, map(cleaned, written))))
    if any(strict(one) and not cleaned(one) for one in written):
        fields.wrong(
            name,
            "'!' is behind no proposal: it says that only what is listed is used",
            f"write, for example, {default[0]}!",
        )
    faults = [(one, fault(one, ike=name == "ike_proposals")) for one in proposals]
    for proposal, wrong in faults:
        if wrong:
            fields.wrong(name, f"{shown(proposal)}: {wrong}", f"write, for example, {default[0]}")
        elif weak := weakness(proposal):
            fields.doubtful(name, f"{weak} is weak", f"write, for example, {default[0]}")
    if any(wrong for _, wrong in faults):
        # More is not said of them: their words could be of a key.
        return proposals
    _never_chosen(fields, name, proposals)
    only = any(map(strict, written))
    return _with_classical(fields, name, proposals, baseline, only=only) or default


def _never_chosen(fields: Fields, name: str, proposals: tuple[str, ...]) -> None:
    """Warn of additional key exchanges that no two VMs use, by the order of the list."""
    first = next((one for one in proposals if not additional(one)), None)
    if first is None:
        return
    late = [one for one in proposals[proposals.index(first) :] if additional(one)]
    if late:
        fields.doubtful(
            name,
            f"{', '.join(late)} is not used by VMs that can do {first}: that is before it, and has"
            " no additional key exchange",
            f"write it above {first}; two VMs use the first proposal that both can do",
        )


def _with_classical(
    fields: Fields, name: str, proposals: tuple[str, ...], baseline: Baseline, *, only: bool
) -> tuple[str, ...]:
    """The proposals, and those without additional key exchanges for peers that have none.

    CNSA 2.0 asks to refuse such peers, and says so by itself.
    """
    hybrid = [one for one in proposals if additional(one)]
    beside = [one for one in dict.fromkeys(map(classical, hybrid)) if one not in proposals]
    if not beside:
        return proposals
    if not only and baseline is Baseline.CNSA2:
        return (*proposals, *beside)
    if not only:
        fields.doubtful(
            name,
            f"{', '.join(beside)} is used, too, so that peers whose charon has no additional key"
            " exchange are reached",
            "write it below the others yourself, or `!` behind one of them to refuse such peers",
        )
        return (*proposals, *beside)
    if len(hybrid) == len(proposals) and baseline is not Baseline.CNSA2:
        fields.doubtful(
            name,
            "peers whose charon has no additional key exchange are refused, because of the `!`",
            f"remove it, or add {beside[0]}",
        )
    return proposals
