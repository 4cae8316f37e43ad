"""HTML in which each text is escaped, since there is no other way to put one in."""

from collections.abc import Iterable
from html import escape

VOID = frozenset({"meta"})
"""Elements without an end."""


class Markup(str):
    """HTML, made by this module only."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str) -> Markup:
    """An element; a child that is not Markup is a text.

    Args:
        attributes: an underscore at the end of a name is left out, others are hyphens.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value
    )
    if name in VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{together(children)}</{name}>")


def together(children: Iterable[str]) -> Markup:
    """One after the other."""
    return Markup(
        "".join(child if isinstance(child, Markup) else escape(child) for child in children)
    )


def style(rules: str) -> Markup:
    """A style sheet, which is a constant of this package."""
    return Markup(f"<style>{rules}</style>")


def page(head: Iterable[str], body: Iterable[str]) -> Markup:
    """A whole document."""
    content = element("html", element("head", *head), element("body", *body), lang="en")
    return Markup(f"<!DOCTYPE html>\n{content}\n")
