"""Manifests in each form that the add-on's operators write, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tests.certificates import Issued
from tests.forge import Forged


class _Block(str):
    """Text that is written as a literal block, as operators write PEM."""

    __slots__ = ()


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes blocks as `|`, with libyaml, where PyYAML has it, in a tenth of the time."""


_Dumper.add_representer(
    _Block,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|"),
)


def manifest(
    ipsec: Sequence[str] = ("10.0.0.0/16",),
    no_ipsec: Sequence[str] | None = (),
    *,
    leaf: Issued | Forged,
    cas: Sequence[Issued | Forged],
    behind: Sequence[Issued | Forged] = (),
    agent: Mapping[str, Any] | None = None,
    form: str = "runtime",
    **extra: Any,
) -> str:
    """A manifest; form is runtime (as the guide), job, properties or rendered."""
    properties: dict[str, Any] = {
        "ipsec_subnets": list(ipsec),
        "no_ipsec_subnets": None if no_ipsec is None else list(no_ipsec),
        "instance_certificate": _Block("".join(one.cert_pem for one in (leaf, *behind))),
        "instance_private_key": _Block(leaf.key_pem),
        "ca_certificates": [_Block(ca.cert_pem) for ca in cas],
        **extra,
    }
    tree = _wrapped(properties, form)
    if agent:
        tree["agent"] = dict(agent)
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def _wrapped(properties: dict[str, Any], form: str) -> dict[str, Any]:
    job: dict[str, Any] = {"name": "ipsec", "release": "ipsec"}
    if form == "rendered":
        return {"ipsec": properties}
    if form == "properties":
        return {"properties": {"ipsec": properties}}
    addon: dict[str, Any] = {"name": "ipsec-addon", "jobs": [job]}
    (job if form == "job" else addon)["properties"] = {"ipsec": properties}
    return {"releases": [{"name": "ipsec", "version": "1.0.0"}], "addons": [addon]}
