"""Values as BOSH, CredHub and editors leave them: variables, maps, empty items, PEM on one line."""

import base64
import json
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from ipsec_agent.core.config import MtuMode, Outside
from ipsec_agent.core.manifest import pem_text, surroundings, variables
from ipsec_agent.core.manifest.complaint import Complaints
from ipsec_agent.core.manifest.parser import Parsed, parse
from ipsec_agent.core.manifest.yaml_lines import Entry
from tests.certificates import Issued, ec_key, make_ca, make_leaf
from tests.manifests import manifest

ROOT = make_ca("Root", key=ec_key(1))
VM = make_leaf(ROOT, key=ec_key(2))
OTHER = make_leaf(ROOT, key=ec_key(3))
MIDDLE = make_ca("Middle", key=ec_key(4), issuer=ROOT)
BELOW = make_leaf(MIDDLE, key=ec_key(2))
FILL_IN = (
    "was not filled in; check the file with its values: `bosh interpolate FILE --vars-file VARS`,"
    " or `credhub interpolate -f FILE`"
)


def text(**changes: Any) -> str:
    """A manifest that is accepted, but for the changes."""
    return manifest(**{"leaf": VM, "cas": [ROOT], "form": "rendered", **changes})


def read(written: str) -> Parsed:
    """What is made of a text."""
    return parse(written, file="f", now=datetime.now(UTC))


def said(written: str) -> list[str]:
    """The complaints about a text, without file and line; the line is that of the key."""
    parsed = read(written)
    assert (parsed.config is None) == any(one.severity == "error" for one in parsed.complaints)
    assert all(one.line for one in parsed.complaints)
    for issued in (ROOT, VM, OTHER, MIDDLE):
        secret = issued.key_pem.splitlines()[1]
        assert not any(secret[:20] in str(one) for one in parsed.complaints)
    return [str(one).partition(": ")[2].removeprefix("warning: ") for one in parsed.complaints]


# --- variables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "ipsec_subnets",
        "no_ipsec_subnets",
        "instance_certificate",
        "instance_private_key",
        "ca_certificates",
        "prestart_timeout",
        "optional",
        "esp_proposals",
        "log_level",
        "dpdaction",
    ],
)
@pytest.mark.parametrize("name", ["((a))", "((a.b))", "((/dir/dep/a-b_c.ca))", "((!a))"])
def test_a_variable(key: str, name: str) -> None:
    """Wherever it is, it is named, and nothing else is said of it."""
    assert said(text(**{key: name})) == [f"ipsec.{key}: {name} {FILL_IN}"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"ca_certificates": ["((a.ca))", MIDDLE.cert_pem]},
            ["ipsec.ca_certificates[0]: ((a.ca)) "],
        ),
        ({"ca_certificates": [ROOT.cert_pem, "((a))"]}, ["ipsec.ca_certificates[1]: ((a)) "]),
        ({"ipsec": ["10.0.0.0/9", "((a))"]}, ["ipsec.ipsec_subnets[1]: ((a)) "]),
        ({"ipsec": ["((a))/24"]}, ["ipsec.ipsec_subnets[0]: ((a)) "]),
        (
            {"instance_certificate": "((a))((b.c))"},
            ["ipsec.instance_certificate: ((a)) and ((b.c)) were not filled in"],
        ),
        (
            {"esp_proposals": ["((p))", "des"]},
            ["ipsec.esp_proposals: 'des': ", "ipsec.esp_proposals[0]: ((p)) "],
        ),
        (
            {"instance_certificate": "((a b))"},
            ["ipsec.instance_certificate: ((…)) was not filled in; a name has letters, digits"],
        ),
        (
            {"instance_certificate": "<%= p('a') %>"},
            ["ipsec.instance_certificate: <%= … %> was not filled in; check the file that BOSH"],
        ),
        (
            {"instance_certificate": VM.cert_pem.replace("\n", "\n((a))\n", 1)},
            ["ipsec.instance_certificate: ((a)) "],
        ),
        (
            {
                "agent": {
                    "address": "((a))",
                    "uplinks": ["((b))", "eth0"],
                    "charon": {"settings": {"threads": "((c))"}},
                }
            },
            [
                "agent.address: ((a)) ",
                "agent.charon.settings.threads: ((c)) ",
                "agent.uplinks[0]: ((b)) ",
            ],
        ),
        ({"agent": "((a))"}, ["agent: ((a)) "]),
        (
            {"instance_certificate": "{{a.certificate}}", "ipsec": ["${NET}", "${a b}"]},
            [
                "ipsec.instance_certificate: {{a.certificate}} was not filled in; it is not",
                "ipsec.ipsec_subnets[0]: ${NET} was not filled in; it is not a variable of BOSH",
                "ipsec.ipsec_subnets[1]: ${…} was not filled in; it is not a variable of BOSH",
            ],
        ),
        ({"instance_certificate": "(a)"}, ["ipsec.instance_certificate: is not PEM"]),
    ],
)
def test_variables(changes: dict[str, Any], expected: list[str]) -> None:
    """In lists, beside other text, in the node section; the rest is judged."""
    agent = changes.pop("agent", None)
    tree = yaml.safe_load(text(**changes))
    written = yaml.safe_dump(tree | ({"agent": agent} if agent else {}))

    found = said(written)

    assert len(found) == len(expected)
    assert all(one in found[at] for at, one in enumerate(expected)), found


