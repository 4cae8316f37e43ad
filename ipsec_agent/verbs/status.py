"""`ipsec-agent status`: show the current state. Imports little, to start at once."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ipsec_agent.core.words import several
from ipsec_agent.errors import ControlError
from ipsec_agent.host.control_client import DEFAULT_SOCKET, NotRunningError, ask
from ipsec_agent.host.own_process import complain
from ipsec_agent.verbs.commands import repeatable

DRAIN_FILE = "drain.json"
"""In the run directory, while a drain says something (host/drain_file.py)."""

NOT_RUNNING = 3
"""LSB's exit code of `status` for a program that is not running."""

UNITS = ((86400, "days"), (3600, "hours"), (60, "min"))
"""Seconds, and what so many are called."""

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
    "altered": "ALTERED: the table is not the one that was loaded",
    "closed": "CLOSED: by `ipsec-agent guard up --closed`",
    "lowered": "DOWN: taken down by `ipsec-agent guard down`",
    "none": "none (agent.guard: none)",
}
"""The guard's states as a person reads them; `up` is `up`."""

CLOSED_AT_BOOT = "CLOSED: the saved table did not load at boot"

WAYS = {"in": "in", "out": "out", "both": "both ways"}

NO_TABLE = ("missing", "lowered", "none")

CLEAR_SCREEN = "\x1b[H\x1b[J"


def main(arguments: argparse.Namespace) -> int:
    """Print the status once, or each second; 0 healthy, 1 degraded, 3 not running."""
    while True:
        code = _once(arguments)
        if not arguments.watch:
            return code
        time.sleep(1)


def _once(arguments: argparse.Namespace) -> int:
    try:
        status = ask(arguments.socket, "status")["status"]
    except ControlError as error:
        ended = isinstance(error, NotRunningError)
        if not ended and not arguments.watch:
            raise
        drained = _drained(Path(arguments.socket).parent) if ended else None
        if ended and arguments.json:
            stopped = {"schema": 1, "state": "stopped", "healthy": False, "problems": []}
            sys.stdout.write(json.dumps(stopped | (drained[1] if drained else {})) + "\n")
        said = f"{drained[0]}\n  note: " if drained else ""
        complain(f"ipsec-agent: {said}{error.message}\n  hint: {error.hint}\n")
        return NOT_RUNNING if ended else 1
    if arguments.json:
        sys.stdout.write(json.dumps(status) + "\n")
    else:
        if arguments.watch and sys.stdout.isatty():
            sys.stdout.write(CLEAR_SCREEN)
        about = argparse.Namespace(config=status.get("config"), socket=arguments.socket)
        sys.stdout.write(repeatable(text(status), about, DEFAULT_SOCKET))
    sys.stdout.flush()
    return 0 if status["healthy"] else 1


def _drained(run_dir: Path) -> tuple[str, dict[str, Any]] | None:
    """What a drain says that goes on, or ended IPsec, without an agent; None without one."""
    if not (run_dir / DRAIN_FILE).exists():
        return None
    # Here, for the other paths do without.
    from ipsec_agent.core.drain import Phase, entry, sentence  # noqa: PLC0415
    from ipsec_agent.host.drain_file import DrainFile  # noqa: PLC0415

    drain = DrainFile(run_dir).read()
    if drain is None:
        return None
    state = "stopped" if drain.phase is Phase.ENDED else "draining"
    return sentence(drain, time.time()), {"state": state, "drain": entry(drain, time.time())}


def text(status: dict[str, Any]) -> str:
    """The status for a person."""
    health = "healthy" if status["healthy"] else "NOT HEALTHY"
    age = status.get("age", 0)
    then = f", as of {_long(max(age, 1))} ago" if age else ""
    lines = [f"ipsec-agent {status.get('version', '')}: {status['state']}, {health}{then}"]
    if drain := status.get("drain"):
        lines.append(f"  {drain['says']}")
    for problem in status["problems"]:
        lasts = _long(status.get("time", problem["since"]) - problem["since"])
        lines.append(f"  {problem['severity'].upper()} {problem['code']}: {problem['message']}")
        lines.append(f"    for {lasts}. {problem['hint']}")
    if "charon" not in status:
        return _shown(lines)
    lines += [f"address    {', '.join(status['addresses']) or 'unknown'} ({status['role']})"]
    lines += [f"  note: {note}" for note in status["notes"]]
    lines += [f"charon     {_charon(status['charon'])}"]
    policies = status["policies"]
    lines.append(
        f"policies   {policies['installed']} of {policies['desired']} in the kernel,"
        f" {len(policies['foreign'])} foreign"
    )
    lines += guard_lines(status.get("guard"))
    lines += _optional(status.get("optional"), status.get("time", time.time()))
    lines += ["connections"] + [_connection(item) for item in status["connections"]]
    lines += [f"peers ({len(status['peers'])})"] + [_peer(peer) for peer in status["peers"]]
    lines += _rotation(status.get("rotation"))
    lines += ["certificates"] + [
        f"  {item['role']:12} {item['subject']}: {item['days_left']:g} days left"
        for item in status["certificates"]
    ]
    lines += ["links"] + [_link(link) for link in status["links"]]
    inside = status.get("inside", [])
    lines += [f"  {link['name']:12} not guarded: {link['reason']}" for link in inside]
    counters = status.get("counters", {})
    if counters:
        lines += ["packets dropped by IPsec (kernel counters)"]
        lines += [f"  {name:24} {count}" for name, count in counters.items()]
    return _shown(lines)


