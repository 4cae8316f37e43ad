"""Every form of the manifest, and each mistake with its exact message."""

import re
import textwrap
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsec_agent.core.config import GuardMode, Outside
from ipsec_agent.core.manifest.certificates import der
from ipsec_agent.core.manifest.parser import Parsed, parse
from ipsec_agent.core.strongswan_conf import SETTINGS
from tests.certificates import Issued, ec_key, key_pem, make_ca, make_leaf, rsa_key
from tests.examples import examples
from tests.manifests import manifest

NOW = datetime.now(UTC)


def read(text: str, now: datetime = NOW) -> Parsed:
    """Parse a text named ipsec.yml."""
    return parse(text, file="ipsec.yml", now=now)


def good(**changes: Any) -> str:
    """A manifest that is accepted, but for the changes."""
    ca = make_ca()
    return manifest(**{"leaf": make_leaf(ca), "cas": [ca], **changes})


def complaints(text: str, now: datetime = NOW) -> list[str]:
    """What is said of a text, without the line."""
    return [f"{item.key}: {item.message}; {item.remedy}" for item in read(text, now).complaints]


@pytest.mark.parametrize("form", ["runtime", "job", "properties", "rendered"])
def test_forms(form: str) -> None:
    """Each form says the same."""
    parsed = read(good(form=form))

    assert parsed.complaints == ()
    assert parsed.config is not None
    assert parsed.config.ipsec_subnets[0].network == ip_network("10.0.0.0/16")


def test_the_job_has_properties_of_its_own() -> None:
    """BOSH gives a job these alone, or the add-on's; it merges nothing."""
    tree = yaml.safe_load(good(prestart_timeout=40))
    addon = tree["addons"][0]
    addon["properties"]["agent"] = {"interval": 20}
    ours = {**addon["properties"]["ipsec"], "ca_certificates": None}
    addon["jobs"][0]["properties"] = {"ipsec": ours}

    complaints = [str(it) for it in read(yaml.safe_dump(tree, sort_keys=False)).complaints]

    for name in ("ipsec", "agent"):
        (found,) = [it for it in complaints if f": addons[0].properties.{name}: " in it]
        assert "has no effect: the job ipsec has `properties:` of its own (line " in found
    assert [it for it in complaints if "ca_certificates" in it and "missing" in it]
    ours["ca_certificates"] = addon["properties"]["ipsec"]["ca_certificates"]
    ours.pop("prestart_timeout")
    config = read(yaml.safe_dump(tree)).config
    assert config is not None
    assert (config.prestart_timeout, config.agent.interval) == (30, 10)


@pytest.mark.parametrize("own", [None, {}, {"agent": {"interval": 20}}])
def test_properties_of_the_job_without_ipsec(own: dict[str, Any] | None) -> None:
    """Also these are in place of the add-on's; nothing behind the colon is not."""
    tree = yaml.safe_load(good())
    tree["addons"][0]["jobs"][0]["properties"] = own

    parsed = read(yaml.safe_dump(tree))

    assert (parsed.config is not None) == (own is None)
    said = [str(it) for it in parsed.complaints]
    assert ["addons[0].properties.ipsec: has no effect" in it for it in said] == (
        [] if own is None else [True]
    )


def test_defaults() -> None:
    """The defaults follow the guide."""
    config = read(good()).config

    assert config is not None
    assert (config.prestart_timeout, config.stop_timeout, config.optional) == (30, 30, False)
    assert config.esp_proposals == ("aes128gcm16",)
    assert (config.expiry.info, config.expiry.critical) == (30, 3)
    assert config.agent.guard is GuardMode.ENFORCE
    assert config.agent.outside is Outside.ERROR


def test_agent_section() -> None:
    """The node section is read; settings of charon become dotted keys."""
    config = read(
        good(
            agent={
                "address": "10.0.0.7",
                "outside": "clear",
                "charon": {"log": "/x.log", "settings": {"plugins": {"a": {"b": True}}}},
            }
        )
    ).config

    assert config is not None
    assert config.agent.address == ip_address("10.0.0.7")
    assert config.agent.charon.settings == (("plugins.a.b", "yes"),)


