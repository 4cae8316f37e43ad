"""Desired minus observed: steps in an order that is safe to be cut anywhere.

After each step every flow that must be encrypted and was protected before is still protected: the
guard comes first and goes last, what protects is loaded before what exempts is unloaded, and
credentials go at the end. The plan is empty when nothing is to do.
"""

from collections.abc import Set as AbstractSet

from msgspec.structs import replace

from ipsec_agent.core import leftovers, rotation
from ipsec_agent.core.clock import worth_saving
from ipsec_agent.core.coverage import traps
from ipsec_agent.core.derived import derived
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.duplicates import endings
from ipsec_agent.core.flow_rules import wanted_flow_rules
from ipsec_agent.core.guard_table import mark
from ipsec_agent.core.ike_ports import reopens
from ipsec_agent.core.liars import Lie, lies, terminations, without
from ipsec_agent.core.model import Action, Desired
from ipsec_agent.core.observed import Charon, Observed
from ipsec_agent.core.orphans import orphan_steps
from ipsec_agent.core.peer_certificates import clock_facts
from ipsec_agent.core.peers import peers_to_do
from ipsec_agent.core.steps import (
    ContinueCharon,
    ExemptLinks,
    GuardFlows,
    KillCharon,
    LoadAuthority,
    LoadConnection,
    LoadGuard,
    LoadKey,
    Poke,
    ReinstallPolicies,
    RememberPeers,
    RemoveGuard,
    SaveGuard,
    SaveTime,
    SetLevel,
    SetMtu,
    StartCharon,
    Step,
    TerminateChild,
    TerminateSa,
    UnloadAuthority,
    UnloadConnection,
    UnloadKey,
)
from ipsec_agent.core.swanctl import credentials_mark, fingerprint
from ipsec_agent.core.words import several

IDLE_MOST = 2
"""Deadlines in a row after which a charon that does not answer, and does nothing, is replaced."""

SILENT_MOST = 50.0
"""Seconds after which one that works, but does not answer, is replaced; the look that finds it may
be a deadline later, and that is within a minute."""

STARTING = 3.0
"""Seconds of age in which a charon may be without its VICI socket."""


def plan(drift: Drift) -> tuple[Step, ...]:
    """The steps from what is to what should be; none about what could not be read.

    None about a charon either that a drain ends or has ended.
    """
    desired, observed = drift.desired, drift.observed
    unread = {name for name, _ in observed.unreadable}
    guard = desired.guard is not None and not unread & {"guard", "network"}
    ends = observed.drain is not None and observed.drain.holds_charon
    charon = desired.placed and not ends and not unread & {"charon", "policies", "states"}
    return (
        *(_guard(desired, observed) if guard else ()),
        *(_flows(desired, observed) if not unread & {"guard", "network"} else ()),
        *_mtus(desired, observed),
        *((SaveTime(observed.time),) if worth_saving(observed.time, clock_facts(observed)) else ()),
        *(_charon(drift) if charon else ()),
        *(_no_guard(desired, observed) if "guard" not in unread else ()),
    )


def _guard(desired: Desired, observed: Observed) -> tuple[Step, ...]:
    wish, table = desired.guard, observed.guard
    if wish is None:
        return ()
    save = (SaveGuard(wish),) if observed.saved_guard != wish.mark else ()
    if table is None or table.mark != wish.mark:
        return (LoadGuard(wish), *save)
    right = (table.exempt, table.overlay_ports) == (wish.exempt, wish.overlay_ports)
    exempt = ExemptLinks(wish.exempt, wish.overlay_ports, table.exempt)
    return (*(() if right else (exempt,)), *save)


def _flows(desired: Desired, observed: Observed) -> tuple[Step, ...]:
    """What the table beside flowtables needs; one that is not needed harms nobody."""
    table = observed.guard
    known = desired.guard is not None or desired.placed or desired.guard_lowered
    if table is None or not known:
        return ()
    text = wanted_flow_rules(desired.guard, table.flowtables, observed.network.links)
    return (GuardFlows(text),) if table.flow_rules != (mark(text) if text else None) else ()


