"""A config as it comes: with tabs, with a terminal's words around it, and with what is no YAML."""

from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.core.manifest.surroundings import foreign, without
from ipsec_agent.core.manifest.yaml_scanner import ScanningLoader
from tests.certificates import ec_key, make_ca, make_leaf
from tests.examples import examples
from tests.manifests import manifest


def good() -> str:
    """A manifest in the add-on's form, which is accepted."""
    ca = make_ca(key=ec_key(100))
    leaf = make_leaf(ca, key=ec_key(200))
    return manifest(("10.9.0.0/24",), leaf=leaf, cas=[ca], prestart_timeout=40)


def said(text: str) -> list[str]:
    """The complaints about a text, with their lines."""
    parsed = parse(text, file="f", now=datetime.now(UTC))
    assert (parsed.config is None) == bool(parsed.complaints)
    return [str(item).replace("not valid YAML: ", "") for item in parsed.complaints]


def line_of(text: str, part: str) -> int:
    """The number of the first line with a part."""
    return next(at for at, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("10.9.0.0/24", "10.9.0.0/24\t"),
        ("10.9.0.0/24", "10.9.0.0/24 \t # VMs"),
        ("10.9.0.0/24", "10.9.0.0/24\t# VMs"),
        ("10.9.0.0/24", "'10.9.0.0/24'\t"),
        ("prestart_timeout: ", "prestart_timeout:\t"),
        ("prestart_timeout: ", "prestart_timeout\t: "),
        ("addons:", "addons:\t"),
        ("addons:", "addons:\t# ours"),
        ("certificate: |", "certificate: |\t"),
        ("certificate: |", "certificate: |-\t# shared"),
        ("-----END CERTIFICATE-----", "-----END CERTIFICATE-----\t"),
        ("no_ipsec_subnets: []", "no_ipsec_subnets: [\t10.9.0.1/32\t,\t10.9.0.2/32\t]\t"),
        ("no_ipsec_subnets: []", "no_ipsec_subnets: [\n\t10.9.0.1/32,\n\t]"),
        ("addons:", "---\t\naddons:"),
    ],
)
def test_a_tab_that_bosh_takes(old: str, new: str) -> None:
    """A tab that is no indentation says nothing."""
    text = good().replace(old, new)

    assert new in text
    if new.startswith("---\t"):
        text = text[text.index("---\t") :]
    assert said(text) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  jobs:", "\tjobs:", "the line is indented with a tab; use spaces"),
        ("  jobs:", " \t jobs:", "the line is indented with a tab; use spaces"),
        ("  jobs:", "\t# x\n  jobs:", "the line is indented with a tab; use spaces"),
        ("  jobs:", "\t\n  jobs:", "the line is empty but for a tab; delete the line"),
        ("- 10.9", "-\t10.9", "a tab follows the dash; write a space in place of the tab"),
        ("- 10.9", "- \t10.9", "a tab follows the dash; write a space in place of the tab"),
    ],
)
def test_a_tab_that_bosh_refuses(old: str, new: str, words: str) -> None:
    """What libyaml refuses is refused here, at its line."""
    text = good().replace(old, new)

    assert said(text) == [f"f:{line_of(text, chr(9))}: {words}"]


TOKENS = ("a: ", "b: ", "- ", "x", "\t", "\t", " ", "\n", "  ", "[", "]", ",", "'", "# c", "|\n  ")


def read_by(loader: type, text: str) -> object:
    """What a loader makes of a text; the class YAMLError where it refuses it."""
    try:
        return yaml.load(text, loader)
    except (yaml.YAMLError, TypeError):
        return yaml.YAMLError


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")
@settings(max_examples=examples(1500), deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join))
def test_tabs_as_libyaml_reads_them(text: str) -> None:
    """Where the two agree about a text with spaces, they agree about it with tabs."""
    spaced = text.replace("\t", " ")

    if read_by(yaml.SafeLoader, spaced) == read_by(yaml.CSafeLoader, spaced):
        assert read_by(ScanningLoader, text) == read_by(yaml.CSafeLoader, text)


CLI = "which the BOSH CLI says, is not part of the config"
TEXT = "this text is not part of the config"