@pytest.mark.parametrize("key", ["run_dir", "state_dir", "vici_socket"])
@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("/", False),
        ("//", False),
        ("/run", False),
        ("/run/", False),
        ("/etc", False),
        ("/usr", False),
        ("/usr/local/./lib", False),
        ("/tmp", False),
        ("/run/x/..", False),
        ("/../var//run", False),
        ("/proc/self", False),
        ("/run/ipsec", True),
        ("/ipsec", True),
        ("/etc/ipsec/run", True),
        ("/var/vcap/data/ipsec", True),
        ("/tmp/ipsec", True),
    ],
)
def test_directories_of_the_system(key: str, path: str, taken: bool) -> None:
    """The agent's files are in directories of its own: those of others are no place for them."""
    parsed = read(good(agent={key: path}))

    assert (parsed.config is not None) == taken
    if not taken:
        (found,) = complaints(good(agent={key: path}))
        assert found.startswith(f"agent.{key}: {path} belongs to the system; write, for example, ")
        assert read(good(agent={key: found.rpartition(": ")[2]})).config is not None


def test_logs_in_directories_of_the_system() -> None:
    """A file may be in one of them, and not be one."""
    assert read(good(agent={"charon": {"log": "/var/log/charon.log"}})).config is not None
    assert complaints(good(agent={"charon": {"log": "/var/log"}})) == [
        "agent.charon.log: /var/log belongs to the system; write, for example, log: journal"
    ]


def test_host_bits() -> None:
    """10.0.1.1/20, as in the guide, is accepted and normalised."""
    config = read(good(ipsec=["10.0.1.1/20"])).config

    assert config is not None
    assert config.ipsec_subnets[0].written == "10.0.1.1/20"
    assert config.ipsec_subnets[0].network == ip_network("10.0.0.0/20")


