"""The rows of the fault matrix: what happens, what heals it, and how soon."""

import signal
from functools import partial

from tests.lab import faults
from tests.lab.faults import (
    AGENT_START,
    BY_EVENT,
    CHANGED,
    DPD,
    FLOWS_AGAIN,
    KILLED,
    LOST,
    MISSED,
    STARTING,
    STOPPED,
    Fault,
)
from tests.lab.questions import (
    address_guarded,
    arrives,
    arrives_at_a,
    charon_loaded,
    charon_runs,
    no_lost_children,
    policies_replaced,
    policies_there,
    same_charon,
    table_there,
)

ROWS = (
    Fault("a policy deleted", faults.delete_trap, policies_there),
    Fault("an SA's policy and its trap deleted", faults.delete_sas_policies, policies_there),
    Fault("a policy made optional", faults.weaken_trap, policies_there),
    Fault("a policy made to block", faults.block_trap, policies_there),
    Fault("ip xfrm policy flush", faults.flush_policies, policies_there),
    Fault("ip xfrm state flush", faults.flush_states, no_lost_children, LOST),
    Fault("nft flush ruleset", faults.flush_ruleset, table_there, nat=False),
    Fault("a rule of the guard deleted", faults.alter_table, table_there),
    Fault("the guard's table deleted", faults.delete_table, table_there),
    Fault("swanctl --load-all with nothing", faults.load_nothing, policies_there),
    Fault("charon killed", faults.kill_charon, charon_loaded, KILLED),
    Fault("charon stopped by a signal", faults.stop_charon, charon_runs, STOPPED),
    Fault("charon wedged", faults.wedge_charon, charon_loaded, KILLED, slow=MISSED),
    Fault(
        "charon's socket removed",
        faults.remove_socket,
        charon_loaded,
        KILLED,
        slow=STARTING,
    ),
    Fault(
        "an address added",
        faults.add_address,
        partial(address_guarded, 11),
        undo=faults.drop_address,
    ),
    Fault("an address gone and back", faults.blink_address, arrives, FLOWS_AGAIN),
    Fault(
        "the address changed",
        faults.change_address,
        partial(address_guarded, 21),
        undo=faults.change_back,
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
        )
        for how, number in (("killed", signal.SIGKILL), ("ended", signal.SIGTERM))
    ),
    Fault("policies flushed, the agent stopped", faults.flush_while_held, policies_there),
    *(
        Fault(name, do, policies_replaced, CHANGED, undo=faults.first_config, lossless=True)
        for name, do in (
            ("other proposals", faults.other_proposals),
            ("other subnets", faults.other_subnets),
            ("another certificate", faults.other_certificate),
        )
    ),
    Fault("stop, another charon, and start", faults.upgrade, charon_loaded, AGENT_START),
    *(
        Fault(f"second link: {name}", partial(do, nic=1), question, limit, nics=2)
        for name, do, question, limit in (
            ("a policy deleted", faults.delete_trap, policies_there, BY_EVENT),
            ("its address gone and back", faults.blink_address, arrives, FLOWS_AGAIN),
            ("down and up", faults.blink_link, arrives, FLOWS_AGAIN),
        )
    ),
    Fault(
        "second link: its MTU changed",
        partial(faults.change_mtu, nic=1),
        same_charon,
        calm=True,
        lossless=True,
        nics=2,
    ),
    Fault(
        "a floating address moves",
        faults.move_floating,
        arrives,
        FLOWS_AGAIN,
        undo=faults.bring_floating_back,
        nics=2,
    ),
    Fault("crash, peers remembered", faults.crash, arrives_at_a, LOST, crash=True),
    Fault(
        "crash, peers forgotten",
        faults.crash_and_forget,
        arrives_at_a,
        0.0,
        crash=True,
        slow=DPD,
    ),
)
