"""The promise in one place: between which two addresses packets must be encrypted.

`encrypts(a, b)` holds when both addresses are in some ipsec subnet and neither is in any no-ipsec
subnet, so it is symmetric by its form. desired.py and guard.py only spell it out for charon and
for nftables.
"""

from functools import cached_property

from msgspec import Struct

from ipsec_agent.core.config import Config
from ipsec_agent.core.derived import derived
from ipsec_agent.core.model import Action, Address, Network
from ipsec_agent.core.ranges import BITS, Subnets, holds, of_networks, range_of


class Promise(Struct, frozen=True, dict=True):
    """The two lists of a config, normalised, duplicates removed, in the order as written."""

    ipsec: tuple[Network, ...]
    no_ipsec: tuple[Network, ...]

    @staticmethod
    def of(config: Config) -> "Promise":
        """The two lists of a config."""
        return _promise(config)

    def encrypted(self, address: Address) -> bool:
        """Whether a VM with this address encrypts."""
        return self.ipsec_subnet(address) is not None and self.no_ipsec_subnet(address) is None

    def listed(self, address: Address) -> bool:
        """Whether an address is in either list."""
        return self.ipsec_subnet(address) is not None or self.no_ipsec_subnet(address) is not None

    def encrypts(self, one: Address, other: Address) -> bool:
        """Whether packets between these addresses of different VMs must be encrypted."""
        return self.encrypted(one) and self.encrypted(other)

    def ipsec_subnet(self, address: Address) -> Network | None:
        """The narrowest ipsec subnet that holds the address."""
        return self._ipsec.narrowest(address)

    def no_ipsec_subnet(self, address: Address) -> Network | None:
        """The narrowest no-ipsec subnet that holds the address."""
        return self._no_ipsec.narrowest(address)

    @cached_property
    def covered(self) -> tuple[Network, ...]:
        """The ipsec subnets of which the no-ipsec subnets leave nothing to encrypt."""
        exempt = {version: of_networks(self.no_ipsec, version) for version in BITS}
        return tuple(
            network for network in self.ipsec if holds(exempt[network.version], range_of(network))
        )

    @cached_property
    def _ipsec(self) -> Subnets:
        return Subnets(self.ipsec)

    @cached_property
    def _no_ipsec(self) -> Subnets:
        return Subnets(self.no_ipsec)

    def flow(self, one: Address, other: Address) -> "Flow":
        """How packets from one address to another travel, and why."""
        if self.encrypts(one, other):
            return Flow(
                Action.ENCRYPT,
                f"both are in ipsec_subnets ({self.ipsec_subnet(one)}, {self.ipsec_subnet(other)})"
                " and neither in no_ipsec_subnets",
            )
        for address in (one, other):
            subnet = self.no_ipsec_subnet(address)
            if subnet is not None:
                return Flow(Action.PASS, f"{address} is in no_ipsec_subnets ({subnet})")
        outsider = one if self.ipsec_subnet(one) is None else other
        return Flow(Action.PASS, f"{outsider} is in no ipsec subnet")


class Flow(Struct, frozen=True):
    """How packets travel between two addresses, and why."""

    action: Action
    because: str


@derived
def _promise(config: Config) -> Promise:
    return Promise(
        tuple(dict.fromkeys(subnet.network for subnet in config.ipsec_subnets)),
        tuple(dict.fromkeys(subnet.network for subnet in config.no_ipsec_subnets)),
    )