@pytest.mark.parametrize("key", ["ipsec_subnets", "no_ipsec_subnets"])
@pytest.mark.parametrize(
    ("written", "ipv4"),
    [
        ("::ffff:10.0.0.1/128", "10.0.0.1/32"),
        ("::ffff:a00:0/104", "10.0.0.0/8"),
        ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_ipv4_as_ipv6(key: str, written: str, ipv4: str) -> None:
    """It would be without effect in either list; one complaint names the form to write."""
    lists = {"ipsec": ["10.1.0.0/16"], key.removesuffix("_subnets"): [written]}

    assert complaints(good(form="rendered", **lists)) == [
        f"ipsec.{key}[0]: {written} is IPv4 written as IPv6; write {ipv4}"
    ]


@pytest.mark.parametrize("exempt", ["169.254.169.254/32", "fe80::/10", "127.0.0.0/8"])
def test_what_only_no_ipsec_may_have(exempt: str) -> None:
    """Addresses of no VM, such as the metadata service's, may be exempted, and not encrypted."""
    assert read(good(ipsec=["10.1.0.0/16"], no_ipsec=[exempt])).config is not None
    assert read(good(ipsec=[exempt])).config is None


def test_links_that_are_judged_and_links_that_are_not() -> None:
    """Names need not be there yet; one link cannot be both."""
    config = read(good(agent={"uplinks": ["eth1"], "inside": ["tap0", "tun7"]})).config
    assert config is not None
    assert (config.agent.uplinks, config.agent.inside) == (("eth1",), ("tap0", "tun7"))

    other = "enx" + "0123456789ab" * 10 + "name"
    agent = {"interface": other, "uplinks": [other], "inside": "the-bridge-of-the-containers"}
    config = read(good(agent=agent)).config
    assert config is not None
    assert (config.agent.interface, config.agent.uplinks) == (other, (other,))
    assert len(other) == 127
    for key in ("interface", "uplinks", "inside"):
        assert complaints(good(agent={key: other + "s"})) == [
            f"agent.{key}: not a valid link name; write one that `ip link` shows"
        ]

    both = good(agent={"interface": "eth0", "uplinks": ["eth1"], "inside": ["eth1", "eth0", "a b"]})
    found = read(both).complaints
    assert [complaint.message for complaint in found] == [
        "not a valid link name",
        "eth1 is also in agent.uplinks",
        "eth0 is agent.interface, the link with this VM's address",
    ]
    assert all(complaint.line and complaint.key == "agent.inside" for complaint in found)


@pytest.mark.parametrize("empty", [(), None])
def test_empty_no_ipsec_subnets(empty: Any) -> None:
    """no_ipsec_subnets may be empty, or nothing at all (the bug of v1.5.37)."""
    parsed = read(good(no_ipsec=empty))

    assert parsed.complaints == ()
    assert parsed.config is not None
    assert parsed.config.no_ipsec_subnets == ()


def test_ca_certificates_without_dash() -> None:
    """The missing `- |` gets exactly that hint, and the add-on's error to find it by."""
    ca = make_ca()
    text = re.sub(r"ca_certificates:\n +- \|\n", "ca_certificates: |\n", good())

    assert "ca_certificates: |" in text
    assert complaints(text) == [
        "addons[0].properties.ipsec.ca_certificates: must be a list, not one string; write"
        ' "- |" on a line of its own below ca_certificates, and the certificate indented below it;'
        " the add-on reports it as `undefined method 'each_with_index'`"
    ]
    assert ca.cert_pem.splitlines()[1] not in str(read(text).complaints)


TEMPLATE = """\
releases:
- {name: ipsec, version: 1.0.0}

addons:
- name: ipsec-addon
  jobs:
  - name: ipsec
    release: ipsec
  properties:
    ipsec:
      ipsec_subnets:
      - 10.0.1.1/20
      no_ipsec_subnets:
      - 10.0.1.10/32 # bosh director
      instance_certificate: |
      <LEAF>
      instance_private_key: |
      <KEY>
      ca_certificates:
      - |
      <CA>
      prestart_timeout: 30
"""


def template(indent: int) -> str:
    """The guide's own template with real PEMs, each indented by so many spaces."""
    ca = make_ca()
    leaf = make_leaf(ca)
    text = TEMPLATE
    for name, pem in (("LEAF", leaf.cert_pem), ("KEY", leaf.key_pem), ("CA", ca.cert_pem)):
        lines = "\n".join(" " * indent + line for line in pem.splitlines())
        text = text.replace(f"      <{name}>", lines)
    return text


def test_template_of_the_guide() -> None:
    """The guide's template is refused with the lines and the corrected indentation."""
    text = template(6)
    lines = text.splitlines()
    key = lines.index("      -----BEGIN PRIVATE KEY-----") + 1
    ca = lines.index("      - |") + 2

    assert [str(item) for item in read(text).complaints] == [
        "ipsec.yml:16: instance_certificate: the text below `instance_certificate: |` is not"
        " indented: it needs at least 7 spaces; indent lines 16 to"
        f" {key - 2} by 2 more: `        -----BEGIN CERTIFICATE-----`",
        f"ipsec.yml:{key}: instance_private_key: the text below `instance_private_key: |` is not"
        f" indented: it needs at least 7 spaces; indent lines {key} to {ca - 3} by 2"
        " more: `        -----BEGIN PRIVATE KEY-----`",
        f"ipsec.yml:{ca}: the text below `- |` is not indented: it needs at least 7"
        f" spaces; indent lines {ca} to {len(lines) - 1} by 2 more:"
        " `        -----BEGIN CERTIFICATE-----`",
    ]


GUIDE = """\
releases:
- {name: ipsec, version: 1.0.0}

addons:
- name: ipsec-addon
  jobs:
  - name: ipsec
    release: ipsec
  properties:
    ipsec:
      ipsec_subnets:
      - 10.0.1.1/20
      no_ipsec_subnets:
      - 10.0.1.10/32 # bosh director
      - 10.0.1.4/32 # ops manager
      instance_certificate: |
      -----BEGIN CERTIFICATE-----
      MIEMDCCAhigAwIBAgIRAIvrBY2TttU/LeRhO+V1t0YwDQYJKoZIhvcNAQELBQAw
      ...
      -----END CERTIFICATE-----
      instance_private_key: |
      -----BEGIN EXAMPLE RSA PRIVATE KEY-----
      EXAMPLExRSAXPRIVATExKEYxDATAxEXAMPLExRSAXPRIVATExKEYxDATA
      ...
      -----END EXAMPLE RSA PRIVATE KEY-----
      ca_certificates:
      - |
      -----BEGIN CERTIFICATE-----
      MIIFCTCCAvGgAwIBAgIBATANBgkqhkiG9w0BAQsFADAUMRIwEAYDVQQDEw10ZXN0
      ...
      -----END CERTIFICATE-----
      prestart_timeout: 30
"""


def test_the_guide_word_for_word() -> None:
    """Indentation and placeholders are complained of in one go, each at its line."""
    said = [(item.line, item.message.partition(":")[0]) for item in read(GUIDE).complaints]

    placeholder = "is still the guide's placeholder"
    assert said == [
        (16, placeholder),
        (17, "the text below `instance_certificate"),
        (21, placeholder),
        (22, "the text below `instance_private_key"),
        (27, placeholder),
        (28, "the text below `- |` is not indented"),
    ]


def test_corrected_template_of_the_guide() -> None:
    """Indented as the complaint says, the template is accepted."""
    assert read(template(8)).complaints == ()


SECOND_SAMPLE = """\
addons:
- name: ipsec-addon
jobs:
- name: ipsec
  release: ipsec
properties:
  ipsec:
    ipsec_subnets:
    - 10.0.1.1/20
    no_ipsec_subnets:
    - 10.0.1.10/32 # bosh director
  instance_certificate: |
    LEAF
  instance_private_key: |
    KEY
  ca_certificates:
  - |
    CA
"""


def test_second_sample_of_the_guide() -> None:
    """What stands one level too high is found, with its lines; nothing else is complained of."""
    ca = make_ca()
    leaf = make_leaf(ca)
    text = SECOND_SAMPLE
    for name, pem in (("LEAF", leaf.cert_pem), ("KEY", leaf.key_pem), ("CA", ca.cert_pem)):
        text = text.replace(f"    {name}\n", textwrap.indent(pem, "    "))
    lines = [*text.splitlines(), ""]
    key, cas = lines.index("  instance_private_key: |") + 1, lines.index("  ca_certificates:") + 1
    beside = "must be nested under `ipsec:`; indent lines"

    assert [str(item) for item in read(text).complaints] == [
        "ipsec.yml:3: jobs: must be nested under an add-on of `addons:`; indent lines 3 to 5"
        " by 2 more spaces",
        "ipsec.yml:6: properties: must be nested under an add-on of `addons:`; indent lines"
        f" 6 to {len(lines) - 1} by 2 more spaces",
        f"ipsec.yml:12: properties.instance_certificate: {beside} 12 to {key - 1} by 2 more spaces",
        f"ipsec.yml:{key}: properties.instance_private_key: {beside} {key} to {cas - 1} by 2 more"
        " spaces",
        f"ipsec.yml:{cas}: properties.ca_certificates: {beside} {cas} to {len(lines) - 1} by 2 more"
        " spaces",
    ]


def test_wrong_key() -> None:
    """A key that belongs to another certificate is refused."""
    ca = make_ca()
    stranger = make_leaf(ca, key=rsa_key(3072, 201))
    text = good().replace(make_leaf(ca).key_pem, "")
    text = manifest(
        leaf=make_leaf(ca), cas=[ca], instance_private_key=stranger.key_pem, form="rendered"
    )

    assert complaints(text) == [
        "ipsec.instance_private_key: the key does not match instance_certificate; paste the key"
        " that belongs to the certificate"
    ]


def test_expired() -> None:
    """What is expired is refused with its date, and with what to type."""
    ca, before = make_ca(), NOW - timedelta(days=10)
    old = make_leaf(ca, days=5, not_before=before)
    dead = make_ca(days=5, not_before=before)

    assert complaints(manifest(leaf=old, cas=[ca], form="rendered")) == [
        "ipsec.instance_certificate: the certificate CN=VM expired on"
        f" {NOW - timedelta(days=5):%Y-%m-%d}; renew it with `ipsec-agent certs create --ca"
        " CA-CERTIFICATE`"
    ]
    assert complaints(manifest(leaf=make_leaf(dead), cas=[dead], form="rendered")) == [
        "ipsec.ca_certificates[0]: the certificate CN=Test CA expired on"
        f" {NOW - timedelta(days=5):%Y-%m-%d}; create a new CA and certificate with `ipsec-agent"
        " certs create`, and replace both in one deployment"
    ]


def test_the_order_of_renewals() -> None:
    """A CA that has expired cannot sign; and one that ends with the certificate need not."""

    def told(leaf: Issued, *cas: Issued, behind: tuple[Issued, ...] = ()) -> str:
        found = read(manifest(leaf=leaf, cas=cas, behind=behind, form="rendered")).complaints
        about = ("the certificate CN=VM expired", "CN=VM ends on")
        return next(one.remedy for one in found if one.message.startswith(about))

    past: dict[str, Any] = {"days": 5, "not_before": NOW - timedelta(days=10)}
    ends_soon: dict[str, Any] = {"days": 9}
    renew = "renew it with `ipsec-agent certs create --ca CA-CERTIFICATE`"
    signs_first = f"first renew CN=Middle, which signed it; then {renew}"
    both = "create a new CA and certificate with `ipsec-agent certs create`, and replace both in"
    next_ca = "create the next CA now: to replace one takes three deployments"
    root, other = make_ca("Root", key=ec_key(1)), make_ca("Other", key=ec_key(4))
    for dates, anew in ((past, f"{both} one deployment"), (ends_soon, next_ca)):
        old = make_ca("Old", key=ec_key(3), **dates)
        middle = make_ca("Middle", key=ec_key(2), issuer=root, **dates)
        old_middle = make_ca("Middle", key=ec_key(2), issuer=old, **dates)
        assert told(make_leaf(root, **dates), root) == renew
        assert told(make_leaf(old, **dates), old) == anew
        assert told(make_leaf(middle, **dates), root, behind=(middle,)) == signs_first
        assert told(make_leaf(middle, **dates), root, middle) == signs_first
        assert told(make_leaf(old_middle, **dates), old, behind=(old_middle,)) == anew
        # The CA of the next one is there already.
        assert told(make_leaf(old, **dates), old, other) == renew
        assert told(make_leaf(old, **dates), other) == renew
    soon = make_ca("Soon", key=ec_key(5), days=40)
    assert told(make_leaf(soon, days=9), soon) == renew


@pytest.mark.parametrize(
    ("left", "said"),
    [(31, None), (30, "30 days"), (5, "5 days"), (0, "less than an hour")],
)
def test_ends_soon(left: int, said: str | None) -> None:
    """From the info period on it is a warning with the remedy, of the certificate and of the CA."""
    ca = make_ca(days=left + 1, not_before=NOW - timedelta(days=1))
    leaf = make_leaf(ca, days=left + 1, not_before=NOW - timedelta(days=1))
    parsed = read(manifest(leaf=leaf, cas=[ca], form="rendered"), NOW.replace(microsecond=0))

    assert parsed.config is not None
    told = [f"{item.key} {item.message}; {item.remedy}" for item in parsed.complaints]
    ends = f"{NOW + timedelta(days=left):%Y-%m-%d}, in {said}"
    assert told == (
        []
        if said is None
        else [
            f"ipsec.instance_certificate CN=VM ends on {ends}; create the next CA now: to replace"
            " one takes three deployments",
            f"ipsec.ca_certificates[0] CN=Test CA ends on {ends}; create the next CA now: to"
            " replace one takes three deployments",
        ]
    )


def test_an_intermediate_ends_soon() -> None:
    """Its issuer signs it again, and it goes where it was; nobody is sent to replace the CA."""
    root = make_ca("Root", key=ec_key(1))
    middle = make_ca("Middle", key=ec_key(2), issuer=root, days=9)
    leaf = make_leaf(middle)

    def remedies(**given: Any) -> list[str]:
        told = read(manifest(leaf=leaf, form="rendered", **given)).complaints
        return [f"{one.key}: {one.remedy}" for one in told]

    again = "have CN=Root, which signed it, sign it again with the same key, and put that in its"
    assert remedies(cas=[root], behind=[middle]) == [
        f"ipsec.instance_certificate: {again} place in instance_certificate"
    ]
    assert remedies(cas=[root, middle]) == [
        f"ipsec.ca_certificates[1]: {again} place in ca_certificates[1]"
    ]


def test_ends_within_its_own_period() -> None:
    """The info period of the config is what counts."""
    ca = make_ca()
    leaf = make_leaf(ca, days=60)
    found = complaints(manifest(leaf=leaf, cas=[ca], instance_certificate_info_period=90))

    assert [item for item in found if " ends on " in item]


def test_refused_by_the_time_alone() -> None:
    """What only the time refuses is known apart; what is wrong beside that is not."""
    ca = make_ca()
    old = make_leaf(ca, days=5, not_before=NOW - timedelta(days=10))
    early = make_leaf(ca, not_before=NOW + timedelta(days=10))
    for leaf in (old, early):
        parsed = read(manifest(leaf=leaf, cas=[ca]))
        assert parsed.config is None
        assert parsed.outdated is not None
        assert parsed.outdated.certificate == der(leaf.certificate)

        wrong = read(manifest(["10.0.0.0/99"], leaf=leaf, cas=[ca]))
        assert (wrong.config, wrong.outdated) == (None, None)
    assert read(good()).outdated is None


TUNABLE = {
    "follow_redirects",
    "threads",
    "retransmit_tries",
    "retransmit_timeout",
    "ikesa_table_size",
    "ikesa_table_segments",
    "cookie_threshold",
    "block_threshold",
    "init_limit_half_open",
    "delete_rekeyed_delay",
    "plugins.revocation.enable_crl",
    "plugins.revocation.enable_ocsp",
}
"""What the agent sets and an operator may set otherwise."""


def settings_complaints(key: str) -> list[str]:
    """The complaints about one setting, written as nested sections."""
    *path, leaf = key.split(".")
    tree: dict[str, object] = {leaf: "1500"}
    for part in reversed(path):
        tree = {part: tree}
    ca = make_ca()
    agent = {"charon": {"settings": tree}}
    return complaints(manifest(leaf=make_leaf(ca), cas=[ca], agent=agent))


@pytest.mark.parametrize(
    "key",
    sorted(
        {"port", "port_nat_t", "load", "load_modular", "plugins.vici.socket", "journal.default"}
        | {"syslog.daemon.default", "filelog.agent.path", "filelog.agent.default"}
        | (SETTINGS.keys() - TUNABLE)
    ),
)
def test_settings_that_the_agent_decides(key: str) -> None:
    """What the agent sets and needs is refused, with what to write instead."""
    (complaint,) = settings_complaints(key)

    assert complaint.startswith(f"agent.charon.settings.{key}: the agent sets this itself; ")


@pytest.mark.parametrize("key", sorted(TUNABLE))
def test_settings_that_an_operator_decides(key: str) -> None:
    """The rest of what the agent sets may be set otherwise."""
    assert key in SETTINGS
    assert not settings_complaints(key)


def test_not_yet_valid() -> None:
    """One that is not valid yet points at the clock."""
    ca = make_ca()
    early = make_leaf(ca, not_before=NOW + timedelta(days=2))

    assert "is not valid before" in complaints(manifest(leaf=early, cas=[ca], form="rendered"))[0]


def test_passphrase() -> None:
    """A key with a passphrase is refused with the command that removes it."""
    ca = make_ca()
    leaf = make_leaf(ca)
    text = manifest(
        leaf=leaf,
        cas=[ca],
        form="rendered",
        instance_private_key=key_pem(leaf.key, b"secret"),
    )

    assert complaints(text) == [
        "ipsec.instance_private_key: the key has a passphrase; remove it: openssl pkey -in KEY -out"
        " KEY-WITHOUT-PASSPHRASE"
    ]


@pytest.mark.parametrize(("bits", "refused"), [(1024, True), (2048, False)])
def test_small_key(bits: int, refused: bool) -> None:
    """RSA below 2048 bits is refused, below 3072 warned of."""
    ca = make_ca()
    parsed = read(manifest(leaf=make_leaf(ca, key=rsa_key(bits)), cas=[ca]))

    assert f"an RSA key of {bits} bits is too small" in parsed.complaints[0].message
    assert (parsed.config is None) == refused


def test_unsigned() -> None:
    """A certificate that none of the CAs signed is refused; it would be a latent outage."""
    ca = make_ca()
    other = make_ca("Other", key=rsa_key(3072, 101))

    assert "no CA in ca_certificates signed it (its issuer is CN=Test CA)" in str(
        complaints(manifest(leaf=make_leaf(ca), cas=[other]))
    )


def test_chain() -> None:
    """An item may be a chain, and the instance certificate may bring its intermediates."""
    root = make_ca("Root", key=rsa_key(3072, 102))
    middle = make_ca("Middle", key=rsa_key(3072, 103), issuer=root)
    leaf = make_leaf(middle)

    in_leaf = read(
        manifest(leaf=leaf, cas=[root], instance_certificate=leaf.cert_pem + middle.cert_pem)
    ).config
    in_ca = read(
        manifest(leaf=leaf, cas=[], ca_certificates=[root.cert_pem + middle.cert_pem])
    ).config

    assert in_leaf is not None
    assert len(in_leaf.credentials.intermediates) == 1
    assert in_ca is not None
    assert len(in_ca.credentials.authorities) == 2


def test_no_ca() -> None:
    """A CA that is none is refused."""
    fake = make_ca(is_ca=False)

    assert "CN=Test CA is not a CA certificate" in str(
        complaints(manifest(leaf=make_leaf(fake), cas=[fake]))
    )


def test_unknown_keys() -> None:
    """An unknown key is a warning with the nearest known one."""
    parsed = read(good(prestart_timout=3))

    assert parsed.config is not None
    assert parsed.complaints[0].remedy == "did you mean prestart_timeout?"
    assert parsed.complaints[0].severity == "warning"


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("uplinks", "write it below `agent:`, which is beside `ipsec:`"),
        ("ipsec", "it is there twice: delete this line, and move what is below it two columns"),
    ],
)
def test_keys_that_belong_elsewhere(key: str, remedy: str) -> None:
    """As after the line `agent:` was deleted, or fields were pasted with the `ipsec:` above."""
    parsed = read(good(uplinks=["x"]).replace("uplinks:", f"{key}:"))

    assert parsed.config is not None
    (complaint,) = parsed.complaints
    assert (complaint.message, complaint.severity) == ("unknown key", "warning")
    assert complaint.remedy.startswith(remedy)