def test_braces_without_quotes() -> None:
    """`{{name}}` is a mapping to YAML, and a variable to people; other mappings are none."""
    tree = yaml.safe_load(text())
    del tree["ipsec"]["instance_certificate"]
    rest = yaml.safe_dump(tree)

    (found,) = said(f"{rest}  instance_certificate: {{{{vm.certificate}}}}\n")
    assert found.startswith("ipsec.instance_certificate: {{vm.certificate}} was not filled in; it")
    assert "the map has no certificate" in "".join(
        said(f"{rest}  instance_certificate: {{vm: {{a: b}}}}\n")
    )


@pytest.mark.parametrize(
    "place", ["ipsec", "properties", "properties.ipsec", "addons", "jobs", "addon"]
)
def test_a_variable_for_a_whole_section(place: str) -> None:
    """A section that a variable should give is named, and the config is not called empty."""
    tree: dict[str, Any] = {"addons": [{"name": "a", "jobs": [{"name": "ipsec"}]}]}
    if place == "addon":
        tree["addons"][0]["properties"] = "((a))"
    elif place == "jobs":
        tree["addons"][0] |= {"jobs": "((a))", "properties": {"ipsec": {"optional": False}}}
    elif place == "properties.ipsec":
        tree = {"properties": {"ipsec": "((a))"}}
    else:
        tree = {place: "((a))"}

    first, *_ = said(yaml.safe_dump(tree))

    assert f"((a)) {FILL_IN}" in first


def test_a_key_within_parentheses() -> None:
    """What is long enough for a line of a key is not shown, though a path may be long."""
    line = "M" * 64
    path = "/director/service-instance_0a1b2c3d-0000-1111-2222-333344445555/ipsec_cert.certificate"

    assert line not in "".join(said(text(instance_private_key=f"(({line}))")))
    assert f"(({path})) " in said(text(instance_private_key=f"(({path}))"))[0]


