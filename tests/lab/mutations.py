"""The code that holds rows of the matrix: without it they fail."""

from dataclasses import dataclass

from tests.lab.bed import BARE, CONTAINERS, Setting
from tests.mutations.mutation import Mutation
from tests.mutations.of_tests import UNLISTED

CLEAR = r"clear packets between|^clear: "
UNHEALED = r"is not healed|healed after"


@dataclass(frozen=True, slots=True)
class OfRow(Mutation):
    """A mutation that a row of the matrix meets.

    Attributes:
        row: its name.
        verdict: what its failure says, as a pattern.
    """

    row: str
    verdict: str
    setting: Setting = BARE


ROW_MUTATIONS = (
    OfRow(
        "the guard drops nothing",
        "core/guard_table.py",
        'return "drop" if enforce else "accept"',
        'return "accept"',
        "ip xfrm policy flush",
        CLEAR,
    ),
    OfRow(
        "the guard lets pass what masquerade takes from another link",
        "core/guard_table.py",
        UNLISTED,
        "",
        "an address gone and back",
        CLEAR,
        CONTAINERS,
    ),
    OfRow(
        "an altered guard is as good as the right one",
        "core/plan.py",
        "if table is None or table.mark != wish.mark:",
        "if table is None:",
        "a rule of the guard deleted",
        UNHEALED,
    ),
    OfRow(
        "nobody hears of policies",
        "kernel_part.py",
        'group.create_task(self._xfrm.watch(wake), name="xfrm events")',
        "pass",
        "a policy deleted",
        UNHEALED,
    ),
    OfRow(
        "a policy that is gone is none to mend",
        "core/drift.py",
        "    if policy is None or policy.blocks:\n        return False",
        "    if policy is None:\n        return True",
        "a policy deleted",
        UNHEALED,
    ),
    # Both that such a trap is missing and that it has the wrong level (drift.py) rest on this.
    OfRow(
        "a policy that only asks for ESP is read as one that requires it",
        "host/xfrm_records.py",
        "    carried = [one for one in templates if",
        "    carried = [one._replace(optional=0) for one in templates if",
        "a policy made optional",
        UNHEALED,
    ),
    OfRow(
        "charon's SAs are believed",
        "core/drift.py",
        "not (child.spi_in in there and child.spi_out in there and self._has_policies(pairs))",
        "False",
        "ip xfrm state flush",
        UNHEALED,
    ),
    OfRow(
        "policies that charon believes in are not installed again",
        "core/plan.py",
        "        *_reinstalls(drift, loaded_anew, told),\n",
        "",
        "ip xfrm policy flush",
        UNHEALED,
    ),
    OfRow(
        "a stopped charon is left alone",
        "core/plan.py",
        "        return (ContinueCharon(process),)",
        "        return ()",
        "charon stopped by a signal",
        UNHEALED,
    ),
    OfRow(
        "a charon without its socket is left alone",
        "core/plan.py",
        "not process.reachable and now - process.started > STARTING",
        "False",
        "charon's socket removed",
        UNHEALED,
    ),
    OfRow(
        "a charon that hangs is left alone",
        "core/plan.py",
        "    if charon.idle >= IDLE_MOST or charon.silent >= SILENT_MOST:",
        "    if charon.missed < 0:",
        "charon wedged",
        UNHEALED,
    ),
    OfRow(
        "a connection that changed is as good as loaded",
        "core/plan.py",
        "if loaded.get(load.connection.name) != load.fingerprint",
        "if load.connection.name not in loaded",
        "other proposals",
        UNHEALED,
    ),
    OfRow(
        "nobody is poked after a crash",
        "core/plan.py",
        "        *((Poke(todo.poke),) if todo.poke else ()),\n",
        "",
        "crash, peers remembered",
        UNHEALED,
    ),
    OfRow(
        "only the first address has traps",
        "core/desired.py",
        "for own in encrypting if own.version == version)\n",
        "for own in encrypting[:1])\n",
        "an address added",
        UNHEALED,
    ),
)