def test_all_at_once() -> None:
    """Every complaint comes in one go, in the order of the lines."""
    parsed = read(
        good(
            ipsec=["10.0.0.0/33", "fe80::/10"],
            prestart_timeout=0,
            esp_proposals="null-sha256",
            optional="maybe",
            log_level="loud",
        )
    )

    keys = [item.key.rpartition(".")[2] for item in parsed.complaints]
    assert parsed.config is None
    assert keys == [
        "ipsec_subnets[0]",
        "ipsec_subnets[1]",
        "prestart_timeout",
        "esp_proposals",
        "optional",
        "log_level",
    ]
    lines = [item.line for item in parsed.complaints]
    assert lines == sorted(lines)


def test_exclamation_mark() -> None:
    """The add-on's `!` is understood."""
    config = read(good(esp_proposals="aes256gcm16!")).config

    assert config is not None
    assert config.esp_proposals == ("aes256gcm16",)


def test_replaced_properties() -> None:
    """ike_version and dpdaction are accepted, and what stands in their place is said."""
    parsed = read(good(ike_version="ike", dpdaction="restart"))

    assert parsed.config is not None
    assert [item.remedy for item in parsed.complaints] == [
        "remove it; IKEv2 is always used",
        "remove it; a dead peer's SA always ends, and its trap stays",
    ]


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (2, []),
        (3, ["level 3 writes the raw data of messages into charon's log"]),
        (4, ["level 4 writes keys, the private ones included, into charon's log"]),
    ],
)
def test_log_level(level: int, said: list[str]) -> None:
    """A level at which the log holds secrets is accepted, and said."""
    parsed = read(good(log_level=level))

    assert parsed.config is not None
    assert parsed.config.log_level == level
    assert [item.message for item in parsed.complaints] == said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("filelog.more.default", 4, "level 4 writes keys, the private ones included, into"),
        ("filelog.agent.ike", "3", "level 3 writes the raw data of messages into charon's log"),
        ("syslog.daemon.chd", 9, "level 9 writes keys, the private ones included, into"),
        ("journal.enc", 3, "level 3 writes the raw data of messages into charon's log"),
        ("journal.enc", 2, ""),
        ("filelog.more.append", True, ""),
        ("plugins.more.default", 4, ""),
        ("journal.enc", "high", ""),
    ],
)
def test_log_levels_in_settings(key: str, value: object, said: str) -> None:
    """A logger that the operator adds is judged as log_level is; it is accepted, too."""
    *sections, leaf = key.split(".")
    tree: dict[str, object] = {leaf: value}
    for part in reversed(sections):
        tree = {part: tree}
    ca = make_ca()
    parsed = read(manifest(leaf=make_leaf(ca), cas=[ca], agent={"charon": {"settings": tree}}))

    assert parsed.config is not None
    assert key in dict(parsed.config.agent.charon.settings)
    assert [item.message.startswith(said) for item in parsed.complaints] == [True] * bool(said)
    assert all(item.key == f"agent.charon.settings.{key}" for item in parsed.complaints)


