"""One page with the overview of a run and the pages of all its datasets, made from these pages."""

from __future__ import annotations

import logging
import posixpath
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from markupsafe import Markup

from unet.errors import UserError
from unet.paths import Paths
from unet.provenance import read_made_by
from unet.report.page_file import render, write_page
from unet.report.page_parts import PageParts, page_parts

log = logging.getLogger(__name__)

SINGLE = "report-single.html"
OVERVIEW = "Overview"
# A script of a page sees its own part as the whole document.
_SCOPED = """"use strict";
(() => {
const run = function (document) {
%s
};
for (const part of document.querySelectorAll("main > article")) {
  const own = {
    getElementById: (id) => document.getElementById(part.id + id),
    querySelector: (selector) => part.querySelector(selector),
    querySelectorAll: (selector) => part.querySelectorAll(selector),
  };
  run(new Proxy(document, {
    get(_, name) {
      if (Object.hasOwn(own, name)) return own[name];
      const value = document[name];
      return typeof value === "function" ? value.bind(document) : value;
    },
    set(_, name, value) { document[name] = value; return true; },
  }));
}
})();
"""


@dataclass(frozen=True)
class ReportPage:
    """A page of a run's report; ``id``: the prefix of its ids in the single page, and its own id.

    No two ids are equal: names of datasets begin with a letter or a digit, and no id of a page
    begins with two underscores.
    """

    name: str
    path: Path

    @property
    def id(self) -> str:
        return "__" if self.name == OVERVIEW else f"{self.name}__"


def report_pages(results: Path) -> list[ReportPage]:
    """The overview of a run and the pages of its datasets, as far as they exist.

    Raises:
        UserError: there is no overview, or it is the folder of a dataset.
    """
    paths = Paths(results)
    # ".." and links have other names than the folder itself.
    folder = results.resolve()
    if Paths(folder.parent).manifest(folder.name).is_file():
        # A dataset may lie elsewhere, with a link to it in the results.
        near = results.absolute().parent
        linked = ".." not in results.parts and Paths(near).report_html.is_file()
        above = near if linked else folder.parent
        raise UserError(
            f"{results}: the folder of a dataset; give the results folder above: {above}"
        )
    if not paths.report_html.is_file():
        raise UserError(
            f"{results}: no report.html here; give the results folder of a run (unet run makes it)"
        )
    made_by = read_made_by(paths.report_csv) or {}
    names = list(made_by.get("settings", {}).get("datasets", {}))
    # Early versions did not record them.
    names = names or sorted(path.parent.name for path in results.glob("*/report.html"))
    pages = [ReportPage(OVERVIEW, paths.report_html)]
    for name in names:
        page = ReportPage(name, paths.dataset_report_html(name))
        if page.path.is_file():
            pages.append(page)
        else:
            log.warning("warning: %s: no report.html, so it is left out", name)
    return pages


def write_single(results: Path, file: Path) -> list[ReportPage]:
    """Writes one page with all pages of a run, and returns these.

    Links between the pages lead to their parts; links to other files are left out, and their texts
    stay.

    Raises:
        UserError: there is no report, or ``file`` is one of its pages.
    """
    pages = report_pages(results)
    if file.resolve() in {page.path.resolve() for page in pages}:
        raise UserError(f"{file}: is a page of the report itself; give another file with --output")
    ids = {page.path.relative_to(results).as_posix(): page.id for page in pages}
    parts = [_parts(page, page.path.relative_to(results).as_posix(), ids) for page in pages]
    frame = page_parts(render("base.html.j2"), "", "", lambda _: None).style.rstrip()
    styles = dict.fromkeys(part.style.strip().removeprefix(frame.strip()) for part in parts)
    scripts = dict.fromkeys(script for part in parts for script in part.scripts)
    page = render(
        "single.html.j2",
        pages=[(page, Markup(part.main)) for page, part in zip(pages, parts, strict=True)],
        styles=[Markup(style) for style in styles],
        scripts=[_SCOPED % script for script in scripts],
    )
    write_page(file, page)
    return pages


def _parts(page: ReportPage, name: str, ids: dict[str, str]) -> PageParts:
    def link(target: str) -> str | None:
        path, _, anchor = target.partition("#")
        found = ids.get(posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(path))))
        return None if found is None else f"#{found}{anchor}"

    text = page.path.read_text(encoding="utf-8")
    return page_parts(text, page.id, page.name, link)