@pytest.mark.parametrize("part", ["\\", "\\r", "<%", "((", "((a", "/", "$ ", "a: ", "\x1b["])
def test_a_long_text_takes_no_time(part: str) -> None:
    """No pattern is slow on a megabyte."""
    long = "-----BEGIN " + part * (1_000_000 // len(part))
    entry, complaints = Entry(1, value=long), Complaints("f")
    began = time.process_time()

    variables.voided(entry, "", complaints)
    pem_text.mended(entry, "", "", complaints)
    surroundings.foreign(f"{long}\nipsec:\n{long}")
    surroundings.coloured(long)

    assert time.process_time() - began < 3


# --- CredHub's maps ---------------------------------------------------------------------------


def of_credhub(issued: Issued, **changes: Any) -> dict[str, Any]:
    """A variable of type certificate, signed by ROOT."""
    parts = {"ca": ROOT.cert_pem, "certificate": issued.cert_pem, "private_key": issued.key_pem}
    return parts | changes


NOTHING = {"instance_private_key": None, "ca_certificates": None}


def test_a_map_alone() -> None:
    """The map of the instance's certificate gives all three."""
    plain = read(text()).config
    config = read(text(instance_certificate=of_credhub(VM), **NOTHING)).config

    assert said(text(instance_certificate=of_credhub(VM), **NOTHING)) == []
    assert config is not None
    assert plain is not None
    assert (config.certificate, config.credentials) == (plain.certificate, plain.credentials)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"ca_certificates": []}, []),
        ({"ca_certificates": [of_credhub(VM)]}, []),
        ({"ca_certificates": [of_credhub(VM, private_key=None)]}, []),
        (
            {"instance_private_key": OTHER.key_pem},
            [
                "ipsec.instance_private_key: it is another key than private_key of"
                " instance_certificate (line 44); delete instance_private_key: the map has the key"
                " of its certificate"
            ],
        ),
        (
            {"instance_certificate": of_credhub(VM, ca=None), "ca_certificates": None},
            ["ipsec.ca_certificates: is missing; list the CA that signed the certificate"],
        ),
        (
            {"instance_certificate": of_credhub(VM, ca=""), "ca_certificates": None},
            ["ipsec.ca_certificates: is missing; list the CA that signed the certificate"],
        ),
        ({"instance_private_key": ""}, []),
        (
            {"instance_certificate": json.dumps(of_credhub(VM)), **NOTHING},
            ["ipsec.instance_certificate: is a map within quotes; remove the quotes around it"],
        ),
        (
            {"instance_certificate": "((vm))", **NOTHING},
            [f"ipsec.instance_certificate: ((vm)) {FILL_IN}"],
        ),
        (
            {"instance_certificate": of_credhub(VM, private_key=None), **NOTHING},
            [
                "ipsec.instance_private_key: is missing; write `instance_private_key: |` and the"
                " PEM indented below it"
            ],
        ),
        (
            {"instance_certificate": of_credhub(VM, certificate=None)},
            [
                "ipsec.instance_certificate: the map has no certificate; write `certificate: |`"
                " below it"
            ],
        ),
        (
            {"instance_certificate": of_credhub(VM, certificat="x", y=1)},
            [
                "ipsec.instance_certificate.certificat: unknown key; did you mean certificate?",
                "ipsec.instance_certificate.y: unknown key; it is ignored",
            ],
        ),
        (
            {"instance_certificate": {"name": "/a/vm", "value": of_credhub(VM)}},
            [
                "ipsec.instance_certificate: this is all that `credhub get` says; write only what"
                " is below `value:`, in place of `value:`"
            ],
        ),
        (
            {"instance_certificate": of_credhub(VM, certificate="x")},
            [
                "ipsec.instance_certificate.certificate: is not PEM; start it with"
                " -----BEGIN CERTIFICATE----- on a line of its own"
            ],
        ),
        (
            {"instance_certificate": of_credhub(VM, private_key="((k.private_key))"), **NOTHING},
            [f"ipsec.instance_certificate.private_key: ((k.private_key)) {FILL_IN}"],
        ),
        (
            {"instance_private_key": of_credhub(VM)},
            [
                "ipsec.instance_private_key: must be the key's PEM, not a map; write"
                " `((name.private_key))`"
            ],
        ),
    ],
)
def test_a_map_of_the_instance(changes: dict[str, Any], expected: list[str]) -> None:
    """Its parts, beside the properties of their own."""
    assert said(text(**{"instance_certificate": of_credhub(VM), **changes})) == expected