def _rotation(rotation: dict[str, Any] | None) -> list[str]:
    """How many peers are on another certificate than the one in force."""
    if not rotation or not rotation["behind"]:
        return []
    return [
        f"rotation   {one['peers']} of {rotation['peers']} peers still on {_certificate(one)}"
        for one in rotation["on"]
    ]


def _certificate(one: dict[str, Any]) -> str:
    if not one["certificate"]:
        return "a certificate that is not known"
    day = time.strftime("%Y-%m-%d", time.gmtime(one["certificate_ends"]))
    return f"{one['certificate']} (ends {day})"


OTHER_CERTIFICATE = {
    "old": ", on the old certificate",
    "removed-ca": ", of a CA that was removed",
}


def _made_with(peer: dict[str, Any]) -> str:
    """What is to be known of a peer's certificates; nothing where it is as it should be."""
    state = OTHER_CERTIFICATE.get(peer.get("certificate_state", ""), "")
    ends = peer.get("ends_in")
    return state + (f", ends in {_long(ends)}" if ends is not None else "")


def _shown(lines: list[str]) -> str:
    """As one text; a program may call itself what a terminal would obey, or break a line."""
    return "".join(
        "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line) + "\n"
        for line in lines
    )


def _charon(charon: dict[str, Any] | None) -> str:
    if charon is None:
        return "not running"
    answers = "" if charon["responsive"] else ", not answering"
    return f"{charon['version']}, pid {charon['pid']}, {charon['memory'] >> 20} MiB{answers}"


def guard_lines(guard: dict[str, Any] | None) -> list[str]:
    """The guard, and whom it counts; nothing of an agent that has none."""
    if guard is None:
        return []
    state = GUARD_STATES.get(guard["state"], guard["state"])
    if guard.get("closed_by") == "boot":
        state = CLOSED_AT_BOOT
    lines = [f"guard      {state}"]
    if guard["state"] not in NO_TABLE:
        does = "dropped" if guard.get("drops", True) else "counts only:"
        lines[0] += f", {does} {guard['dropped_in']} in, {guard['dropped_out']} out"
    for key, says in COUNTED.items():
        counted = guard.get(key, [])  # An agent of an earlier version may run.
        lines += [
            f"  {says} {seen.get('address') or seen['link']}: {several(seen['packets'], 'packet')},"
            f" last {_long(seen['idle'])} ago"
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
        f"  {one['address']:24} clear {WAYS[one['way']]} for {_long(now - one['since'])},"
        f" last {_long(now - one['last'])} ago,"
        f" {'had an SA before' if one['encrypted'] else 'never had an SA'}"
        for one in peers[:MOST_COUNTED]
    ]
    if len(peers) > MOST_COUNTED:
        lines.append(f"  … and {len(peers) - MOST_COUNTED} more; see --json")
    if unseen:
        more = f" and {len(unseen) - MOST_COUNTED} more" if len(unseen) > MOST_COUNTED else ""
        lines.append(f"  not seen since, so not known: {', '.join(unseen[:MOST_COUNTED])}{more}")
    return lines


def _link(link: dict[str, Any]) -> str:
    down = "" if link["up"] else ", DOWN"
    fits = f", packets of {link['max_packet']} bytes fit" if link.get("max_packet") else ""
    why = f"; guarded: {link['reason']}" if link.get("reason") else ""
    return f"  {link['name']:12} MTU {link['mtu']}{fits}{down}{why}"


def _long(seconds: float) -> str:
    """Seconds as an operator says them."""
    for size, unit in UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _connection(item: dict[str, Any]) -> str:
    state = "enforced" if item["enforced"] else "NOT IN THE KERNEL"
    return f"  {item['action']:8} {item['name']:40} {state}"


def _peer(peer: dict[str, Any]) -> str:
    twice = f", {several(peer['duplicates'], 'duplicate')}" if peer["duplicates"] else ""
    one_way = f", ONE WAY ({peer['one_way']} only)" if peer.get("one_way") else ""
    problem = f", {peer['problem']}" if peer.get("problem") else ""
    if not peer["child_sas"] and not peer["packets_in"] + peer["packets_out"]:
        ike_only = "IKE only, no SA" if peer["ike_sas"] else "no SA"
        return f"  {peer['address']:24} {peer['state']:12} {ike_only}{problem}"
    exchange = _exchange(peer.get("ike_algorithms", ""))
    return (
        f"  {peer['address']:24} {peer['state']:12} age {peer['age']} s,"
        f" in {_way(peer, 'in')}, out {_way(peer, 'out')}{exchange}{twice}{one_way}{problem}"
        f"{_made_with(peer)}"
    )


def _exchange(algorithms: str) -> str:
    """The key exchanges of an IKE_SA, where there is more than the usual one."""
    # After encryption and PRF, and integrity where that is no part of the encryption.
    names = [one for one in algorithms.split("/")[1:] if not one.startswith(("PRF_", "HMAC_"))]
    return f", {' + '.join(names)}" if len(names) > 1 else ""


def _way(peer: dict[str, Any], way: str) -> str:
    idle = peer.get(f"idle_{way}")
    last = "" if idle is None else f" ({_long(idle)} ago)"
    return f"{several(peer[f'packets_{way}'], 'packet')}{last}"
