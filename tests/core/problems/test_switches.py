"""Settings that undo IPsec: which matter, and how much."""

import pytest
from msgspec.structs import replace

from ipsec_agent.core.model import Direction
from ipsec_agent.core.problems.problem import Severity, healthy
from ipsec_agent.core.switch import Switch, SwitchKind
from tests.configs import config
from tests.vm import healthy_vm

VM = healthy_vm(config())
XFRM, POLICY = SwitchKind.DISABLE_XFRM, SwitchKind.DISABLE_POLICY


def switch(kind: SwitchKind, link: str, family: int = 4) -> Switch:
    """A setting that is on."""
    return Switch(kind, family, link, f"net/ipv{family}/conf/{link}/{kind}")


@pytest.mark.parametrize("link", ["eth0", "all"])
@pytest.mark.parametrize(
    ("kind", "code", "guarded", "open_"),
    [
        (XFRM, "ipsec-disabled", "the guard drops them", "they leave in clear"),
        (POLICY, "policy-check-disabled", "only the guard drops", "clear ones are accepted"),
    ],
)
def test_switched_off(kind: SwitchKind, link: str, code: str, guarded: str, open_: str) -> None:
    """An error behind the guard, critical without it; the command that puts it back is told."""
    vm = VM.but(switches=(switch(kind, link),))

    found = vm.problems()[code]
    assert found.severity is Severity.ERROR
    assert guarded in found.message
    assert f"sysctl -w net/ipv4/conf/{link}/{kind}=0" in found.hint
    bare = vm.table(mark="").problems()[code]
    assert bare.severity is Severity.CRITICAL
    assert open_ in bare.message


def test_what_does_not_matter() -> None:
    """Another link, a family in which nothing is encrypted, a VM that encrypts nothing."""
    others = (switch(XFRM, "docker0"), switch(POLICY, "all", 6), switch(POLICY, "eth0", 6))
    vm = VM.but(switches=others, default_blocks=())

    assert vm.assess().problems == ()
    clear = replace(vm, desired=replace(vm.desired, connections=()))
    on = clear.but(switches=(switch(XFRM, "eth0"),), default_blocks=(Direction.OUT,))
    assert not {"ipsec-disabled", "policy-default-blocks"} & on.problems().keys()


def test_default() -> None:
    """What the kernel blocks by default is named with its directions."""
    vm = VM.but(default_blocks=(Direction.IN, Direction.OUT))

    found = vm.problems()["policy-default-blocks"]
    assert found.severity is Severity.ERROR
    assert "match no policy (in, out)" in found.message
    assert not healthy(vm.assess().problems)
