"""Certificates that are not indented below their key: what is said, and that it mends the text."""

import pytest
import yaml

from ipsec_agent.core.manifest.complaint import Complaints
from ipsec_agent.core.manifest.pem_indentation import MOST_BLOCKS, indented, misplaced
from ipsec_agent.core.manifest.yaml_lines import read

PEM = "-----BEGIN CERTIFICATE-----\nMIIE\nAAAA\n-----END CERTIFICATE-----"
CORRECTED = "`    -----BEGIN CERTIFICATE-----`"


def block(*indents: int) -> str:
    """A certificate with each line indented by so many spaces."""
    return "".join(
        f"{' ' * indent}{line}\n" for indent, line in zip(indents, PEM.splitlines(), strict=True)
    )


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        (
            f"a:\n  key_x: |\n{block(2, 2, 2, 2)}  b: 1\n",
            "the text below `key_x: |` is not indented: it needs at least 3 spaces",
            "indent lines 3 to 6 by 2 more: `    -----BEGIN CERTIFICATE-----`",
        ),
        (
            f"a:\n- |\n{block(0, 0, 0, 0)}b: 1\n",
            "the text below `- |` is not indented: it needs at least 1 space",
            "indent lines 3 to 6 by 2 more: `  -----BEGIN CERTIFICATE-----`",
        ),
        (
            f"a:\n  key_x: |\n{block(4, 0, 0, 0)}  b: 1\n",
            "the text below `key_x: |` is not indented by the same number of spaces in each line",
            f"start each of lines 3 to 6 with 4 spaces, not a tab: {CORRECTED}",
        ),
        (
            f"a:\n  key_x: |\n{block(6, 5, 6, 6)}  b: 1\n",
            "the text below `key_x: |` is not indented by the same number of spaces in each line",
            f"start each of lines 3 to 6 with 4 spaces, not a tab: {CORRECTED}",
        ),
        (
            "a:\n  key_x: |\n" + block(0, 0, 0, 0).replace("\n", "\n\t").rstrip("\t") + "  b: 1\n",
            "the text below `key_x: |` is not indented by the same number of spaces in each line",
            f"start each of lines 3 to 6 with 4 spaces, not a tab: {CORRECTED}",
        ),
        (
            f"a:\n  key_x: |\nCertificate:\n    Data:\n{block(0, 0, 0, 0)}  b: 1\n",
            "the text below `key_x: |` is not indented by the same number of spaces in each line",
            f"start each of lines 3 to 8 with 4 spaces, not a tab: {CORRECTED}",
        ),
        (
            f"a:\n  key_x: |\n    subject=CN = VM\n{block(2, 2, 2, 2)}  b: 1\n",
            "the text below `key_x: |` is not indented by the same number of spaces in each line",
            f"start each of lines 3 to 7 with 4 spaces, not a tab: {CORRECTED}",
        ),
        (
            f"a:\n  key_x: # theirs\n\n{block(2, 2, 2, 2)}  b: 1\n",
            "`|` is missing after `key_x:`",
            "write `key_x: |`, and start each of lines 4 to 7 with 4 spaces:"
            " `    -----BEGIN CERTIFICATE-----`",
        ),
    ],
    ids=["key", "item", "only the first", "one short", "tabs", "text above", "PEM only", "no |"],
)
def test_misplaced(text: str, message: str, remedy: str) -> None:
    """The lines and the spaces that they lack are named, and with them YAML takes the text."""
    found = misplaced(text)

    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(text)
    assert [(item.message, item.remedy) for item in found] == [(message, remedy)]
    tree = yaml.safe_load(indented(text, found))
    assert PEM in str(tree["a"][0] if isinstance(tree["a"], list) else tree["a"]["key_x"])
    assert "b" in tree or tree["a"]["b"] == 1


def test_a_chain_below_one_key() -> None:
    """Several certificates one below the other are one text, up to the next key."""
    text = f"key_x: |\n{block(0, 0, 0, 0)}\n{block(0, 0, 0, 0)}other: 1\n"

    assert [(item.first, item.last) for item in misplaced(text)] == [(2, 10)]


def test_without_end() -> None:
    """Where END is missing, the text reaches to the next key."""
    text = "key_x: |\n-----BEGIN CERTIFICATE-----\nMIIE\nother_key: |\n  x\n"

    assert [(item.first, item.last) for item in misplaced(text)] == [(2, 3)]


@pytest.mark.parametrize(
    "text",
    [
        f"key_x: |\n{block(2, 2, 2, 2)}",
        f"key_x: |\n{block(2, 4, 4, 2)}",
        "key_x: |\n  words\n",
        "key_x: |\n",
        f"key_x: |\n  words\nother: |\n{block(2, 2, 2, 2)}",
        f"key_x:\n{block(2, 2, 4, 2)}",
        f"key_x:\n- '{block(0, 2, 2, 2)}  '\n",
        f'key_x:\n  - "{block(0, 4, 4, 4)}"\n',
        f"key_x:\n  '{block(0, 4, 4, 4)}'\n",
        f"key_x:\n- {block(0, 2, 2, 2)}",
        "-\n-----BEGIN X-----\n",
        "x" * 300 + ": |\n-----BEGIN X-----\n",
    ],
)
def test_nothing_to_say(text: str) -> None:
    """What YAML takes as it is, is no PEM, or is nothing of a config is left alone."""
    assert misplaced(text) == ()


def test_no_line_of_a_key_is_shown() -> None:
    """Neither the text of a block nor a piece of key in the place of a name is repeated."""
    text = "MIIEvQIBADANBgkq: |\n-----BEGIN PRIVATE KEY-----SECRET\nSECRET\n"

    (found,) = misplaced(text)

    assert found.key == "?"
    assert "SECRET" not in found.message + found.remedy
    assert "MIIE" not in found.message + found.remedy


def test_many() -> None:
    """The number of complaints has an end."""
    assert len(misplaced("k: |\n-----BEGIN X-----\n-----END X-----\n" * 300)) == MOST_BLOCKS


def test_the_rest_is_judged_too() -> None:
    """After the mending the tree is read, with the line numbers of the text as it is."""
    complaints = Complaints("f")
    tree = read(f"key_x: |\n{block(0, 0, 0, 0)}other: 1\nother: 2\n", complaints)

    assert tree is not None
    assert [(item.line, item.message.partition(",")[0]) for item in complaints.in_order()] == [
        (2, "the text below `key_x: |` is not indented: it needs at least 1 space"),
        (7, "listed twice"),
    ]
