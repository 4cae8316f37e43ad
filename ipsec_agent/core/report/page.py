"""The report as one HTML page that needs nothing else: no script, no image, no address."""

from collections.abc import Iterator

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.report.examined import Report
from ipsec_agent.core.report.findings import TITLES, Finding, Kind, chosen, code
from ipsec_agent.core.report.markup import Markup, element, style, together
from ipsec_agent.core.report.markup import page as whole
from ipsec_agent.core.report.matrix import DENSE, Mark, Matrix, matrix
from ipsec_agent.core.report.page_style import RULES
from ipsec_agent.core.words import instant

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may load for the page: nothing. Were a text not escaped, it could not run."""


MOST_FINDINGS = 200
"""Of a kind that are shown, whatever a VM makes up."""


def page(report: Report) -> str:
    """The page."""
    head = (
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"ipsec-agent report: {report.verdict}"),
        style(RULES),
    )
    body = (
        element("h1", "ipsec-agent report"),
        element("p", report.verdict, class_="well" if report.well else "verdict"),
        element("p", f"State of {instant(report.fleet.now)}, the middle of the files' times.")
        if report.fleet.now
        else Markup(""),
        *_unreadable(report),
        *_sections(report),
        *_matrix(matrix(report), report),
        _vms(report),
    )
    return whole(head, body)


def _unreadable(report: Report) -> Iterator[Markup]:
    if report.flaws:
        yield element("h2", "Files that could not be read")
        yield element("ul", *(element("li", str(one), class_="error") for one in report.flaws))


def _sections(report: Report) -> Iterator[Markup]:
    for kind in Kind:
        found = [one for one in report.findings if one.kind is kind]
        if found:
            yield element("h2", TITLES[kind])
            yield element("ul", *map(_finding, chosen(found, MOST_FINDINGS)))
            if len(found) > MOST_FINDINGS:
                yield element("p", f"and {len(found) - MOST_FINDINGS} more; --json has all")


def _finding(one: Finding) -> Markup:
    loud = one.severity is not Severity.INFO
    mark = element("b", one.severity.value.upper()) if loud else Markup("")
    hint = element("div", f"to do: {one.hint}", class_="hint") if one.hint else Markup("")
    return element("li", mark, " " if loud else "", one.message, hint, class_=one.severity.value)


def _matrix(shown: Matrix, report: Report) -> Iterator[Markup]:
    if not shown.rows:
        return
    yield element("h2", "Who speaks with whom")
    yield element(
        "p", "A row is what its VM says, a column is the peer. A name with * has no file."
    )
    if shown.left_out:
        yield element(
            "p",
            f"{shown.left_out} VMs have no room here; those with findings are shown.",
        )
    yield element("ul", *map(_meaning, Mark), class_="legend")
    names = [name if name in report.fleet.partners else f"{name} *" for name in shown.columns]
    header = element(
        "tr",
        element("th", "VM", class_="corner"),
        *(element("th", element("span", name), scope="col") for name in names),
    )
    rows = (
        element(
            "tr",
            element("th", row, scope="row", class_=_severity(report, row)),
            *_cells(shown, row),
        )
        for row in shown.rows
    )
    dense = " dense" if len(shown.columns) > DENSE else ""
    table = element(
        "table", element("thead", header), element("tbody", *rows), class_=f"matrix{dense}"
    )
    yield element("div", table, class_="scroll", tabindex="0")


_PLAIN = {mark: element("td", mark.letter, class_=mark.style) for mark in Mark}
"""Most cells are alike."""

_TITLED = frozenset({Mark.CLEAR, Mark.DROPPED, Mark.FAILS, Mark.ODD})
"""Marks of which a cell tells who it is between."""


def _cells(shown: Matrix, row: str) -> Iterator[Markup]:
    for column in shown.columns:
        mark = shown.mark(row, column)
        if mark in _TITLED:
            title = f"{row} with {column}: {mark.meaning}"
            yield element("td", mark.letter, class_=mark.style, title=title)
        else:
            yield _PLAIN[mark]


def _meaning(mark: Mark) -> Markup:
    cell = element("span", mark.letter or "\xa0", class_=f"cell {mark.style}")
    return element("li", cell, " ", mark.meaning)


def _severity(report: Report, name: str) -> str:
    loud = report.loudest.get(name)
    return loud.value if loud else ""


def _vms(report: Report) -> Markup:
    titles = ("VM", "finding", "state", "peers with SAs", "ipsec-agent", "charon", "config", "file")
    rows = (
        element(
            "tr",
            element("th", vm.name, scope="row"),
            element("td", _severity(report, vm.name) or "ok", class_=_severity(report, vm.name)),
            element("td", code(vm.said.state)),
            element("td", str(sum(peer.up for peer in vm.said.peers))),
            element("td", code(vm.said.version) if vm.said.version else ""),
            element("td", code(vm.said.charon.version) if vm.said.charon else ""),
            element("td", code(vm.said.fingerprint.config) if vm.said.fingerprint else ""),
            element("td", str(vm.source)),
        )
        for vm in report.fleet.vms
    )
    header = element("tr", *(element("th", title, scope="col") for title in titles))
    table = element("table", element("thead", header), element("tbody", *rows), class_="vms")
    return together((element("h2", "VMs"), element("div", table, class_="scroll", tabindex="0")))
