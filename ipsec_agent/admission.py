"""Whether a config may be enforced on this VM, checked before anything is touched."""

from pathlib import PurePath

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, Config
from ipsec_agent.core.desired import refuse_outside
from ipsec_agent.core.desired_guard import lockouts
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.placement import place
from ipsec_agent.core.problems.guard import GuardState
from ipsec_agent.core.problems.optional import NOT_COUNTED, Memory, outlook
from ipsec_agent.core.problems.proposals import IMPOSSIBLE, proposal_problems
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.status import Snapshot
from ipsec_agent.errors import ConfigError, StartError
from ipsec_agent.host.charon_start import program_warnings

SHIPPED = AgentConfig().state_dir
"""Where the shipped units look for the saved guard."""


class Told(Struct, frozen=True):
    """What is told of a config that is taken.

    Attributes:
        config: warnings of the file.
        ending: whom it cuts off by ending optional mode.
        later: what only a start takes.
    """

    config: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()
    later: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All of it, in this order."""
        return (*self.config, *self.ending, *self.later)


def refuse_lockout(config: Config, network: NetworkFacts, essential: EssentialAddresses) -> None:
    """Refuse a config that would cut this VM off from what it cannot do without.

    Raises:
        StartError: it would; the message names each address and the line to add.
    """
    own = tuple(one.address for one in network.addresses)
    found = [
        finding for finding in lockouts(config, own, network.gateways, essential) if finding.refused
    ]
    if found:
        raise StartError(
            "the config would cut this VM off: " + "; ".join(finding.message for finding in found),
            hint="; ".join(finding.hint for finding in found) + "; or use --force",
        )


def refuse_unlisted(config: Config, network: NetworkFacts, in_force: Config | None = None) -> None:
    """Refuse a config that lists none of this VM's addresses, unless it says what they do then.

    While this VM has no address that can be its own, nothing is known, and nothing refused.

    Args:
        in_force: the config that this one is to replace. Where that one finds this VM's address,
            one that does not is at fault, and nothing of it would be enforced.

    Raises:
        ConfigError: they are in neither list, or it finds none.
    """
    promise = Promise.of(config)
    try:
        placement = place(config.agent, promise, network)
    except ConfigError:
        if in_force is not None and _is_placed(in_force, network):
            raise
        return
    refuse_outside(config, promise, placement)


def _is_placed(config: Config, network: NetworkFacts) -> bool:
    try:
        place(config.agent, Promise.of(config), network)
    except ConfigError:
        return False
    return True


def refuse_impossible(config: Config, in_force: Config, snapshot: Snapshot | None) -> None:
    """Refuse proposals of which the charon that runs can do none: it would lose every peer.

    What the config in force has already is not refused: nothing would be lost by it.

    Args:
        in_force: the config that this one is to replace.
        snapshot: of the newest pass; of a charon that it does not know nothing is refused.

    Raises:
        ConfigError: it can do none of a property's.
    """
    if snapshot is None:
        return
    known = proposal_problems(in_force, snapshot.observed)
    for one in proposal_problems(config, snapshot.observed):
        if one.code == IMPOSSIBLE and one not in known:
            raise ConfigError(one.message, hint=f"{one.hint}; nothing was changed")


def end_optional(config: Config, snapshot: Snapshot | None, *, asks: bool) -> tuple[str, ...]:
    """What to tell where a config ends optional mode.

    Args:
        snapshot: of the config in force.
        asks: whoever reloads can be asked whether it is meant.

    Raises:
        StartError: it would cut off peers, or nobody can tell, and that is to be asked.
    """
    if snapshot is None or not snapshot.config.optional or config.optional:
        return ()
    counted = snapshot.guard_state is GuardState.UP
    clear = _cut_off(config, snapshot)
    told = outlook(clear) if counted else NOT_COUNTED
    if asks and (clear.cut_off or not counted):
        raise StartError(
            told,
            hint="give these peers IPsec, or list them in no_ipsec_subnets of every VM; to enforce"
            " all the same, run `ipsec-agent reload --force`",
        )
    return (told,)


def _cut_off(config: Config, snapshot: Snapshot) -> Memory:
    """With whom packets pass in clear now, and would not by this config."""
    promise = Promise.of(config)
    encrypts = any(promise.encrypted(own) for own in snapshot.desired.addresses)
    left = (one for one in snapshot.clear.talks if encrypts and promise.encrypted(one.address))
    return replace(snapshot.clear, talks=tuple(left))


def begins_later(state_dir: str, config: Config) -> tuple[str, ...]:
    """What to tell of a config that is taken, of what only a start takes: charon's or the agent's.

    Args:
        state_dir: where the agent that runs keeps its state.
    """
    new, lacking = config.agent.state_dir, program_warnings(config.agent.charon.program)
    if PurePath(new) == PurePath(state_dir):
        return lacking
    moved = (
        f"warning: agent.state_dir is {new} from the agent's next start on, and {state_dir} until"
        f" then: stop the agent, and move the files of {state_dir} to {new}"
    )
    same = PurePath(new) == PurePath(SHIPPED)
    units = "" if same else f"; the shipped units load the guard of {SHIPPED} only"
    return (*lacking, moved + units)