DIGITS = "7" * 5000


@pytest.mark.parametrize(
    "text",
    [
        f"%YAML {DIGITS}.1\n---\na: 1\n",
        f"%YAML 1.{DIGITS}\n---\na: 1\n",
        'a: "\\U77777777"\n',
        f"ipsec: {{log_level: {DIGITS}}}\n",
        f"ipsec: {{log_level: !!int {DIGITS}}}\n",
        f"ipsec: {{ipsec_subnets: [10.0.0.0/{DIGITS}, {DIGITS}]}}\n",
        f"ipsec: {{esp_proposals: aes{DIGITS}}}\n",
        f"agent: {{address: {DIGITS}, interval: {DIGITS}, interface: {DIGITS}}}\nipsec: {{b: 1}}\n",
    ],
)
def test_a_number_of_5000_digits(text: str) -> None:
    """Python refuses to convert it; that is a complaint like others."""
    parsed = read(text)

    assert parsed.config is None
    assert parsed.complaints
    assert not any(DIGITS[:100] in str(item) for item in parsed.complaints)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: &x [*x]",
        "\t- {",
        "ipsec:\n  a: 1\n  a: 2",
        "ipsec: 3",
        "ipsec: {}",
        "addons: [{jobs: [{name: ipsec}], properties: {ipsec: {}}}]",
        "\x00",
        "a: !!python/x",
    ],
)
def test_no_config(text: str) -> None:
    """What is no config is refused with a complaint, never with a traceback."""
    parsed = read(text)

    assert parsed.config is None
    assert parsed.complaints


