"""The example manifests: BOSH and the agent take the runtime config with each set of ops files."""

import copy
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from ipsec_agent import __version__
from ipsec_agent.core.manifest.parser import parse
from tests.bosh.job import BOSH, given
from tests.bosh.test_spec import bound, told
from tests.certificates import make_ca, make_leaf

MANIFESTS = BOSH / "manifests"
ROTATE = tuple(
    f"rotate-{name}" for name in ("1-trust-next-ca", "2-next-certificate", "3-forget-old-ca")
)
CA, NEXT = make_ca("IPsec CA"), make_ca("IPsec CA 2")
LEAF, NEXT_LEAF = make_leaf(CA, "IPsec VMs"), make_leaf(NEXT, "IPsec VMs 2")
VALUES = {
    "/ipsec_ca.certificate": CA.cert_pem,
    "/ipsec_next_ca.certificate": NEXT.cert_pem,
    "/ipsec_certificate.certificate": LEAF.cert_pem,
    "/ipsec_certificate.private_key": LEAF.key_pem,
    "/ipsec_next_certificate.certificate": NEXT_LEAF.cert_pem,
    "/ipsec_next_certificate.private_key": NEXT_LEAF.key_pem,
    "no_ipsec_service_subnet": "10.0.9.0/24",
}


def applied(*names: str) -> dict[str, Any]:
    """The runtime config as `bosh update-config -o` makes it, with values for its variables."""
    tree: dict[str, Any] = yaml.safe_load((MANIFESTS / "runtime-config.yml").read_text())
    for name in names:
        for step in yaml.safe_load((MANIFESTS / f"{name}.yml").read_text()):
            change(tree, step)
    filled = filled_in(tree)
    assert isinstance(filled, dict)
    return filled


def test_the_version() -> None:
    """The example asks for the release that scripts/release makes of this commit."""
    assert applied()["releases"] == [{"name": "ipsec", "version": __version__}]


def change(tree: Any, step: dict[str, Any]) -> None:
    """One operation; a path leads through names, NAME=VALUE of a list, and ends with `-` or `?`."""
    *above, last = step["path"].strip("/").split("/")
    for word in above:
        tree = tree[index(tree, word)]
    optional, last = last.endswith("?"), last.removesuffix("?")
    if step["type"] == "remove":
        del tree[index(tree, last)]
    elif last == "-":
        tree.append(copy.deepcopy(step["value"]))
    else:
        assert optional or last in tree, step["path"]
        tree[index(tree, last)] = copy.deepcopy(step["value"])


def index(tree: Any, word: str) -> Any:
    """What a word of a path names."""
    key, _, value = word.partition("=")
    if not value:
        return word
    (found,) = (position for position, item in enumerate(tree) if item[key] == value)
    return found


def filled_in(tree: Any) -> Any:
    """With values in place of variables."""
    if isinstance(tree, dict):
        return {name: filled_in(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [filled_in(item) for item in tree]
    found = re.fullmatch(r"\(\((.+)\)\)", tree) if isinstance(tree, str) else None
    return VALUES[found[1]] if found else tree


@pytest.mark.parametrize(
    "names",
    [(), ("optional",), ("no-ipsec-services",), ROTATE[:1], ROTATE[:2], ROTATE],
    ids=lambda names: "+".join(names) or "plain",
)
def test_good(names: tuple[str, ...]) -> None:
    """The schema has nothing to say, nor has the agent."""
    tree = applied(*names)
    text = yaml.safe_dump(tree)

    found = parse(text, file="f", now=datetime.now(UTC))

    assert found.complaints == ()
    assert told(bound(given(text))) == []


def test_rotation_trusts_before_it_shows() -> None:
    """At each step every VM trusts the CA of the certificates that any VM may have then."""
    shown, trusted = [], []
    for count in range(4):
        properties = given(yaml.safe_dump(applied(*ROTATE[:count])))["ipsec"]
        shown.append(CA if properties["instance_certificate"] == LEAF.cert_pem else NEXT)
        trusted.append(properties["ca_certificates"])
    assert shown == [CA, CA, NEXT, NEXT]
    for before, after in ((0, 1), (1, 2), (2, 3)):
        for one in (shown[before], shown[after]):
            assert one.cert_pem in trusted[before], (before, after)
            assert one.cert_pem in trusted[after], (before, after)


def test_removed() -> None:
    """Nothing of the add-on is left."""
    assert applied("remove")["addons"] == []


def test_every_file_is_tried() -> None:
    """And is named in docs/bosh.md."""
    names = {path.stem for path in MANIFESTS.iterdir()}
    assert names == {"runtime-config", "optional", "no-ipsec-services", "remove", *ROTATE}
    page = (BOSH.parent / "docs" / "bosh.md").read_text()
    assert [name for name in sorted(names) if f"{name}.yml" not in page] == []
