"""Reads the HTML of report pages."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser shows: text of sections by title, figures, attributes. An unbalanced tag is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.sections: dict[str, str] = {"": ""}
        self.rows: list[list[str]] = []
        self.figures: list[str] = []  # "drawn" or "", and the text of each molecule's figure
        self.title = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)
        if tag == "section":
            self.title = ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "figure":
            self.figures.append("")
        if tag == "svg":
            self.figures[-1] += "drawn "

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "h2" in self.open:
            self.title += data
            self.sections[self.title] = ""
        elif not {"script", "style"} & set(self.open):
            self.sections[self.title] += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if "figure" in self.open and "svg" not in self.open:
            self.figures[-1] += data.strip()

    def row(self, first: str) -> list[str]:
        (found,) = [row for row in self.rows if row[0] == first]
        return found


def check_offline(html: str) -> None:
    """The page loads nothing, contains no date, and no text in it is run."""
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:|//\w|@import|url\(|\bfetch\b|XMLHttp|import\(", html)
    assert not {"link", "img", "iframe", "object", "embed", "base", "form", "image", "use", "a"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "href", "xlink:href", "srcset", "action", "data", "poster"} & names
    assert not [name for name in names if name.startswith(("on", "xmlns"))]
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d\b", html)
    assert page.tags["script"] == page.tags["style"] == 1
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'") in page.attributes