@settings(max_examples=examples(200), deadline=None)
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """No text makes the parser raise."""
    assert read(text).config is None


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 6000), st.sampled_from(["", "\t", ":", "- ", "'", "|", "{", "\x7f", "\n"]))
def test_the_key_never_shows(at: int, noise: str) -> None:
    """Whatever is broken in a manifest, no line of the key is in a complaint."""
    leaf = make_leaf(make_ca())
    text = good()
    broken = text[:at] + noise + text[at:]

    said = "\n".join(str(item) for item in read(broken).complaints)

    assert not any(line in said for line in leaf.key_pem.splitlines()[1:-1] if len(line) > 20)


HYBRID, CLASSICAL = "aes256gcm16-prfsha384-ecp384-ke1_mlkem768", "aes256gcm16-prfsha384-ecp384"


@pytest.mark.parametrize(
    ("written", "used", "said"),
    [
        ([HYBRID], (HYBRID, CLASSICAL), f"{CLASSICAL} is used, too"),
        ([HYBRID, CLASSICAL], (HYBRID, CLASSICAL), ""),
        ([HYBRID, "aes128gcm16-prfsha256-ecp256!"], (HYBRID, "aes128gcm16-prfsha256-ecp256"), ""),
        ([f"{HYBRID}!"], (HYBRID,), "are refused, because of the `!`"),
        ([f"{CLASSICAL}!"], (CLASSICAL,), ""),
    ],
)
def test_a_classical_proposal_stays(written: list[str], used: tuple[str, ...], said: str) -> None:
    """A second key exchange costs no peer that has none, unless `!` says so; each way is told."""
    parsed = read(good(ike_proposals=written))

    assert parsed.config is not None
    assert parsed.config.ike_proposals == used
    assert [said in str(one) for one in parsed.complaints] == ([True] if said else [])


