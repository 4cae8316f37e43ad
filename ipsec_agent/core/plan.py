"""Desired minus observed: steps in an order that is safe to be cut anywhere.

After each step every flow that must be encrypted and was protected before is still protected:
what protects is loaded first, what exempts more is unloaded before what protects less, and
credentials go last. The plan is empty when nothing is to do.
"""

from ipsec_agent.core.drift import missing, orphan_states, orphans
from ipsec_agent.core.model import (
    Action,
    Connection,
    Desired,
    Network,
    PolicySelector,
)
from ipsec_agent.core.observed import Charon, Observed
from ipsec_agent.core.steps import (
    DeletePolicy,
    DeleteState,
    LoadAuthority,
    LoadConnection,
    LoadKey,
    ReinstallPolicies,
    StartCharon,
    Step,
    TerminateSa,
    UnloadAuthority,
    UnloadConnection,
    UnloadKey,
)
from ipsec_agent.core.swanctl import fingerprint


def plan(desired: Desired, observed: Observed) -> tuple[Step, ...]:
    """The steps from what is to what should be."""
    charon = observed.charon
    if charon is None:
        return (StartCharon(),) if desired.credentials is not None else ()
    if not charon.responsive:
        return ()
    loads = _loads(desired, charon)
    loaded_anew = {step.connection.name for step in loads}
    return (
        *_credentials(desired, charon),
        *loads,
        *_reinstalls(desired, observed, loaded_anew),
        *(DeletePolicy(policy) for policy in orphans(desired, observed)),
        *_unloads(desired, charon),
        *_terminations(desired, charon),
        *(DeleteState(state) for state in orphan_states(observed)),
        *_withdrawals(desired, charon),
    )


def _credentials(desired: Desired, charon: Charon) -> tuple[Step, ...]:
    if desired.credentials is None:
        return ()
    steps: list[Step] = [
        LoadAuthority(authority)
        for authority in desired.credentials.authorities
        if authority.name not in charon.authorities
    ]
    if desired.credentials.key_id not in charon.keys:
        steps.append(LoadKey(desired.credentials))
    return tuple(steps)


def _loads(desired: Desired, charon: Charon) -> tuple[LoadConnection, ...]:
    """Shunts first: the operator's exceptions must work before traps can cut anyone off."""
    loaded = {connection.name: connection.fingerprint for connection in charon.connections}
    ordered = sorted(desired.connections, key=lambda wanted: wanted.action is Action.ENCRYPT)
    return tuple(
        LoadConnection(wanted, mark)
        for wanted in ordered
        if loaded.get(wanted.name) != (mark := fingerprint(wanted))
    )


def _reinstalls(
    desired: Desired, observed: Observed, loaded_anew: set[str]
) -> tuple[ReinstallPolicies, ...]:
    """charon believes these policies there; somebody else took them away."""
    lacking = {
        (policy.connection, policy.selector) for policy in missing(desired, observed.policies)
    }
    if not lacking:
        return ()
    return tuple(
        ReinstallPolicies(connection.name, child)
        for connection in desired.connections
        if connection.name not in loaded_anew
        for child in _children_lacking(connection, desired, lacking)
    )


def _children_lacking(
    connection: Connection, desired: Desired, lacking: set[tuple[str, PolicySelector]]
) -> tuple[str, ...]:
    names = []
    for child in connection.children:
        ends = {child.local.network, child.remote.network}
        if any(
            (policy.connection, policy.selector) in lacking
            for policy in desired.policies
            if policy.connection == connection.name
            and {policy.selector.source, policy.selector.destination} == ends
            and policy.selector.source_port in {0, child.local.port}
        ):
            names.append(child.name)
    return tuple(names)


def _unloads(desired: Desired, charon: Charon) -> tuple[UnloadConnection, ...]:
    """Shunts first here, too: taking an exception away protects more."""
    wanted = {connection.name for connection in desired.connections}
    unwanted = [item.name for item in charon.connections if item.name not in wanted]
    ordered = sorted(unwanted, key=lambda name: (name.startswith("ipsec-"), name))
    return tuple(UnloadConnection(name) for name in ordered)


def _terminations(desired: Desired, charon: Charon) -> tuple[TerminateSa, ...]:
    """SAs with peers that no connection covers any more."""
    covered = [
        (child.local.network, child.remote.network)
        for connection in desired.connections
        if connection.action is Action.ENCRYPT
        for child in connection.children
    ]
    return tuple(
        TerminateSa(sa.unique_id, f"no connection encrypts with {sa.remote} any more")
        for sa in charon.sas
        if sa.children
        and not any(
            _inside(child.local, near) and _inside(child.remote, far)
            for child in sa.children
            for near, far in covered
        )
    )


def _inside(selectors: tuple[Network, ...], network: Network) -> bool:
    return all(
        selector.version == network.version and network.supernet_of(selector)  # type: ignore[arg-type] # versions are equal
        for selector in selectors
    )


def _withdrawals(desired: Desired, charon: Charon) -> tuple[Step, ...]:
    credentials = desired.credentials
    keys = {credentials.key_id} if credentials else set()
    names = {authority.name for authority in credentials.authorities} if credentials else set()
    return (
        *(UnloadKey(key) for key in charon.keys if key not in keys),
        *(UnloadAuthority(name) for name in charon.authorities if name not in names),
    )
