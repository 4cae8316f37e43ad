"""Certificates that are damaged, or that the library takes for wrong: nothing is raised, nothing is
printed."""

import random
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ipsec_agent.core.certificates import shown, verdict
from ipsec_agent.core.certificates.material import read_files
from ipsec_agent.core.manifest import readable
from ipsec_agent.core.manifest.parser import parse
from tests.examples import examples
from tests.forge import PRINTABLE, dn
from tests.manifests import manifest
from tests.verdict_table import CASES, COUNTRY
from tests.verdicts import Case, Chain, leaf, root

NOW = datetime.now(UTC)
DAMAGES = examples(30)
"""Of each certificate of the table; hundreds of thousands were tried by hand."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damaged(case: Case) -> None:
    """Whatever bytes of a certificate are wrong: it is judged or refused, in the operator's words.

    pytest makes errors of the library's warnings.
    """
    chance = random.Random(case.name)
    chain = case.make()
    for certificate in (chain.leaf, *chain.cas[:1]):
        for _ in range(DAMAGES):
            text = ssl.DER_cert_to_PEM_cert(damaged(certificate.der, chance))
            material = read_files([("all.pem", text + chain.cas[0].cert_pem)])

            _ = (verdict.verify(material, NOW), shown.text(material, NOW))
            assert material.certificates or material.complaints


def damaged(encoded: bytes, chance: random.Random) -> bytes:
    """One to three of its bytes are others."""
    changed = bytearray(encoded)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(changed))
        changed[at] = chance.choice((changed[at] ^ 1 << chance.randrange(8), 0, 0x30, 0x87, 0xA3))
    return bytes(changed)


@pytest.mark.parametrize("size", [1, 40, 200])
def test_cut(size: int) -> None:
    """What is cut is damaged; that RFC 5280 wants it otherwise is not said."""
    assert readable.read(root().der[:-size]) == (None, "")


def test_nothing_is_printed(tmp_path: Path) -> None:
    """The library's warnings, of serials and of names, are none for operators."""
    above = root(dn("Root", (COUNTRY, PRINTABLE, "USA")), serial=b"\0")
    chain = Chain(leaf(above, "x" * 100, serial=b"\x80"), (above,))
    pem = tmp_path / "all.pem"
    pem.write_text(chain.leaf.cert_pem + chain.leaf.key_pem + above.cert_pem)
    config = tmp_path / "ipsec.yml"
    config.write_text(manifest(leaf=chain.leaf, cas=chain.cas))
    config.chmod(0o600)
    pem.chmod(0o600)

    for words in (("certs", "verify", pem), ("certs", "show", pem), ("check", config)):
        done = subprocess.run(
            (sys.executable, "-W", "default", "-m", "ipsec_agent", *words),
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == ""


def test_the_rest_is_judged_too() -> None:
    """A certificate that cannot be read does not hide what is wrong elsewhere."""
    above = root()
    odd = leaf(above, dn("vm@lab", tag=PRINTABLE))

    parsed = parse(manifest(("10.0.0.0/99",), leaf=odd, cas=(above,)), file="ipsec.yml", now=NOW)

    assert [item.key.rpartition(".")[2] for item in parsed.complaints] == [
        "ipsec_subnets[0]",
        "instance_certificate",
    ]