@pytest.mark.parametrize("written", ["!", ["!"], [" ! "], "aes128gcm16,!", ["aes128gcm16", "!"]])
@pytest.mark.parametrize("name", ["ike_proposals", "esp_proposals"])
def test_nothing_before_the_exclamation_mark(name: str, written: Any) -> None:
    """It says that only what is listed is used; where nothing is, the default is not meant."""
    found = read(good(**{name: written}))

    assert found.config is None
    assert any("'!' is behind no proposal" in str(one) for one in found.complaints)


def test_a_hybrid_proposal_behind_a_classical_one() -> None:
    """Two VMs use the first that both can do, so nobody uses it."""
    other = "aes128gcm16-prfsha256-ecp256"

    def said(*proposals: str) -> list[str]:
        found = read(good(ike_proposals=list(proposals)))
        assert found.config is not None
        return [one.message for one in found.complaints if "is not used by" in one.message]

    assert said(HYBRID, CLASSICAL) == said(HYBRID) == said(CLASSICAL, other) == []
    for behind in ((CLASSICAL, HYBRID), (other, HYBRID, CLASSICAL), (other, HYBRID)):
        (one,) = said(*behind)
        assert one.startswith(f"{HYBRID} is not used by VMs that can do {behind[0]}: that is")
    (one,) = said(f"{HYBRID}-ke2_ecp521", other, HYBRID)
    assert one.startswith(f"{HYBRID} is not used")


def test_a_classical_proposal_stays_for_esp() -> None:
    """ESP likewise; what is hybrid comes first, so that two VMs that have it use it."""
    parsed = read(good(esp_proposals="aes256gcm16-x25519-ke1_mlkem768"))

    assert parsed.config is not None
    assert parsed.config.esp_proposals == (
        "aes256gcm16-x25519-ke1_mlkem768",
        "aes256gcm16-x25519",
    )