def test_a_map_that_is_a_text() -> None:
    """Below `|` it is one; nothing is said of what it would give."""
    written = text(instance_certificate=None, instance_private_key=None, ca_certificates=None)
    rest = written.replace("  instance_certificate: null\n", "")
    below = textwrap.indent(yaml.safe_dump(of_credhub(VM), default_style="|"), "    ")
    assert said(f"{rest}  instance_certificate: |\n{below}") == [
        "ipsec.instance_certificate: is a map below `|`, which makes a text of it; remove the `|`"
    ]


def test_a_part_of_a_variable() -> None:
    """What gives only the certificate gives neither the key nor a CA."""
    found = said(text(instance_certificate="((vm.certificate))", **NOTHING))
    assert {one.partition(":")[0] for one in found} == {
        "ipsec.instance_private_key",
        "ipsec.ca_certificates",
        "ipsec.instance_certificate",
    }


def test_a_list_that_is_an_escaped_text() -> None:
    """Of what should be a list it is said how an item is written, not how a text is."""
    found = said(text(ca_certificates=ROOT.cert_pem.replace("\n", "\\n")))
    assert "must be a list, not one string" in " ".join(found)
    assert all("`ca_certificates: |`" not in one for one in found)


def test_the_same_key_in_two_forms() -> None:
    """A separate key that is the map's own, written otherwise, is no other key."""
    older = VM.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()

    assert older != VM.key_pem
    assert said(text(instance_certificate=of_credhub(VM), instance_private_key=older)) == []


LEAK = "this would put the private key of the CA CN=Root on every VM; write"


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([of_credhub(ROOT)], [f"ipsec.ca_certificates[0]: {LEAK} `((name.certificate))`"]),
        (of_credhub(ROOT), [f"ipsec.ca_certificates: {LEAK} `- ((name.certificate))`"]),
        ([of_credhub(ROOT, private_key=None)], []),
        ([of_credhub(VM)], []),
        (of_credhub(VM), ["ipsec.ca_certificates: must be a list; write `- ((name.ca))`"]),
        (
            [of_credhub(OTHER)],
            [
                "ipsec.ca_certificates[0]: this puts a private key that is not needed on every VM;"
                " write `((name.ca))`"
            ],
        ),
        (
            [of_credhub(VM, ca=None)],
            ["ipsec.ca_certificates[0]: the map has no CA; write the CA's PEM in its place"],
        ),
        (
            [ROOT.cert_pem + ROOT.key_pem],
            [
                "ipsec.ca_certificates[0]: contains a private key; remove it: a VM's key belongs in"
                " instance_private_key only, a CA's key on no VM"
            ],
        ),
    ],
)
def test_a_map_in_the_list_of_cas(listed: Any, expected: list[str]) -> None:
    """It gives its CA; the map of a CA with its key is refused."""
    assert said(text(ca_certificates=listed)) == expected


def test_the_map_of_an_intermediate() -> None:
    """It is refused for its key, and the rest is judged as if only its certificate were there."""
    (found,) = said(text(leaf=BELOW, ca_certificates=[ROOT.cert_pem, of_credhub(MIDDLE)]))

    assert "the private key of the CA CN=Middle on every VM" in found