def _no_guard(desired: Desired, observed: Observed) -> tuple[Step, ...]:
    if desired.guard is not None or not (desired.placed or desired.guard_lowered):
        return ()
    forget = observed.saved_guard and not desired.guard_lowered and desired.credentials
    return (
        *((RemoveGuard(),) if observed.guard is not None else ()),
        *((SaveGuard(None),) if forget else ()),
    )


def _mtus(desired: Desired, observed: Observed) -> tuple[SetMtu, ...]:
    have = {link.index: link.mtu for link in observed.network.links}
    return tuple(
        SetMtu(index, mtu) for index, mtu in desired.mtus if index in have and have[index] != mtu
    )


def _charon(drift: Drift) -> tuple[Step, ...]:
    desired, observed = drift.desired, drift.observed
    charon = observed.charon
    if charon is None:
        started = (StartCharon(),) if desired.credentials is not None else ()
        return (*_levels(drift), *started)
    if not charon.responsive:
        return (*_levels(drift), *_revival(charon, observed.time))
    if reopens(desired, observed):
        because = "the IKE ports that it lacks are free now, and it opens them at its start only"
        return (KillCharon(charon.process, because),)
    told = lies(drift)
    honest = without(charon, told)
    fair = drift if honest is charon else Drift(desired, replace(observed, charon=honest))
    loads = _loads(desired, charon)
    loaded_anew = {step.connection.name for step in loads}
    todo = peers_to_do(fair)
    return (
        *terminations(told),
        *_credentials(desired, charon),
        *(load for load in loads if load.connection.action is Action.PASS),
        *_tightened(drift),
        *(load for load in loads if load.connection.action is Action.ENCRYPT),
        *_reinstalls(drift, loaded_anew, told),
        *_relaxed(drift, loaded_anew),
        *orphan_steps(drift),
        *(() if loads else rotation.moves(fair)),
        *_unloads(desired, charon),
        *_terminations(drift, honest),
        *_lost(fair),
        *_superseded(fair),
        *((Poke(todo.poke),) if todo.poke else ()),
        *((RememberPeers(todo.remember),) if todo.remember is not None else ()),
        *_withdrawals(desired, charon),
    )


def _revival(charon: Charon, now: float) -> tuple[Step, ...]:
    """What brings a charon back that does not answer; its policies and SAs stay meanwhile."""
    process = charon.process
    if process.stopped:
        return (ContinueCharon(process),)
    if not process.reachable and now - process.started > STARTING:
        return (KillCharon(process, "its VICI socket is gone"),)
    if charon.idle >= IDLE_MOST or charon.silent >= SILENT_MOST:
        return (KillCharon(process, f"{several(charon.missed, 'request')} in a row timed out"),)
    return ()


def _credentials(desired: Desired, charon: Charon) -> tuple[Step, ...]:
    if desired.credentials is None:
        return ()
    steps: list[Step] = [
        LoadAuthority(authority)
        for authority in desired.credentials.authorities
        if authority.name not in charon.authorities
    ]
    known = charon.credentials == credentials_mark(desired.credentials)
    if not known or desired.credentials.key_id not in charon.keys:
        steps.append(LoadKey(desired.credentials))
    return tuple(steps)


def _loads(desired: Desired, charon: Charon) -> tuple[LoadConnection, ...]:
    loaded = {connection.name: connection.fingerprint for connection in charon.connections}
    return tuple(
        load for load in _all_loads(desired) if loaded.get(load.connection.name) != load.fingerprint
    )


@derived
def _all_loads(desired: Desired) -> tuple[LoadConnection, ...]:
    """Shunts first: the operator's exceptions must work before traps can cut anyone off."""
    ordered = sorted(desired.connections, key=lambda wanted: wanted.action is Action.ENCRYPT)
    return tuple(LoadConnection(wanted, fingerprint(wanted)) for wanted in ordered)


