"""The page: what a browser makes of it, whatever the files say."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from ipsec_agent.core.report.examined import examined
from ipsec_agent.core.report.markup import element
from ipsec_agent.core.report.matrix import MOST, Mark, matrix
from ipsec_agent.core.report.page import MOST_FINDINGS, page
from ipsec_agent.core.report.reading import read
from ipsec_agent.core.report.text import text
from tests.fleet_documents import Document, fleet, report, status

EVIL = (
    "</td></title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'"
    " \x1b[2J\u202e&lt;"
)

TAGS = {
    *("html", "head", "body", "meta", "title", "style", "h1", "h2", "p", "ul", "li", "b", "div"),
    *("span", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "scope", "title", "tabindex"),
}


class Seen(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ended: list[str] = []
        self.attributes: set[str] = set()
        self.titles: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_endtag(self, tag: str) -> None:
        """Keep it."""
        self.ended.append(tag)

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.words.append(data)


def places(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there are texts in a document."""
    inner = found.items() if isinstance(found, dict) else enumerate(found)
    for key, value in inner:
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        elif isinstance(value, str):
            yield (*path, key)


def full() -> Document:
    """A document in which each list has something."""
    doc = status("10.0.0.1", ("10.0.0.2",), clear=("10.0.0.3",))
    doc["guard"]["clear_in"] = [{"address": "10.0.0.4", "packets": 1, "bytes": 1, "idle": 1}]
    doc["optional"] |= {"never_heard": doc["optional"]["would_cut_off"], "unseen": ["10.0.0.6"]}
    return doc


def judged(shown: str) -> None:
    """Nothing but what the page is made of."""
    seen = Seen(shown)
    assert set(seen.tags) <= TAGS
    assert seen.attributes <= ATTRIBUTES
    assert sorted(tag for tag in seen.tags if tag != "meta") == sorted(seen.ended)
    assert (seen.tags.count("style"), seen.tags.count("title")) == (1, 1)


@pytest.mark.parametrize("optional", [False, True])
def test_no_text_becomes_markup(optional: bool) -> None:
    """Each text of a document, and the file's name, as evil as it can be."""
    doc = full()
    if not optional:
        doc["optional"] = None
    taken = 0
    for path in places(doc):
        changed = json.loads(json.dumps(doc))
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = EVIL
        found = read(f"in/{EVIL}.json", json.dumps(changed).encode())
        other = read("b.json", json.dumps(status("10.0.0.2")).encode())
        made = examined(type(found)(found.vms + other.vms, found.flaws))
        taken += len(found.vms)
        judged(page(made))
        assert not re.search("[^\\n -~“”…�≠]", text(made)), path
    assert taken > 30


def test_one_page_for_itself() -> None:
    """It asks for nothing, and the browser is told to let it."""
    shown = page(report(fleet()))

    assert "default-src 'none'" in shown.replace("&#x27;", "'")
    assert not re.search(
        r"(src|href|url\(|@import|https?:|<script|<link|<iframe)", shown.replace("-src", "")
    )
    judged(shown)


def test_escaping_is_the_only_way() -> None:
    """A text is escaped where it comes from, once, and in attributes, too."""
    assert element("p", "<b>", element("b", "&")) == "<p>&lt;b&gt;<b>&amp;</b></p>"
    assert element("td", title="\"'<>") == '<td title="&quot;&#x27;&lt;&gt;"></td>'


def test_matrix() -> None:
    """A row is what its VM says; clear packets show above all else."""
    docs = fleet(6)
    docs[0]["peers"][0] |= {"state": "silent"}
    docs[0]["peers"][4] |= {"state": "gone"}
    docs[0]["peers"][1] |= {"problem": "peer-refuses-us"}
    docs[3]["peers"] = docs[3]["peers"][1:]
    docs[4]["peers"][0] |= {"state": "gone"}
    docs[5]["guard"]["clear_in"] = [{"address": "10.0.0.99", "packets": 1, "bytes": 1, "idle": 1}]
    docs[5]["guard"]["clear_out"] = [{"address": "10.0.0.1", "packets": 1, "bytes": 1, "idle": 1}]
    shown = matrix(report(docs))

    assert shown.rows == tuple(f"10.0.0.{number}" for number in range(1, 7))
    assert shown.columns == (*shown.rows, "10.0.0.99")
    lines = [
        "".join(shown.mark(row, one).letter or "." for one in shown.columns) for row in shown.rows
    ]
    assert lines == [".≠F≠≠≠.", "≠.EEEE.", "EE.EEE.", "≠EE.EE.", "≠EEE.E.", "DEEEE.D"]
    meanings = " ".join(Seen(page(report(docs))).words)
    assert all(mark.meaning in meanings for mark in Mark)
    assert f"10.0.0.6 with 10.0.0.99: {Mark.DROPPED.meaning}" in Seen(page(report(docs))).titles


def test_large() -> None:
    """Of a fleet that is too large those with something wrong are shown; a liar fills no page."""
    names = [f"10.0.{number // 200}.{number % 200 + 1}" for number in range(MOST + 20)]
    docs = [status(name) for name in names]
    problem = {"severity": "error", "message": "m", "hint": "", "since": 0.0}
    docs[-1] |= {
        "healthy": False,
        "problems": [{**problem, "code": f"made-up-{number}"} for number in range(1000)],
    }
    made = report(docs)
    shown = matrix(made)

    assert (len(shown.rows), shown.left_out) == (MOST, 20)
    assert names[-1] in shown.rows
    told = page(made)
    assert 'class="matrix dense"' in told
    assert told.count("<li") == MOST_FINDINGS + len(Mark) + 2
    assert f"and {1000 - MOST_FINDINGS} more; --json has all" in told
