"""Configs as records, for tests that need no text and no real certificate."""

from datetime import UTC, datetime
from ipaddress import ip_network

from ipsec_agent.core.config import AgentConfig, CertificateFacts, Config, Subnet
from ipsec_agent.core.model import Authority, Credentials, Secret

FACTS = CertificateFacts(
    subject="CN=vm",
    issuer="CN=ca",
    role="instance",
    serial="01",
    not_before=datetime(2026, 1, 1, tzinfo=UTC),
    not_after=datetime(2099, 1, 1, tzinfo=UTC),
)


def config(
    ipsec: tuple[str, ...] = ("10.0.0.0/16",),
    no_ipsec: tuple[str, ...] = (),
    *,
    agent: AgentConfig | None = None,
    key: str = "aa",
    facts: CertificateFacts = FACTS,
    force_udp_encapsulation: bool = False,
    optional: bool = False,
) -> Config:
    """A config whose certificates are only bytes."""
    return Config(
        ipsec_subnets=tuple(Subnet(text, ip_network(text, strict=False)) for text in ipsec),
        no_ipsec_subnets=tuple(Subnet(text, ip_network(text, strict=False)) for text in no_ipsec),
        certificate=b"leaf-" + key.encode(),
        credentials=Credentials(
            key, Secret(b"key-" + key.encode()), (Authority(f"ca-{key}", b"ca-" + key.encode()),)
        ),
        certificates=(facts,),
        force_udp_encapsulation=force_udp_encapsulation,
        optional=optional,
        agent=agent or AgentConfig(),
    )
