"""The job's spec, its schema and its monit file: complete, and what each mistake is told."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from ipsec_agent.core.config import ExpiryPeriods
from ipsec_agent.core.manifest.agent_section import AGENT_KEYS, CHARON_KEYS
from ipsec_agent.core.manifest.parser import PERIODS, PROPERTIES
from tests.bosh.job import JOB, SCHEMA, SPEC, given, render
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest

CA = make_ca("CA")
LEAF = make_leaf(CA, "VMs")
PLACES = {"run_dir", "state_dir", "vici_socket"}
"""The shipped units know only the defaults."""

SET_BY_THE_JOB = {"program", "library_path", "log"}
DEFAULTS = {
    "prestart_timeout": 30,
    "stop_timeout": 30,
    "optional_warn_interval": 1,
    "log_level": 1,
    **{f"instance_certificate_{one}_period": getattr(ExpiryPeriods(), one) for one in PERIODS},
}


def at(tree: Any, path: str) -> Any:
    """A value by its dotted name."""
    for name in path.split("."):
        tree = tree[name]
    return tree


def bound(properties: dict[str, Any]) -> dict[str, Any]:
    """The properties as a director gives them to the schema: each of the spec, null where unset."""
    tree: dict[str, Any] = {}
    for path, about in SPEC["properties"].items():
        *above, last = path.split(".")
        source: Any = properties
        place = tree
        for name in above:
            place = place.setdefault(name, {})
            source = source.get(name, {}) if isinstance(source, dict) else {}
        value = source.get(last) if isinstance(source, dict) else None
        place[last] = about.get("default") if value is None else value
    return tree


def told(properties: Any) -> list[str]:
    """What a director says: of each mistake the sentence beside it."""
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(properties)
    return [one for error in errors for one in sentences(error)]


def sentences(error: jsonschema.ValidationError) -> Iterator[str]:
    """Our sentence of an error, and of those that it is made of."""
    for one in error.context or [error]:
        assert isinstance(one.schema, dict)
        yield one.schema.get("x-error", f"no sentence: {one.message[:60]}")


def good() -> dict[str, Any]:
    """Properties as in the guide."""
    return given(manifest(("10.0.1.1/20",), ("10.0.1.10/32",), leaf=LEAF, cas=[CA]))


def test_every_property() -> None:
    """The spec has each key that the agent understands, and no other."""
    wanted = {f"ipsec.{name}" for name in PROPERTIES}
    wanted |= {f"agent.{name}" for name in AGENT_KEYS - PLACES - {"charon"}}
    wanted |= {f"agent.charon.{name}" for name in CHARON_KEYS - SET_BY_THE_JOB}
    assert SPEC["properties"].keys() == wanted
    for name, about in SPEC["properties"].items():
        assert about["description"], name
        assert "example" in about, name


def test_the_schema_has_every_property() -> None:
    """And no other."""

    def names(schema: dict[str, Any], above: str) -> Iterator[str]:
        for name, inner in schema["properties"].items():
            if "properties" in inner:
                yield from names(inner, f"{above}{name}.")
            else:
                yield f"{above}{name}"

    assert set(names(SCHEMA, "")) == SPEC["properties"].keys()


def test_defaults_are_the_agents() -> None:
    """A property that is left out means the same in both."""
    text = manifest(("10.0.1.1/20",), leaf=LEAF, cas=[CA])
    unset = {"ipsec": yaml.safe_load(text)["addons"][0]["properties"]["ipsec"]}
    rendered = yaml.safe_load(render(unset).files["config/ipsec.yml"])
    for name, value in DEFAULTS.items():
        assert SPEC["properties"][f"ipsec.{name}"]["default"] == value
        assert rendered["ipsec"][name] == value


def test_good_properties() -> None:
    """The guide's, and each example of the spec beside them, pass."""
    assert told(bound(good())) == []
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for path, about in SPEC["properties"].items():
        if "((" not in str(about["example"]):
            properties = bound(good())
            *above, last = path.split(".")
            at(properties, ".".join(above))[last] = about["example"]
            assert told(properties) == [], path


def test_ruby_binds_them_so() -> None:
    """The renderer's properties are those that the schema is given here."""
    assert render(good()).properties == bound(good())


def test_a_variable_of_type_certificate() -> None:
    """A map stands for all three; one without a key or a CA does not."""
    whole = {"certificate": LEAF.cert_pem, "private_key": LEAF.key_pem, "ca": CA.cert_pem}
    properties = {"ipsec": {"ipsec_subnets": ["10.0.0.0/16"], "instance_certificate": whole}}
    assert told(bound(properties)) == []
    properties["ipsec"]["instance_certificate"] = {"certificate": LEAF.cert_pem}
    missing = told(bound(properties))
    assert [one.split(";")[0] for one in missing] == [
        "ipsec.instance_private_key is missing",
        "ipsec.ca_certificates is missing",
    ]


@pytest.mark.parametrize("written", ["10.0.1.0/255.255.240.0", "10.0.1.1", " fd00::/64 "])
def test_subnets_as_the_agent_takes_them(written: str) -> None:
    """What the agent understands passes the director, too."""
    properties = bound(good())
    for name in ("ipsec_subnets", "no_ipsec_subnets"):
        properties["ipsec"][name] = [written]
        assert told(properties) == []


