"""The job's templates: a rendered config means what the manifest means."""

import json
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest
import yaml

from ipsec_agent.core.config import Config
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.verbs.plan import document
from tests.bosh.job import SPEC, given, render
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest

CA = make_ca("CA")
LEAF = make_leaf(CA, "VMs")
LISTS: dict[str, Any] = {"ipsec": ("10.0.1.1/20",), "no_ipsec": ("10.0.1.10/32", "10.0.1.4/32")}
"""As the guide has them."""

MANIFESTS = {
    "the guide's": manifest(**LISTS, leaf=LEAF, cas=[CA], prestart_timeout=30),
    "of the job": manifest(**LISTS, leaf=LEAF, cas=[CA], form="job"),
    "with everything": manifest(
        **LISTS,
        leaf=LEAF,
        cas=[CA, make_ca("next CA")],
        optional=True,
        stop_timeout=12.5,
        esp_proposals="aes256gcm16!",
        ike_proposals=["aes256gcm16-prfsha384-ecp384!"],
        force_udp_encapsulation=True,
        log_level=-1,
        instance_certificate_info_period=60,
    ),
}
OURS = {
    "program": "/var/vcap/packages/strongswan/libexec/ipsec/charon",
    "log": "/var/vcap/sys/log/ipsec/charon.log",
}


def config_of(text: str) -> Config:
    """What the agent makes of a file, without a complaint."""
    parsed = parse(text, file="f", now=datetime.now(UTC))
    assert parsed.complaints == ()
    assert parsed.config is not None
    return parsed.config


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS)
def test_the_same_meaning(text: str) -> None:
    """The agent makes the same config of both, but for the places of this release."""
    rendered = render(given(text))
    assert rendered.errors == ()

    ours, manifests = config_of(rendered.files["config/ipsec.yml"]), config_of(text)

    for field in Config.__struct_fields__:
        if field != "agent":
            assert getattr(ours, field) == getattr(manifests, field), field
    assert {"program": ours.agent.charon.program, "log": ours.agent.charon.log} == OURS
    for to in ("10.0.9.9", "10.0.1.10", "192.0.2.1"):
        own, other = ip_address("10.0.1.7"), ip_address(to)
        assert document(ours, own, other) == document(manifests, own, other)


def test_the_node_section() -> None:
    """Properties of `agent` arrive, beside the places of this release."""
    tree = yaml.safe_load(MANIFESTS["the guide's"])
    settings = {"plugins": {"kernel-netlink": {"buflen": 16384}}}
    section: dict[str, Any] = {
        "address": "10.0.1.7",
        "interface": "eth0",
        "uplinks": ["eth1"],
        "inside": ["br-jobs"],
        "outside": "clear",
        "guard": "none",
        "mtu": "fix",
        "interval": 20,
        "metrics": "127.0.0.1:9815",
        "proof": 60,
        "charon": {"plugins": ["openssl", "vici"], "settings": settings},
    }
    tree["addons"][0]["properties"]["agent"] = section
    text = yaml.safe_dump(tree)

    rendered = yaml.safe_load(render(given(text)).files["config/ipsec.yml"])

    assert rendered["agent"] == {**section, "charon": {**OURS, **section["charon"]}}
    ours, manifests = config_of(yaml.safe_dump(rendered)).agent, config_of(text).agent
    for field in section.keys() - {"charon"}:
        assert getattr(ours, field) == getattr(manifests, field), field


def test_a_variable_of_type_certificate() -> None:
    """A map arrives as a map; of a CA's the key stays with the director."""
    whole = {"ca": CA.cert_pem, "certificate": LEAF.cert_pem, "private_key": LEAF.key_pem}
    authority = {"ca": CA.cert_pem, "certificate": CA.cert_pem, "private_key": CA.key_pem}
    properties = {
        "ipsec": {
            "ipsec_subnets": ["10.0.0.0/16"],
            "instance_certificate": whole,
            "ca_certificates": [authority],
        }
    }

    text = render(properties).files["config/ipsec.yml"]

    assert yaml.safe_load(text)["ipsec"]["instance_certificate"] == whole
    assert "".join(CA.key_pem.split()[4:6]) not in "".join(text.split())
    assert [facts.role for facts in config_of(text).certificates] == ["instance", "authority"]


@pytest.mark.parametrize("cas", [CA.cert_pem, {"ca": CA.cert_pem}], ids=["text", "map"])
def test_the_missing_dash(cas: Any) -> None:
    """Where a director checks no schema, the template says what the guide's error means."""
    properties = given(MANIFESTS["the guide's"])
    properties["ipsec"]["ca_certificates"] = cas

    rendered = render(properties)

    (error,) = rendered.errors
    assert "ipsec.yml.erb' (line " in error
    assert "ca_certificates must be a list, not " in error
    assert 'write "- |" on a line of its own below ca_certificates' in error
    assert "BEGIN" not in error


def test_unset_properties_are_left_out() -> None:
    """What has no default and was not given is not in the file."""
    written = yaml.safe_load(render({}).files["config/ipsec.yml"])

    defaults = {
        name.removeprefix("ipsec.")
        for name, about in SPEC["properties"].items()
        if name.startswith("ipsec.") and "default" in about
    }
    assert written["ipsec"].keys() == defaults


def test_only_the_config_has_secrets() -> None:
    """No other file has anything of a key or a certificate."""
    files = render(given(MANIFESTS["with everything"])).files

    assert [name for name, text in files.items() if "BEGIN" in text] == ["config/ipsec.yml"]


@pytest.mark.parametrize(
    ("prestart", "monit"), [(30, 60), (0.5, 31), ("soon", 60)], ids=["30", "half", "text"]
)
def test_seconds(prestart: Any, monit: int) -> None:
    """monit waits longer than the start may take; a text is left to the agent's check."""
    properties = given(MANIFESTS["the guide's"])
    properties["ipsec"]["prestart_timeout"] = prestart

    files = render(properties).files

    assert f"prestart_timeout={monit - 30}\n" in files["config/settings.sh"]
    assert f'/bin/ctl start" with timeout {monit} seconds' in files["monit"]


def test_spec_is_json_too() -> None:
    """Every example and default is plain data, as a director stores it."""
    assert json.loads(json.dumps(SPEC)) == SPEC
