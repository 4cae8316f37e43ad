"""The rows of the fault matrix: what happens, what heals it, and how soon.

What runs with --long only is shown on the machine's own kernel, too (charon/test_repair.py and
test_agent.py), goes as another row does, or takes more time than the guest always has.
"""

import signal
from functools import partial

from tests.lab import faults, rekeys
from tests.lab.bed import BARE
from tests.lab.faults import (
    AGENT_START,
    BY_EVENT,
    CHANGED,
    CRASHED,
    DPD,
    FLOWS_AGAIN,
    KILLED,
    LOST,
    MISSED,
    NEGOTIATED,
    REMOVED,
    STARTING,
    STOPPED,
    UNHEARD,
    Fault,
)
from tests.lab.questions import (
    a_begins,
    address_guarded,
    arrives,
    arrives_at_a,
    charon_loaded,
    charon_runs,
    no_lost_children,
    policies_replaced,
    policies_there,
    same_charon,
    sas_replaced,
    table_there,
)

RACING = 1
"""Datagrams that charon's rekeying may cost. It has the kernel use the new SA and removes the old
one at once (child_rekey.c, child_delete.c: install_outbound, remove_outbound; only of inbound SAs
does delete_rekeyed_delay tell), and a packet that had found the old one, and is not encrypted yet,
is refused: EINVAL, XfrmOutStateInvalid (net/xfrm/xfrm_output.c)."""