WRONG: dict[str, list[Any]] = {
    "ipsec.ipsec_subnets": [None, [], "10.0.0.0/16", ["10.0.0.0/16", "all"], [10]],
    "ipsec.no_ipsec_subnets": ["10.0.1.1", ["the director"]],
    "ipsec.instance_certificate": [
        *(None, "", "certificate", ["-----BEGIN CERTIFICATE-----"]),
        {"private_key": LEAF.key_pem, "ca": CA.cert_pem},
    ],
    "ipsec.instance_private_key": [None, "key", {"private_key": "x"}],
    "ipsec.ca_certificates": [None, [], CA.cert_pem, {"ca": CA.cert_pem}, ["none"], [1]],
    "ipsec.prestart_timeout": ["30", 0, 3601, True],
    "ipsec.stop_timeout": ["30", -1],
    "ipsec.optional": ["true", 1],
    "ipsec.optional_warn_interval": ["1"],
    "ipsec.esp_proposals": [5, [5]],
    "ipsec.ike_proposals": [{}, [None]],
    "ipsec.force_udp_encapsulation": ["no"],
    "ipsec.log_level": [5, 1.5, "1"],
    **{f"ipsec.instance_certificate_{one}_period": [-1, "30", 2.5] for one in PERIODS},
    "agent.address": [10],
    "agent.interface": [[]],
    "agent.uplinks": [{}, [1]],
    "agent.inside": [1, [None]],
    "agent.outside": ["open", True],
    "agent.guard": ["off"],
    "agent.mtu": [1400],
    "agent.interval": [0, "10"],
    "agent.proof": [-1, "60", 86_401, 0.5, 9],
    "agent.metrics": [9815, "127.0.0.1", "localhost:9815", "127.0.0.1:80"],
    "agent.charon.plugins": [1, [1]],
    "agent.charon.settings": ["a: b", []],
}


@pytest.mark.parametrize("path", WRONG)
def test_each_mistake_has_its_sentence(path: str) -> None:
    """It names the property, says what is wrong and what to write, and shows no value."""
    for value in WRONG[path]:
        properties = bound(good())
        *above, last = path.split(".")
        at(properties, ".".join(above))[last] = copy.deepcopy(value)

        said = told(properties)

        assert said, f"{path}: {value}"
        for sentence in said:
            assert re.match(rf"(an item of )?{re.escape(path)} (must|is) ", sentence), sentence
            assert re.search(r"; (write,?|list) ", sentence), sentence


def test_no_mistake_without_a_sentence() -> None:
    """Every property that can be wrong has one above; those of later add-ons cannot be."""
    assert WRONG.keys() == SPEC["properties"].keys() - {"ipsec.ike_version", "ipsec.dpdaction"}


def test_the_missing_dash() -> None:
    """The guide's error is explained before anything is rendered."""
    properties = good()
    properties["ipsec"]["ca_certificates"] = CA.cert_pem
    (sentence,) = told(bound(properties))
    assert 'write "- |" on a line of its own below ca_certificates' in sentence
    assert "undefined method 'each_with_index'" in sentence


@pytest.mark.parametrize("name", ["ipsec", "agent", "agent.charon"])
def test_no_mapping(name: str) -> None:
    """A section that is a text is told as such."""
    properties = bound(good())
    *above, last = name.split(".")
    (at(properties, ".".join(above)) if above else properties)[last] = "text"
    (sentence,) = told(properties)
    assert sentence.startswith(f"{name} must be a mapping")


def test_every_file_is_there() -> None:
    """Each template that the spec names exists, and no other; none is rendered twice."""
    there = {path.name for path in (JOB / "templates").iterdir()}
    assert there == SPEC["templates"].keys()
    targets = list(SPEC["templates"].values())
    assert len(targets) == len(set(targets))
    assert {path.name for path in JOB.iterdir()} == {
        *("spec", "monit", "templates", "properties_schema.json"),
    }
    for package in SPEC["packages"]:
        assert (JOB.parents[1] / "packages" / package / "spec").is_file()


MONIT_LINES = re.compile(
    r"check process [a-z-]+ with pidfile /\S+"
    r"|  group [a-z]+"
    r'|  (start|stop) program = "/[^"]+" with timeout [1-9]\d* seconds'
    r"|  if does not exist( for \d+ cycles)? then (start|alert)"
    r"|  if failed unixsocket /\S+"
    r"|    (send|expect) '[^']{1,255}'"
    r"|    with timeout \d+ seconds"
    r"|    for \d+ cycles"
    r"|  then (alert|exec \"[^\"]+\")"
)
"""What monit 5.2.5 was seen to take; it has no `check program`, `onreboot` or `restart program`."""


def test_monit() -> None:
    """The monit file has only what 5.2.5 takes, in the group that BOSH starts and stops."""
    text = render(good()).files["monit"]
    for line in text.splitlines():
        assert MONIT_LINES.fullmatch(line), line
    assert text.startswith("check process ipsec with pidfile /run/ipsec-agent/agent.pid\n")
    assert text.count("check process") == text.count("  group vcap\n") == 1
    assert "if does not exist then start" in text, "the default would call stop, and end IPsec"