@pytest.mark.parametrize(
    ("above", "words"),
    [
        ("Acting as user 'admin' on 'micro'\n\n", f"`Acting as user …`, {CLI}; delete line 1"),
        ("Acting as user 'admin'\n---\n", f"`Acting as user …`, {CLI}; delete line 1"),
        ("\ufeffActing as user 'admin'\n\n", f"`Acting as user …`, {CLI}; delete line 1"),
        (
            "Using environment '10.0.0.6' as client 'admin'\n\n",
            f"`Using environment …`, {CLI}; delete line 1",
        ),
        (
            "Using environment '10.0.0.6' as client 'a'\n\nUsing deployment 'cf'\n\n",
            f"`Using environment …`, {CLI}; delete lines 1 to 3",
        ),
        (
            "Target set to 'p-bosh'\nYour username: director\nEnter password: *****\n"
            "Logged in as 'director'\n",
            f"`Target set to …`, {CLI}; delete lines 1 to 4",
        ),
        (
            "ubuntu@opsman:~$ bosh runtime-config\nActing as user 'admin'\n\n",
            f"{TEXT}; delete lines 1 to 2",
        ),
        ("$ bosh runtime-config\n", f"{TEXT}; delete line 1"),
        ("```yaml\n", f"{TEXT}; delete line 1"),
        ("root@opsman:~# cat /tmp/a.yml\n", f"{TEXT}; delete line 1"),
        ("[root@opsman tmp]# cat a.yml\n", f"{TEXT}; delete line 1"),
        ("Please check this config\n", f"{TEXT}; delete line 1"),
        ("% bosh runtime-config\n", f"{TEXT}; delete line 1"),
        ("~~~\n", f"{TEXT}; delete line 1"),
        ("2026-11-28 10:00:00 UTC\n", f"{TEXT}; delete line 1"),
        ("[sudo] password for ubuntu:\n", f"{TEXT}; delete line 1"),
        ("ID  Type\n1*  runtime  2026-01-01 00:00:00\n", f"{TEXT}; delete lines 1 to 2"),
        ("DEPRECATION: 'bosh x' goes. See: y\n", f"`DEPRECATION …`, {CLI}; delete line 1"),
    ],
)
def test_words_above_the_config(above: str, words: str) -> None:
    """The lines to delete are named, and nothing else is complained of."""
    assert said(above + good()) == [f"f:1: {words}"]
    assert said((above + good()).replace("\n", "\r\n")) == [f"f:1: {words}"]


@pytest.mark.parametrize(
    ("below", "words"),
    [
        ("\nSucceeded\n", f"`Succeeded …`, {CLI}"),
        ("...\nSucceeded\n", f"`Succeeded …`, {CLI}"),
        ("\nExit code 1\n", f"`Exit code …`, {CLI}"),
        ("ubuntu@opsman:~$ \n", TEXT),
        ("```\n", TEXT),
        ("Thanks a lot\n", TEXT),
        ("EOF\n", TEXT),
        ("~~~\n", TEXT),
        ("% \n", TEXT),
        ("-rw-r--r-- 1 root root 5 a.yml\n", TEXT),
    ],
)
def test_words_below_the_config(below: str, words: str) -> None:
    """The same below; the other mistakes of the file are found, too."""
    text = good().replace("10.9.0.0/24", "10.9.0.0/240") + below
    last = len(text.splitlines())

    first, *rest = said(text)

    assert first.endswith("such as 10.0.0.0/20")
    assert rest == [f"f:{last}: {words}; delete line {last}"]


def test_words_and_an_indentation() -> None:
    """Two kinds of mistakes in one file are named in one go, by the lines of the file as it is."""
    lines = good().splitlines()
    begin = lines.index("      instance_certificate: |") + 1
    end = lines.index("        -----END CERTIFICATE-----")
    lines[begin : end + 1] = [line.strip() for line in lines[begin : end + 1]]

    found = said("Acting as user 'admin'\n\n" + "\n".join(lines) + "\nSucceeded\n")

    assert [item.split(":")[1] for item in found] == ["1", str(begin + 3), str(len(lines) + 3)]
    assert "indent lines" in found[1]


def test_the_colours_of_a_terminal() -> None:
    """They are named once, and what is between them is judged."""
    text = "\x1b[0mActing as user 'x'\x1b[0m\n\n" + good().replace(
        "ipsec-addon", "\x1b[1;32mi\x1b[0m"
    )

    assert said(text) == [
        "f:1: it contains the colours of a terminal; save it again, with `bosh --no-color`",
        f"f:1: `Acting as user …`, {CLI}; delete line 1",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Acting as user 'admin'\nipsec: {}\n",
        "Acting as user 'admin'\n",
        "other:\n  key: 1\nlonely: 1\nipsec: {}\n",
        "ipsec:\n  a: |\n    Acting as user\n  b: 1\n",
        "%YAML 1.2\n---\n# a\n'a-b': 1\n- 1\nipsec: {}\n",
        "key: |\n-----BEGIN X-----\nMIIE\n=\nipsec: {}\n",
        "ipsec:\n  key: |\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nQIBADANBgkqhkiG9w0BA\n",
    ],
)
def test_nothing_of_the_config_is_taken_for_the_terminal(text: str) -> None:
    """Comments, keys, what is indented and the lines of a key are no words of a terminal's."""
    assert foreign(text) == ()