# --- empty items, and PEM that is none ---------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"ipsec": [None]},
            "ipsec.ipsec_subnets[0]: is empty; delete this dash, or write a subnet",
        ),
        ({"no_ipsec": [None]}, "ipsec.no_ipsec_subnets[0]: is empty; delete this dash"),
        ({"ca_certificates": [None]}, "ipsec.ca_certificates[0]: is empty; delete this dash, or"),
        ({"esp_proposals": [None]}, "ipsec.esp_proposals[0]: is empty; delete this dash, or write"),
        (
            {"esp_proposals": [7]},
            "ipsec.esp_proposals[0]: must be a string; write esp_proposals: [",
        ),
        (
            {"esp_proposals": {"one": 1}},
            "ipsec.esp_proposals: must be a list or a text; write esp_proposals: [",
        ),
        (
            {"ipsec": [["10.0.0.0/8"]]},
            "ipsec.ipsec_subnets[0]: must be a subnet, not a list; write",
        ),
        ({"ipsec_subnets": None}, "ipsec.ipsec_subnets: must list at least one subnet"),
        ({"instance_certificate": None}, "ipsec.instance_certificate: is missing"),
        ({"instance_private_key": None}, "ipsec.instance_private_key: is missing"),
        ({"ca_certificates": None}, "ipsec.ca_certificates: is missing"),
        (
            {"ca_certificates": [[ROOT.cert_pem]]},
            'ipsec.ca_certificates[0]: must be a string; write "',
        ),
        (
            {"instance_certificate": [VM.cert_pem]},
            "ipsec.instance_certificate: must not be a list; write `instance_certificate: |` and",
        ),
        ({"instance_certificate": "/a/vm"}, "ipsec.instance_certificate: is the path of a file"),
        ({"instance_private_key": "@vm.key"}, "ipsec.instance_private_key: is the path of a file"),
        ({"instance_private_key": "file:vm.key"}, "ipsec.instance_private_key: is the path of a"),
        (
            {"instance_certificate": json.dumps({"certificate": VM.cert_pem})},
            "ipsec.instance_certificate: is a map within quotes; remove the quotes around it",
        ),
        ({"instance_private_key": "vm.key"}, "ipsec.instance_private_key: is the path of a file"),
        (
            {"instance_private_key": base64.b64encode(VM.key_pem.encode()).decode()},
            "ipsec.instance_private_key: is the base64 of a PEM; decode it with `base64 -d`, and",
        ),
        ({"ca_certificates": ["./ca.pem"]}, "ipsec.ca_certificates[0]: is the path of a file"),
    ],
)
def test_what_is_not_there(changes: dict[str, Any], expected: str) -> None:
    """An empty item, a list or a path in the place of a text: one complaint, with its key."""
    (found,) = said(text(**changes))

    assert found.startswith(expected)


@pytest.mark.parametrize(
    "key",
    [
        "no_ipsec_subnets",
        "prestart_timeout",
        "optional",
        "esp_proposals",
        "log_level",
        "ike_version",
    ],
)
@pytest.mark.parametrize("nothing", ["null", "~", ""])
def test_an_empty_value(key: str, nothing: str) -> None:
    """BOSH renders a property that is not set as null: it is as if it were absent."""
    written = yaml.safe_load(text())
    written["ipsec"].pop(key, None)

    assert said(yaml.safe_dump(written) + f"  {key}: {nothing}\n") == []


ONE_LINE = VM.cert_pem.replace("\n", "\\n")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            f"'{ONE_LINE}'",
            "single quotes keep each `\\n` as two characters; write double quotes in",
        ),
        (ONE_LINE, "without quotes each `\\n` stays two characters; write it in double quotes"),
        (f"|\n    {ONE_LINE}", "below `|` each `\\n` stays two characters; write a line break"),
        (f">-\n    {ONE_LINE}", "below `>` each `\\n` stays two characters; write a line break"),
        (
            '"' + ONE_LINE.replace("\\", "\\\\") + '"',
            "`\\\\n` in double quotes is a backslash and an n; write `\\n` with one backslash",
        ),
        (
            "'" + ONE_LINE.replace("\\n", "\\r\\n") + "'",
            "single quotes keep each `\\n` as two characters; write double quotes in their place",
        ),
        (
            "'" + ONE_LINE.replace("\\n", "\\u000a") + "'",
            "single quotes keep each `\\n` as two characters; write double quotes in their place",
        ),
        (
            "'" + ONE_LINE.replace("\\n", "%0D%0A") + "'",
            "`%0D%0A` is no line break to YAML; write the PEM indented below `instance_certificate",
        ),
        (
            ONE_LINE.replace("\\n", "&#10;"),
            "`&#10;` is no line break to YAML; write the PEM indented below `instance_certificate",
        ),
    ],
)
def test_line_breaks_of_two_characters(written: str, expected: str) -> None:
    """The quotes that keep them are named, and the certificate is judged all the same."""
    tree = yaml.safe_load(text())
    del tree["ipsec"]["instance_certificate"]
    rest = yaml.safe_dump(tree)

    (found,) = said(f"{rest}  instance_certificate: {written}\n")

    assert found.startswith(f"ipsec.instance_certificate: {expected}")