def _reinstalls(
    drift: Drift, loaded_anew: set[str], told: tuple[Lie, ...]
) -> tuple[ReinstallPolicies, ...]:
    """charon believes these policies there; somebody else took them away.

    Where an SA that a peer lied about has taken their place, charon puts them back with its end.
    """
    taken = {pair for lie in told for pair in lie.selectors}
    levelled = {trap for trap, _ in drift.mislevelled}
    lacking = (
        ReinstallPolicies(policy.connection, policy.child, policy.action)
        for policy in drift.missing
        if policy.connection not in loaded_anew
        and policy not in levelled
        and frozenset((policy.selector.source, policy.selector.destination)) not in taken
    )
    return tuple(dict.fromkeys(lacking))


def _tightened(drift: Drift) -> tuple[SetLevel, ...]:
    """Traps that let pass, and are to require ESP: at once, whatever charon makes of its loads."""
    return () if drift.desired.optional else _levels(drift)


def _relaxed(drift: Drift, loaded_anew: AbstractSet[str]) -> tuple[SetLevel, ...]:
    """Traps that require ESP, and are only to use it. What charon installs now is looked at again
    first: what is gone by then, this would make."""
    return _levels(drift, loaded_anew) if drift.desired.optional else ()


def _levels(drift: Drift, but: AbstractSet[str] = frozenset()) -> tuple[SetLevel, ...]:
    """Traps of the other level than wanted, but those of some connections."""
    return tuple(
        SetLevel(replace(policy, reqid=trap.reqid or policy.reqid), drift.desired.optional)
        for trap, policy in drift.mislevelled
        if trap.connection not in but
    )


def _unloads(desired: Desired, charon: Charon) -> tuple[UnloadConnection, ...]:
    """Shunts first here, too: taking an exception away protects more."""
    wanted = {connection.name for connection in desired.connections}
    unwanted = [item.name for item in charon.connections if item.name not in wanted]
    ordered = sorted(unwanted, key=lambda name: (name.startswith("ipsec-"), name))
    return tuple(UnloadConnection(name) for name in ordered)


def _superseded(drift: Drift) -> tuple[TerminateSa | TerminateChild, ...]:
    """What another SA has replaced; one that several reasons name ends once."""
    observed, charon = drift.observed, drift.observed.charon
    if charon is None:
        return ()
    older = rotation.handed_over(drift)
    sas = tuple(sa for sa in charon.sas if sa.unique_id not in older) if older else charon.sas
    doubled = endings(replace(charon, sas=sas), observed.states, rotation.in_use(drift))
    steps: dict[tuple[bool, int], TerminateSa | TerminateChild] = {}
    for step in (*doubled, *rotation.endings(drift), *leftovers.endings(drift)):
        steps.setdefault((isinstance(step, TerminateSa), step.unique_id), step)
    return tuple(steps.values())


def _terminations(drift: Drift, charon: Charon) -> tuple[TerminateSa, ...]:
    """SAs with peers that no connection covers any more.

    Those of an address that is gone stay: no DELETE would reach the peer, they carry nothing, and
    if it comes back soon, they go on. Else charon's dead peer detection ends them.
    """
    trapped = traps(drift.desired)
    here = {own.address for own in drift.observed.network.addresses}
    return tuple(
        TerminateSa(sa.unique_id, f"no connection encrypts with {sa.remote} any more")
        for sa in charon.sas
        if sa.children
        and sa.local in here
        and not any(trapped.covers(child.local, child.remote) for child in sa.children)
    )


def _lost(drift: Drift) -> tuple[TerminateChild, ...]:
    return tuple(
        TerminateChild(child.unique_id, "the kernel has lost its SAs or policies")
        for child in drift.lost_children
    )


def _withdrawals(desired: Desired, charon: Charon) -> tuple[Step, ...]:
    """What charon is not to have any more.

    A CA was given to it with the connections, too, and stays behind them. To have it forget that
    takes the key away for a moment.
    """
    credentials = desired.credentials
    keys = {credentials.key_id} if credentials else set()
    names = {authority.name for authority in credentials.authorities} if credentials else set()
    removed = tuple(UnloadAuthority(name) for name in charon.authorities if name not in names)
    return (
        *(UnloadKey(key) for key in charon.keys if key not in keys),
        *((LoadKey(credentials, only=True),) if removed and credentials else ()),
        *removed,
    )
