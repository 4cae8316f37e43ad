"""The words by which an operator finds each incident's cause, in the status and in the log alone.

tests/test_incidents.py shows most of them at the border; tests/charon, tests/kernel and tests/lab
show each for real. docs/testing.md has them as a table, in which they read as here.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

SEVERITIES = ("info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Incident:
    """What is read of an incident.

    Attributes:
        code: of the problem that is shown.
        severity: of the problem.
        message, hint: words of each, `{name}` for what differs from VM to VM.
    """

    code: str
    severity: str
    message: tuple[str, ...]
    hint: tuple[str, ...]

    def of(self, **what: object) -> "Incident":
        """The same with what differs filled in."""
        message = tuple(word.format(**what) for word in self.message)
        return replace(self, message=message, hint=tuple(word.format(**what) for word in self.hint))

    @property
    def words(self) -> tuple[str, ...]:
        """All of them."""
        return self.message + self.hint


def one_incident(
    code: str, severity: str, message: str | tuple[str, ...], hint: str | tuple[str, ...]
) -> Incident:
    """An incident; most have one stretch of words in message and hint."""
    both = ((one,) if isinstance(one, str) else one for one in (message, hint))
    return Incident(code, severity, *both)


PORT_TAKEN = one_incident(
    "ike-port-taken",
    "critical",
    "UDP {port} is in use by pid {pid} ({program}",
    "stop that program; `ss -lunp sport = :{port}` shows its sockets",
)
CHARON_KILLED = one_incident(
    "charon-dies",
    "error",
    "charon was killed by SIGKILL",
    "look for the OOM killer (`journalctl -k -g 'killed process'`)",
)
CONFIG_BROKEN = one_incident(
    "config-refused",
    "warning",
    ("the agent's next start would be refused: {path}:{line}:", "ipsec_subnets[0]: '{subnet}'"),
    "see `ipsec-agent check {path}`",
)
REFUSED = one_incident(
    "peer-refuses-us",
    "warning",
    "{peer} refuses this VM's certificate or signature",
    "compare issuers and fingerprints of ca_certificates and instance_certificate",
)
CA_MISSING = one_incident(
    "peer-not-trusted",
    "warning",
    ("this VM does not trust the certificate of {peer}", "{subject}"),
    "compare issuers and fingerprints of ca_certificates and instance_certificate",
)
EXPIRED = one_incident(
    "certificate-expired",
    "critical",
    "the instance certificate {subject} expired on {date}",
    "ipsec-agent reload",
)
EXPIRED_THERE = one_incident(
    "peer-certificate-invalid",
    "warning",
    ("the certificate of {peer} has expired or is not valid yet", "{date}"),
    ("compare the clocks of both VMs", "renew it if it has expired"),
)
CLOCK_AHEAD = one_incident(
    "clock-wrong",
    "critical",
    "this VM's clock seems wrong: the clock says {clock}",
    "compare it with another VM's (`date -u`), and set it",
)
SUBNETS_DIFFER = one_incident(
    "selectors-differ",
    "warning",
    "{peer} and this VM do not agree on what to encrypt",
    "compare ipsec_subnets and no_ipsec_subnets of both VMs",
)
PROPOSALS_DIFFER = one_incident(
    "proposals-differ",
    "warning",
    "{peer} and this VM have no proposal in common",
    "compare esp_proposals and ike_proposals of both VMs",
)
IKE_BLOCKED = one_incident(
    "peer-silent",
    "warning",
    "{peer} does not answer IKE",
    "check that the peer is up, and that UDP 500, UDP 4500 and protocol 50 reach it",
)
WITHOUT_AGENT = one_incident(
    "clear-received",
    "warning",
    "{peer} ({packets} packets) sends clear packets to this VM; the guard dropped them",
    "ipsec-agent status",
)
DISK_FULL = one_incident(
    "failed",
    "error",
    "cannot write {file}: No space left on device",
    "df -h {place}",
)
DISK_READ_ONLY = one_incident(
    "failed",
    "error",
    "cannot write {file}: Read-only file system",
    "findmnt -T {place}",
)
OTHER_IPSEC = one_incident(
    "policies-bypassed",
    "error",
    ("{policy}", "packets bypass IPsec in clear"),
    "ip xfrm policy",
)
SET_DEFAULT = one_incident(
    "policy-default-blocks",
    "error",
    "match no policy ({ways})",
    "ip xfrm policy setdefault",
)
NAT_BETWEEN = one_incident(
    "xfrm-in-state-mismatch",
    "warning",
    "ESP arrives in UDP where plain ESP was negotiated",
    "compare force_udp_encapsulation of both VMs; look for a NAT in between",
)
REPAIRS_UNDONE = one_incident(
    "repair-paused",
    "error",
    "another program keeps undoing the agent's repairs ({what}",
    "`nft monitor`",
)
ADDRESS_GONE = one_incident(
    "failed",
    "error",
    "this VM's address {address} is gone",
    "bring the link up, or add the address to it",
)
ESP_DISABLED = one_incident(
    "esp-unavailable",
    "critical",
    "esp4 is disabled by {file}:{line} (`install esp4 /bin/true`)",
    "remove that line",
)
ESP_LOST_ONE_WAY = one_incident(
    "peer-esp-lost",
    "error",
    "{peer} answers IKE, but no ESP has come back from it",
    "have protocol 50 (UDP 4500, where encapsulated) pass between the two VMs",
)
ESP_BLOCKED = one_incident(
    "proof-failed",
    "warning",
    ("proofs in a row failed (no-esp)", "{peer}"),
    "protocol 50",
)
PATH_MTU = one_incident(
    "proof-failed",
    "warning",
    "packets to {peer} are ESP both ways, but those of more than {passes} bytes are lost",
    "lower the MTU of {link} on both VMs by at least {bytes} bytes",
)


def told(incident: Incident, shown: str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Fail unless status and log lead to the cause.

    Args:
        shown: what `ipsec-agent status` prints.
        lines: of the log.
    """
    assert shown.splitlines()[0].count("NOT HEALTHY") == 1, shown
    begins = rf"^  {incident.severity.upper()} {incident.code}: "
    read = [
        part
        for part in re.split(r"(?m)^(?=  [A-Z]+ [a-z-]+: )", shown)
        if re.match(begins, part) and not _lacking(incident.words, part)
    ]
    assert len(read) == 1, f"{incident}, in the status: {shown}"
    begun = [
        (one["message"], one["hint"])
        for one in lines
        if one["event"] == "problem"
        and (one.get("code"), one.get("level", one.get("log_level")))
        == (incident.code, incident.severity)
        and not _lacking(incident.message, one["message"])
        and not _lacking(incident.hint, one["hint"])
    ]
    assert begun, f"{incident}, in the log: {[*lines]}"


def _lacking(words: Iterable[str], text: str) -> list[str]:
    """Those that a text does not have, whatever its line breaks."""
    flat = " ".join(text.split())
    return [word for word in words if " ".join(word.split()) not in flat]


def of_log(text: str) -> list[dict[str, Any]]:
    """The lines of an agent's log as records."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