def test_no_line_moves() -> None:
    """The rest keeps its line numbers."""
    text = "Acting as user 'x'\n\nUsing environment 'y'\nipsec:\n  a: 1\nSucceeded\n"

    assert without(text, foreign(text)) == "\n\n\nipsec:\n  a: 1\n\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  jobs:", "\u00a0\u00a0jobs:", "it contains a character that only looks like a space"),
        ("timeout: ", "timeout:\u00a0", "it contains a character that only looks like a space"),
        ("timeout: ", "timeout:", "the line is neither `key: value` nor `- value`; write a space"),
        ("release: ipsec", "release: 'ipsec", "a quote is not closed; write the same quote"),
        ("release: ipsec", "release: `ipsec`", "a value cannot begin with `; write it in quotes"),
        ("release: ipsec", "release: %ipsec", "a value cannot begin with %; write it in quotes"),
        ("release: ipsec", "release: @ipsec", "a value cannot begin with @; write it in quotes"),
        ("release: ipsec", "release: *ipsec", "no `&name` above belongs to this `*name`; write"),
        ("release: ipsec", "release: ]", "a bracket, brace or comma is where a value should be"),
        ("release: ipsec", "release: [a,,b]", "a bracket, brace or comma is where a value"),
        ("release: ipsec", "release: *", "a value cannot begin with * or &; write it in quotes"),
        ("release: ipsec", "release: !<x", "a value cannot begin with !; write it in quotes"),
        ("release: ipsec", "release: | x", "only a comment may follow `|` or `>`; write the text"),
        ("release: ipsec", "release: |x", "only a comment may follow `|` or `>`; write the text"),
        ("release: ipsec", "release: a: b", "a key with a colon cannot be here; write a value"),
        ("release: ipsec", "release: - a", "a dash cannot be here; write a value that begins"),
        ("release: ipsec", 'release: "\\y"', "a backslash in double quotes is not followed by"),
        ("release: ipsec", 'release: "\\xzz"', "a backslash in double quotes is not followed by"),
        ("release: ipsec", "release: ip\x00sec", "it contains a forbidden character; remove the"),
    ],
)
def test_no_yaml(old: str, new: str, words: str) -> None:
    """What is no YAML is named in words that say what to type, at its line."""
    text = good().replace(old, new)
    where = line_of(text, new.partition("\x00")[0])

    (found,) = said(text)

    assert found.startswith(f"f:{where}: {words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{a: 1}\nb: 1\n", "f:2: the line does not belong to what is above it; compare its"),
        ("  a: 1\nb: 1\n", "f:2: the line does not belong to what is above it; compare its"),
        ("%FOO: |\na: 1\n", "f:1: a value cannot begin with %"),
        ("a: &x 1\nb: &x 2\n", "f:2: the name behind `&` is above already; write another name"),
        ("a: 'x\n---\nb: 1\n", "a quote is not closed; write the same quote"),
    ],
)
def test_what_does_not_belong_together(text: str, words: str) -> None:
    """The line is named, and no word of the reader's is left that says nothing."""
    (found,) = said(text)

    assert words in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1,\n", "a bracket or brace is not closed; write `]`"),
        ("a: {b: 1\n", "a bracket or brace is not closed; write `]`"),
        ("a: [1, 2\nb: 3\n", "a bracket or brace above is not closed, or a comma is missing"),
        ("a: {b: 1\nc: 2\n", "a bracket or brace above is not closed, or a comma is missing"),
    ],
)
def test_an_open_bracket(text: str, words: str) -> None:
    """What is not closed is called so, whatever is found in its place."""
    (found,) = said(text)

    assert words in found


@pytest.mark.parametrize(
    "below",
    ["---\n", "---", "...\n", "...\n---\n", "--- # the end\n\n", "---\n# none\n---\n...\n---\n"],
)
def test_an_empty_document_below(below: str) -> None:
    """What a program has put there, which ends each document so, is no config."""
    assert said(good() + below) == []


@pytest.mark.parametrize(
    "below",
    [
        "---\nother: 1\n",
        "...\n---\nother: 1\n",
        "---\nother: [\n",
        "---\n\tother\n",
        "---\n''\n",
        "---\n~\n",
        "---\n- 1\n",
        "---\n...\n---\nother: 1\n",
    ],
)
def test_a_second_document(below: str) -> None:
    """It is named, and the first is judged."""
    text = good().replace("10.9.0.0/24", "10.9.0.0/240")
    lines = below.splitlines()
    where = len(text.splitlines()) + len(lines) - lines[::-1].index("---")

    first, second = said(text + below)

    assert first.endswith("such as 10.0.0.0/20")
    assert second.startswith(f"f:{where}: a second document begins here; keep only one of the two")


def test_an_anchor_and_a_merge() -> None:
    """What YAML lets one write once is read in each place."""
    text = good().replace("ipsec_subnets:\n", "ipsec_subnets: &all\n", 1)

    assert said(text.replace("prestart_timeout: 40", "<<: {stop_timeout: 5}")) == []
    parsed = parse(
        text.replace("no_ipsec_subnets: []", "no_ipsec_subnets: *all"),
        file="f",
        now=datetime.now(UTC),
    )
    assert parsed.config is not None
    assert parsed.config.no_ipsec_subnets == parsed.config.ipsec_subnets
    for other in ("((rest))", "word", "", "[{stop_timeout: 5}, word]"):
        (found,) = said(text.replace("prestart_timeout: 40", f"<<: {other}"))
        assert "only a mapping can be merged with `<<`; write `<<: *name` of a mapping" in found