@pytest.mark.parametrize(
    "written",
    [
        f'"{ONE_LINE}"',
        '"' + ONE_LINE.replace("\\n", "\\r\\n") + '"',
        ">\n" + "".join(f"    {line}\n" for line in VM.cert_pem.splitlines()),
        "|\n    subject=CN = VM\n" + "".join(f"    {line}\n" for line in VM.cert_pem.splitlines()),
        "|\n" + "".join(f"      {line}\r\n" for line in VM.cert_pem.splitlines()),
    ],
)
def test_line_breaks_that_are_some(written: str) -> None:
    """Double quotes, a folded text, text around the PEM and Windows' line ends are all good."""
    tree = yaml.safe_load(text())
    del tree["ipsec"]["instance_certificate"]

    assert said(f"{yaml.safe_dump(tree)}  instance_certificate: {written}\n") == []


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"instance_private_key": VM.key_pem.replace("\n", "\\n")}, "instance_private_key"),
        ({"ca_certificates": [ROOT.cert_pem.replace("\n", "\\n")]}, "ca_certificates[0]"),
        (
            {"instance_certificate": of_credhub(VM, ca=ROOT.cert_pem.replace("\n", "\\n"))},
            "instance_certificate.ca",
        ),
    ],
)
def test_line_breaks_in_other_places(changes: dict[str, Any], key: str) -> None:
    """The key, an item of a list and a part of a map have the same complaint."""
    (found,) = said(text(**changes))

    assert found.startswith(f"ipsec.{key}: ")
    assert "each `\\n`" in found


def test_the_node_section_elsewhere() -> None:
    """`agent:` of the add-on itself is warned of: BOSH gives it to nobody."""
    tree = yaml.safe_load(text(form="runtime"))
    tree["addons"][0]["agent"] = {"address": "10.0.0.7"}

    assert said(yaml.safe_dump(tree)) == [
        "addons[0].agent: has no effect here; move it below `properties:`, beside `ipsec:`, or to"
        " the top level of the file"
    ]

    del tree["addons"][0]["agent"]
    tree["addons"][0]["jobs"][0]["agent"] = {"address": "10.0.0.7"}
    (found,) = said(yaml.safe_dump(tree))
    assert found.startswith("addons[0].jobs[0].agent: has no effect here; move it below")

    del tree["addons"][0]["jobs"][0]["agent"]
    tree["addons"][0]["properties"]["ipsec"]["agent"] = {"address": "10.0.0.7"}
    (found,) = said(yaml.safe_dump(tree))
    assert found.endswith("ipsec.agent: unknown key; move it out of `ipsec:`, beside it")


@pytest.mark.parametrize("of", ["add-on", "job"])
def test_the_node_section_as_bosh_gives_it(of: str) -> None:
    """Beside `ipsec:` it counts; of each key the file's outranks it."""
    tree = yaml.safe_load(text(form="runtime"))
    addon = tree["addons"][0]
    addon["properties"]["agent"] = {"outside": "clear", "mtu": "fix", "interval": 20}
    if of == "job":
        addon["jobs"][0]["properties"] = addon.pop("properties")
    tree["agent"] = {"interval": 40}

    found = parse(yaml.safe_dump(tree), file="f", now=datetime.now(UTC))

    assert found.complaints == ()
    assert found.config is not None
    agent = found.config.agent
    assert (agent.outside, agent.mtu, agent.interval) == (Outside.CLEAR, MtuMode.FIX, 40)


