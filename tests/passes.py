"""Passes as the reporter is told of them, where a test is about what it makes of several."""

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.reporter import Pass
from tests.vm import Vm


def quiet_pass(vm: Vm) -> Pass:
    """A pass that saw this, had nothing to do, and in which nothing failed."""
    return Pass(
        number=1,
        config=vm.config,
        placement=vm.placement,
        drift=Drift(vm.desired, vm.observed),
        failures=(),
        done=(),
        lies=(),
        unsafe=(),
        waiting=(),
        guard_lowered=False,
        essential=EssentialAddresses(),
    )
