"""The status for a person: a verdict, what is wrong, and the rest folded. Imports little."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ipsec_agent.core.status_view import BY_ESP, PeerView, peers, summary
from ipsec_agent.core.words import dated, duration, instant, lasting, printable, several, size

DAY, HOUR = 86400, 3600
"""Seconds."""

AGAIN = 3
"""How often the same repair is made within an hour of the last one until the text tells of it."""

MOST_COUNTED = 10
"""Addresses of each kind that the text names."""

COUNTED = {
    "clear_in": "clear packets from",
    "clear_out": "clear packets to",
    "wrong_source": "clear packets from an address that the link does not have:",
    "nat_bypassed": "clear packets sent without NAT by",
    "wrong_mode": "packets of SAs that are not in transport mode, with",
    "unguarded": "clear packets between encrypted addresses over the unguarded link",
}
"""The guard's counters, and what each says."""

GUARD_STATES = {
    "missing": "DOWN: no table is loaded",
    "altered": "ALTERED: the table is not as it should be",
    "closed": "CLOSED: by `ipsec-agent guard up --closed`",
    "lowered": "DOWN: taken down by `ipsec-agent guard down`",
    "none": "none (agent.guard: none)",
}
"""The guard's states as a person reads them; `up` is `up`."""

CLOSED_AT_BOOT = "CLOSED: the saved table did not load at boot"

WAYS = {"in": "in", "out": "out", "both": "both ways"}

NO_TABLE = ("missing", "lowered", "none")

LOUDNESS = ("critical", "error", "warning", "info")


def text(status: dict[str, Any]) -> str:
    """The status for a person."""
    lines = verdict(status)
    if "charon" not in status:
        return shown(lines)
    now = status.get("time", time.time())
    views = peers(status)
    lines += peer_lines(views)
    lines += _rotation(status.get("rotation"))
    lines += [f"address    {', '.join(status['addresses']) or 'unknown'} ({status['role']})"]
    lines += [f"  note: {note}" for note in status["notes"]]
    lines += [f"charon     {_charon(status['charon'], now)}"]
    policies = status["policies"]
    lines.append(
        f"policies   {policies['installed']} of {policies['desired']} in the kernel,"
        f" {len(policies['foreign'])} foreign"
    )
    lines += guard_lines(status.get("guard"))
    lines += _optional(status.get("optional"), now)
    lines += _connections(status["connections"])
    lines += ["certificates", *_certificates(status["certificates"], now)]
    lines += ["links", *_folded([_link(link) for link in status["links"]])]
    inside = status.get("inside", [])
    lines += _folded([f"  {link['name']:12} not guarded: {link['reason']}" for link in inside])
    counters = status.get("counters", {})
    if counters:
        lines += ["packets dropped by IPsec (kernel counters)"]
        lines += [f"  {name:24} {count}" for name, count in counters.items()]
    lines += _news(status.get("events", ()), now)
    return shown(lines)


def _news(events: Sequence[dict[str, Any]], now: float) -> list[str]:
    """That something has happened lately, and how to see what; what was repaired again and again,
    so slowly that it is no problem, as after a cron job."""
    new = [one for one in events if now - one["time"] <= HOUR]
    if not new:
        return []
    return [
        f"events     {len(new)} in the last hour; `ipsec-agent status --events` shows what",
        *(
            f"  {one['text']}, {one['count']} times since {instant(one['since'])}: find what undoes"
            " it"
            for one in new
            if one["kind"] == "repair" and one["count"] >= AGAIN
        ),
    ]


def verdict(status: dict[str, Any]) -> list[str]:
    """How the VM is, in one line, and its problems, the worst first."""
    health = "healthy" if status["healthy"] else "NOT HEALTHY"
    age = status.get("age", 0)
    then = f", as of {duration(max(age, 1))} ago" if age else ""
    lines = [f"ipsec-agent {status.get('version', '')}: {status['state']}, {health}{then}"]
    if drain := status.get("drain"):
        lines.append(f"  {drain['says']}")
    now = status.get("time")
    for problem in sorted(status["problems"], key=rank):
        lines += problem_lines(problem, now)
    return lines


def rank(problem: dict[str, Any]) -> int:
    """How far down it is shown; a severity of a later version comes first."""
    severity = problem["severity"]
    return LOUDNESS.index(severity) if severity in LOUDNESS else -1


def problem_lines(problem: dict[str, Any], now: float | None) -> list[str]:
    """A problem, for how long it has lasted, and what to do."""
    lasts = duration((now or problem["since"]) - problem["since"])
    return [
        f"  {problem['severity'].upper()} {problem['code']}: {problem['message']}",
        f"    for {lasts}. {problem['hint']}",
    ]


def peer_lines(views: Sequence[PeerView]) -> list[str]:
    """How many peers are how; whom to look at is named."""
    if not views:
        return ["peers      none yet: an SA is made with the first packet"]
    first, second = summary(views)
    lines = [f"peers      {first}", f"           {second}"]
    entries = [one.entry for one in views if one.condition in BY_ESP]
    into, out = (sum(one[f"bytes_{way}"] for one in entries) for way in ("in", "out"))
    if entries:
        lines.append(f"           {size(into)} in, {size(out)} out by their SAs")
    beside = (
        (sum(bool(one["duplicates"]) for one in entries), "with a duplicate SA"),
        (sum(bool(one.get("one_way")) for one in entries), "one way"),
    )
    said = ", ".join(f"{count} {what}" for count, what in beside if count)
    return [
        *lines,
        *([f"           {said}; `ipsec-agent status --peers` shows whom"] if said else []),
    ]


def _folded(lines: list[str]) -> list[str]:
    """The first of many lines; the others are counted."""
    rest = len(lines) - MOST_COUNTED
    return lines if rest <= 0 else [*lines[:MOST_COUNTED], f"  … and {rest} more; see --json"]