# --- several add-ons ---------------------------------------------------------------------------


def of_addons(change: Callable[[list[Any]], object], form: str = "runtime") -> str:
    """A runtime config with its list of add-ons changed."""
    tree = yaml.safe_load(text(form=form))
    change(tree["addons"])
    return yaml.safe_dump(tree, sort_keys=False)


DNS = {
    "name": "dns",
    "jobs": [{"name": "bosh-dns", "release": "dns", "properties": {"a": None}}],
    "properties": {"token": "((dns.token))"},
}


@pytest.mark.parametrize(
    "change",
    [
        lambda addons: addons.insert(0, DNS),
        lambda addons: addons.append(DNS),
        lambda addons: addons.append(None),
        lambda addons: addons.append({"name": "x", "jobs": None}),
        lambda addons: addons.append({"name": "x", "properties": {"ipsec": {"a": 1}}}),
        lambda addons: addons[0]["jobs"].insert(0, {"name": "other", "release": "o"}),
        lambda addons: addons[0].update(include={"stemcell": [{"os": "ubuntu-jammy"}]}),
    ],
)
def test_other_addons(change: Callable[[list[Any]], object]) -> None:
    """What other add-ons and other jobs have is none of ours, variables included."""
    assert said(of_addons(change)) == []


@pytest.mark.parametrize(
    ("form", "change", "expected"),
    [
        (
            "runtime",
            lambda addons: addons.append({"name": "b", "jobs": [{"name": "ipsec"}]}),
            "addons[1]: the job ipsec is in two add-ons, here and in line 5; keep the one that is"
            " for this VM, as its `include:` says: delete lines 64 to 66 or lines 5 to 63",
        ),
        (
            "runtime",
            lambda addons: addons[0]["jobs"].append({"name": "ipsec", "release": "ipsec"}),
            "addons[0].jobs[1]: the job ipsec is listed twice, here and in line 7; delete lines 9"
            " to 10; BOSH refuses a job twice",
        ),
        (
            "job",
            lambda addons: addons[0]["jobs"][0].update(name="IPsec"),
            "addons[0].jobs[0].name: the job must be named ipsec; write `- name: ipsec`",
        ),
        (
            "runtime",
            lambda addons: addons[0]["jobs"][0].update(name="IPsec"),
            "addons[0].jobs: no job of this add-on is named ipsec; write `- name: ipsec` and"
            " `release: ipsec` below `jobs:`; the name must stay ipsec",
        ),
        (
            "runtime",
            lambda addons: addons[0].update(jobs={"name": "ipsec"}),
            'addons[0].jobs: must be a list; write "- " before `name:` of the job',
        ),
        (
            "runtime",
            lambda addons: addons[0].update(jobs=["ipsec"]),
            "addons[0].jobs: no job of this add-on is named ipsec; write `- name: ipsec` and"
            " `release: ipsec` below `jobs:`; the name must stay ipsec",
        ),
    ],
)
def test_addons_and_jobs(form: str, change: Callable[[list[Any]], object], expected: str) -> None:
    """Two of ours, or one under another name: one complaint, and the properties are judged."""
    assert said(of_addons(change, form)) == [expected]


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ("Using environment '10.0.0.6' as admin\n\n{}", "`Using environment …`, which the BOSH"),
        ("{}\tx: 1\n", "not valid YAML: the line is indented with a tab"),
    ],
)
def test_pem_in_quotes_beside_another_mistake(broken: str, complaint: str) -> None:
    """As a program writes it, on many lines: nothing is wrong with it, and that is not said."""
    dumped = yaml.safe_dump(yaml.safe_load(text()))
    assert "'-----BEGIN" in dumped

    (told,) = said(broken.format(dumped))

    assert complaint in told