ROWS = (
    Fault("a policy deleted", faults.delete_trap, policies_there, shown=()),
    Fault(
        "an SA's policy and its trap deleted",
        faults.delete_sas_policies,
        policies_there,
        moves=NEGOTIATED,
        shown=(),
    ),
    Fault("a policy made optional", faults.weaken_trap, policies_there, shown=()),
    Fault("a policy made to block", faults.block_trap, policies_there, shown=()),
    Fault(
        "ip xfrm policy flush",
        faults.flush_policies,
        policies_there,
        shown=(),
        moves=NEGOTIATED,
    ),
    Fault("ip xfrm state flush", faults.flush_states, no_lost_children, LOST, moves=NEGOTIATED),
    Fault("nft flush ruleset", faults.flush_ruleset, table_there, nat=False, shown=()),
    Fault("a rule of the guard deleted", faults.alter_table, table_there, shown=()),
    Fault("the guard's table deleted", faults.delete_table, table_there, shown=()),
    Fault("swanctl --load-all with nothing", faults.load_nothing, policies_there, shown=()),
    Fault(
        "charon killed",
        faults.kill_charon,
        charon_loaded,
        KILLED,
        shown=(BARE,),
        moves=UNHEARD,
    ),
    Fault("charon stopped by a signal", faults.stop_charon, charon_runs, STOPPED),
    Fault(
        "charon wedged",
        faults.wedge_charon,
        charon_loaded,
        KILLED,
        slow=MISSED,
        shown=(),
        moves=UNHEARD,
    ),
    Fault(
        "charon's socket removed",
        faults.remove_socket,
        charon_loaded,
        KILLED,
        slow=STARTING,
        shown=(),
        moves=UNHEARD,
    ),
    Fault(
        "an address added",
        faults.add_address,
        partial(address_guarded, 11),
        undo=faults.drop_address,
        shown=(),
    ),
    Fault("an address gone and back", faults.blink_address, arrives, FLOWS_AGAIN),
    Fault(
        "the address changed",
        faults.change_address,
        partial(address_guarded, 21),
        undo=faults.change_back,
        shown=(),
        moves=NEGOTIATED,
    ),
    Fault("the link down and up", faults.blink_link, arrives, FLOWS_AGAIN),
    Fault("the MTU changed", faults.change_mtu, same_charon, calm=True, lossless=True),
    *(
        Fault(
            f"the agent {how}, and another",
            partial(faults.again, number),
            same_charon,
            calm=True,
            lossless=True,
            shown=(),
        )
        for how, number in (("killed", signal.SIGKILL), ("ended", signal.SIGTERM))
    ),
    Fault(
        "policies flushed, the agent stopped",
        faults.flush_while_held,
        policies_there,
        moves=NEGOTIATED,
        shown=(),
    ),
    *(
        Fault(
            name,
            do,
            policies_replaced,
            CHANGED,
            undo=faults.first_config,
            lossless=True,
            shown=shown,
        )
        for name, do, shown in (
            ("other proposals", faults.other_proposals, (BARE,)),
            ("other subnets", faults.other_subnets, (BARE,)),
            ("another certificate", faults.other_certificate, ()),
        )
    ),
    Fault(
        "stop, another charon, and start",
        faults.upgrade,
        charon_loaded,
        AGENT_START,
        moves=UNHEARD,
    ),
    *(
        Fault(
            f"second link: {name}",
            partial(do, nic=1),
            question,
            limit,
            nics=2,
            shown=(),
            moves=moves,
        )
        for name, do, question, limit, moves in (
            ("a policy deleted", faults.delete_trap, policies_there, BY_EVENT, frozenset[str]()),
            # Its SAs end with it.
            (
                "its address gone and back",
                faults.blink_address,
                arrives,
                FLOWS_AGAIN,
                NEGOTIATED,
            ),
            ("down and up", faults.blink_link, arrives, FLOWS_AGAIN, frozenset[str]()),
        )
    ),
    Fault(
        "second link: its MTU changed",
        partial(faults.change_mtu, nic=1),
        same_charon,
        calm=True,
        lossless=True,
        nics=2,
        shown=(),
    ),
    *(
        Fault(
            name,
            do,
            same_charon,
            undo=undo,
            calm=True,
            lossless=True,
            nics=2,
            shown=(),
        )
        for name, do, undo in (
            (
                "a default route, too, on the second link",
                faults.add_default_route,
                faults.drop_default_route,
            ),
            (
                "the default route moves to it",
                faults.move_default_route,
                faults.move_default_route_back,
            ),
        )
    ),
    Fault(
        "a floating address moves",
        faults.move_floating,
        arrives,
        FLOWS_AGAIN,
        undo=faults.bring_floating_back,
        nics=2,
        shown=(),
        moves=NEGOTIATED,
    ),
    *(
        Fault(
            name,
            do,
            same_charon,
            calm=True,
            lossless=True,
            racing=RACING,
            shown=shown,
            moves=REMOVED,
        )
        for name, do, shown in (
            ("CHILD_SA rekeyed", rekeys.rekey_children, ()),
            ("CHILD_SA rekeyed by both", rekeys.rekey_children_of_both, (BARE,)),
            ("IKE_SA rekeyed", rekeys.rekey_ike, (BARE,)),
            ("IKE_SA rekeyed by both", rekeys.rekey_ike_of_both, (BARE,)),
        )
    ),
    Fault(
        "a rekey while the link bounces",
        rekeys.rekey_while_the_link_bounces,
        sas_replaced,
        FLOWS_AGAIN,
        moves=NEGOTIATED,
    ),
    Fault(
        "the peer ends its SAs",
        rekeys.peer_ends_children,
        sas_replaced,
        FLOWS_AGAIN,
        moves=NEGOTIATED,
        shown=(),
    ),
    Fault(
        "an SA's life ends",
        rekeys.outlive_children,
        sas_replaced,
        FLOWS_AGAIN,
        moves=NEGOTIATED,
        shown=(),
    ),
    Fault(
        "crash, peers remembered",
        faults.crash,
        a_begins,
        CRASHED,
        crash=True,
        moves=UNHEARD,
        shown=(),
    ),
    Fault(
        "crash, peers forgotten",
        faults.crash_and_forget,
        arrives_at_a,
        0.0,
        crash=True,
        slow=DPD,
        shown=(),
        moves=UNHEARD,
    ),
)