def _connections(items: list[dict[str, Any]]) -> list[str]:
    """Those that are not in the kernel come first, and are all told."""
    lacking = [_connection(one) for one in items if not one["enforced"]]
    return [
        "connections",
        *lacking,
        *_folded([_connection(one) for one in items if one["enforced"]]),
    ]


def _certificates(items: list[dict[str, Any]], now: float) -> list[str]:
    """The VM's own, and of those of peers the first that end."""
    own = [_lasting(one, now) for one in items if one["role"] != "peer"]
    theirs = sorted((one for one in items if one["role"] == "peer"), key=_end)
    return own + _folded([_lasting(one, now) for one in theirs])


def _end(item: dict[str, Any]) -> str:
    """In UTC, so that texts have the order of times."""
    return str(item["not_after"])


def _rotation(rotation: dict[str, Any] | None) -> list[str]:
    """How many peers are on another certificate than the one in force."""
    if not rotation or not rotation["behind"]:
        return []
    return [
        f"rotation   {one['peers']} of {rotation['peers']} peers still on {certificate(one)}"
        for one in rotation["on"]
    ]


def certificate(one: dict[str, Any]) -> str:
    """A certificate of this VM's as a person tells it from another one of the same name."""
    return dated(one["certificate"], one["certificate_ends"])


def shown(lines: list[str]) -> str:
    """As one text; a program may call itself what a terminal would obey, or break a line."""
    return "".join(f"{printable(line)}\n" for line in lines)


def _charon(charon: dict[str, Any] | None, now: float) -> str:
    if charon is None:
        return "not running"
    answers = "" if charon["responsive"] else ", not answering"
    return (
        f"{charon['version']}, pid {charon['pid']}, up {duration(now - charon['started'])},"
        f" {size(charon['memory'])}{answers}{_listens(charon.get('ports', ()))}"
    )


def _listens(ports: Sequence[dict[str, Any]]) -> str:
    """On which addresses and ports charon has sockets."""
    numbers: dict[str, list[int]] = {}
    for one in ports:
        # An agent of an earlier version tells no address.
        place = f"IPv{one['version']} {one.get('address', '')}".rstrip()
        numbers.setdefault(place, []).append(one["port"])
    said = [f"{place} UDP {' and '.join(map(str, sorted(of)))}" for place, of in numbers.items()]
    return f", listens on {', '.join(said)}" if said else ""


def guard_lines(guard: dict[str, Any] | None) -> list[str]:
    """The guard, and whom it counts; nothing of an agent that has none."""
    if guard is None:
        return []
    state = GUARD_STATES.get(guard["state"], guard["state"])
    if guard.get("closed_by") == "boot":
        state = CLOSED_AT_BOOT
    lines = [f"guard      {state}"]
    if guard["state"] not in NO_TABLE:
        only = "counts only:" if guard["state"] == "up" else "counted"
        does = "dropped" if guard.get("drops", True) else only
        lines[0] += f", {does} {guard['dropped_in']} in, {guard['dropped_out']} out"
    for key, says in COUNTED.items():
        counted = guard.get(key, [])  # An agent of an earlier version may run.
        lines += [
            f"  {says} {seen.get('address') or seen['link']}: {several(seen['packets'], 'packet')},"
            f" last {duration(seen['idle'])} ago"
            for seen in sorted(counted, key=lambda seen: seen["idle"])[:MOST_COUNTED]
        ]
        if len(counted) > MOST_COUNTED:
            lines.append(f"  … and {len(counted) - MOST_COUNTED} more; see --json")
    return lines


def _optional(found: dict[str, Any] | None, now: float) -> list[str]:
    """Whom enforcing would cut off now; nothing while IPsec is enforced."""
    if found is None:
        return []
    if not found["counted"]:
        return ["optional   on; nothing is counted without the guard"]
    peers, unseen = found["would_cut_off"], found["unseen"]
    lines = [f"optional   on; enforcing now would cut off: {'' if peers else 'none seen'}".rstrip()]
    lines += [
        f"  {one['address']:24} clear {WAYS[one['way']]} for {duration(now - one['since'])},"
        f" last {duration(now - one['last'])} ago,"
        f" {'had an SA before' if one['encrypted'] else 'never had an SA'}"
        for one in peers[:MOST_COUNTED]
    ]
    if len(peers) > MOST_COUNTED:
        lines.append(f"  … and {len(peers) - MOST_COUNTED} more; see --json")
    # An agent of an earlier version may run.
    never = [one["address"] for one in found.get("never_heard", [])]
    for says, addresses in (
        ("never heard from, though packets go there", never),
        ("not seen since, so not known", unseen),
    ):
        more = f" and {rest} more" if (rest := len(addresses) - MOST_COUNTED) > 0 else ""
        if addresses:
            lines.append(f"  {says}: {', '.join(addresses[:MOST_COUNTED])}{more}")
    return lines


def _link(link: dict[str, Any]) -> str:
    down = "" if link["up"] else ", DOWN"
    fits = f", packets of {link['max_packet']} bytes fit" if link.get("max_packet") else ""
    why = f"; guarded: {link['reason']}" if link.get("reason") else ""
    return f"  {link['name']:12} MTU {link['mtu']}{fits}{down}{why}"


def _lasting(item: dict[str, Any], now: float) -> str:
    left = (datetime.fromisoformat(item["not_after"]).timestamp() - now) / DAY
    return f"  {item['role']:12} {item['subject']}: {lasting(left)}"


def _connection(item: dict[str, Any]) -> str:
    state = "enforced" if item["enforced"] else "NOT IN THE KERNEL"
    return f"  {item['action']:8} {item['name']:40} {state}"
