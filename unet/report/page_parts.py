"""Takes a page of the report apart, so that it can be a part of a larger page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser

# Attributes that name one element, or several.
_ONE_ID = frozenset(("id", "for", "list", "name", "form", "popovertarget"))
_IDS = frozenset(
    ("aria-labelledby", "aria-describedby", "aria-controls", "aria-owns", "aria-details", "headers")
)
_LINKS = frozenset(("href", "xlink:href"))
Attributes = list[tuple[str, str | None]]


@dataclass(frozen=True)
class PageParts:
    """The parts of a page.

    Attributes:
        main: what is inside ``<main>``, with the changed names.
        style: the text of the page's style sheets.
        scripts: the texts of its scripts.
    """

    main: str
    style: str
    scripts: tuple[str, ...]


def page_parts(text: str, prefix: str, name: str, link: Callable[[str], str | None]) -> PageParts:
    """Takes a page apart.

    Args:
        prefix: is put before each id, and wherever the page refers to an id.
        name: of the part, put before the names of its landmarks.
        link: gives the new target of a link to another file; None removes the link and keeps its
            text.
    """
    parser = _Parser(prefix, name, link)
    parser.feed(text)
    parser.close()
    return PageParts("".join(parser.main), "".join(parser.style), tuple(parser.scripts))


class _Parser(HTMLParser):
    def __init__(self, prefix: str, name: str, link: Callable[[str], str | None]) -> None:
        super().__init__(convert_charrefs=False)
        self._prefix, self._name, self._link = prefix, name, link
        self._inside, self._open = False, ""
        self.main: list[str] = []
        self.style: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        if tag == "main":
            self._inside = True
        elif self._inside:
            changed = [pair for pair in self._changed(tag, attrs) if pair is not None]
            raw = self.get_starttag_text() or ""
            self.main.append(raw if changed == attrs else _tag(tag, changed, raw.endswith("/>")))
        else:
            self._open = tag
            if tag == "script":
                self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""
        if tag == "main":
            self._inside = False
        elif self._inside:
            self.main.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.main.append(data)
        elif self._open == "style":
            self.style.append(data)
        elif self._open == "script":
            self.scripts[-1] += data

    def handle_entityref(self, name: str) -> None:
        self.handle_data(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.handle_data(f"&#{name};")

    def _changed(self, tag: str, attrs: Attributes) -> Iterable[tuple[str, str | None] | None]:
        for key, value in attrs:
            if value is None:
                yield key, value
            elif key in _ONE_ID:
                yield key, self._prefix + value
            elif key in _IDS:
                yield key, " ".join(self._prefix + one for one in value.split())
            elif key == "aria-label" and tag == "nav":
                yield key, f"{self._name}: {value}"
            elif key in _LINKS and not value.startswith("data:"):
                target = self._target(value)
                yield None if target is None else (key, target)
            else:
                yield key, re.sub(r"url\((['\"]?)#", rf"url(\g<1>#{self._prefix}", value)

    def _target(self, value: str) -> str | None:
        return f"#{self._prefix}{value[1:]}" if value.startswith("#") else self._link(value)


def _tag(tag: str, attrs: Iterable[tuple[str, str | None]], closed: bool) -> str:
    written = (key if value is None else f'{key}="{escape(value)}"' for key, value in attrs)
    return f"<{' '.join((tag, *written))}{' /' if closed else ''}>"
