"""Nothing of a private key is in what is said of a config, however broken the config is."""

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ipsec_agent.cli import main
from ipsec_agent.config_file import load
from ipsec_agent.errors import ConfigError
from tests.certificates import Issued, ec_key, key_pem, make_ca, make_leaf, rsa_key
from tests.key_material import found_in, numbers
from tests.manifests import manifest

CA = make_ca(key=ec_key(1))
LEAVES = [
    pytest.param(make_leaf(CA, key=ec_key(2)), id="EC"),
    pytest.param(make_leaf(CA, key=rsa_key(3072, 200)), id="RSA"),
]


def der(leaf: Issued) -> bytes:
    """The key as PKCS#8."""
    return leaf.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize("leaf", LEAVES)
def test_the_search_finds_keys(leaf: Issued) -> None:
    """In PEM, indented or as one line, in DER, hexadecimal and a record's repr; not elsewhere."""
    raw = der(leaf)
    for text in (
        leaf.key_pem,
        # The first lines of an RSA key are its modulus, which is public.
        key_pem(leaf.key).splitlines()[
            2 if isinstance(leaf.key, ec.EllipticCurvePrivateKey) else -5
        ],
        "\n".join(f"        {line}" for line in leaf.key_pem.splitlines()),
        leaf.key_pem.replace("\n", "\\n"),
        raw,
        raw.hex(),
        raw.hex(":").upper(),
        str(numbers(leaf.key)[0]),
        leaf.key_pem.lower(),
        manifest(leaf=leaf, cas=[CA]),
    ):
        assert found_in(text, leaf.key), text
    assert not found_in(leaf.cert_pem + CA.cert_pem, leaf.key)
    assert not found_in(make_leaf(CA, key=ec_key(77)).key_pem, leaf.key)


def lines(text: str) -> list[str]:
    """Of the manifest."""
    return text.splitlines(keepends=True)


BREAKS: dict[str, Callable[[str], str]] = {
    "good": lambda text: text,
    "not indented": lambda text: text.replace("        MI", "MI"),
    "no end": lambda text: text.replace("-----END PRIVATE KEY-----", ""),
    "no begin": lambda text: text.replace("-----BEGIN PRIVATE KEY-----", ""),
    "a line gone": lambda text: "".join(
        line for number, line in enumerate(lines(text)) if number != key_line(text) + 2
    ),
    "a colon in it": lambda text: text.replace("PRIVATE KEY-----\n", "PRIVATE KEY-----:\n", 1),
    "as a property": lambda text: text.replace("instance_private_key: |", "MIGHAgEA:"),
    "in another place": lambda text: text.replace("instance_private_key", "instance_certificate"),
    "unknown property": lambda text: text.replace("instance_private_key", "instance_key"),
    "folded": lambda text: text.replace("instance_private_key: |", "instance_private_key: >"),
    "as a list": lambda text: text.replace("instance_private_key: |", "instance_private_key:\n-"),
    "as a subnet": lambda text: text.replace("10.0.0.0/16", "&k").replace(
        "instance_private_key: |", "ipsec_subnets: |"
    ),
    "a tab": lambda text: text.replace("        MI", "\tMI"),
    "a quote": lambda text: text.replace("instance_private_key: |", 'instance_private_key: "'),
    "two documents": lambda text: text.replace("-----BEGIN PRIVATE", "---\n-----BEGIN PRIVATE"),
    "a bad subnet": lambda text: text.replace("10.0.0.0/16", "10.0.0.0/99"),
    "cut": lambda text: "".join(lines(text)[: key_line(text) + 3]),
    "upper case": lambda text: text.replace("instance_private_key", "INSTANCE_PRIVATE_KEY"),
}


def key_line(text: str) -> int:
    """Where the key begins."""
    return next(n for n, line in enumerate(lines(text)) if "BEGIN PRIVATE" in line)


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("how", BREAKS)
def test_no_verb_tells(
    how: str, leaf: Issued, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is wrong: neither a verb's output nor an exception has anything of the key."""
    path = tmp_path / "ipsec.yml"
    agent = {"address": "10.0.1.7", "state_dir": str(tmp_path), "run_dir": str(tmp_path)}
    text = BREAKS[how](manifest(leaf=leaf, cas=[CA], agent=agent, form="rendered"))
    path.write_text(text)

    for words in (
        ("check",),
        ("check", "--baseline", "cnsa2"),
        ("plan", "--address", "10.0.1.7"),
        ("plan", "--json"),
        ("certs", "show"),
        ("certs", "show", "--json"),
        ("certs", "verify"),
    ):
        main([*words, str(path)])
    said = capsys.readouterr()
    assert not found_in(said.out, leaf.key)
    assert not found_in(said.err, leaf.key)

    try:
        shown = repr(load(path))
    except ConfigError as error:
        shown = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=False).format()
        )
        shown += repr(error) + repr(error.complaints)
    assert not found_in(shown, leaf.key)
    assert "Secret(...)" in shown or "refused" in shown or "ConfigError" in shown
