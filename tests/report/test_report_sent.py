"""Reports that people send around, packed by Snakemake or as one page, have no broken links."""

from __future__ import annotations

import shutil
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.workflow.test_workflow import Workplace
from unet.paths import Paths

pytestmark = pytest.mark.workflow


class Page(HTMLParser):
    """Collects the references and anchors of a page.

    Attributes:
        files: links to the results of an image, which work where the page lies in its results.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.references: list[str] = []
        self.files: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if ("class", "file") in attrs and name == "href":
                self.files.append(value or "")
            elif name in ("href", "src", "data", "srcset", "action", "poster"):
                self.references.append(value or "")
            if name == "id":
                self.ids.add(value or "")

    def is_ours(self) -> bool:
        return "Content-Security-Policy" in self.path.read_text(encoding="utf-8")

    def elsewhere(self) -> list[str]:
        """Links to other reports of the run; the page says what they need. Nothing is loaded from
        elsewhere."""
        return [r for r in self.references if r.endswith("/report.html")]

    def broken(self) -> list[str]:
        """References that are broken if only this page is available."""
        return self._broken(self.references)

    def broken_files(self) -> list[str]:
        return self._broken(self.files)

    def _broken(self, references: list[str]) -> list[str]:
        found = []
        for reference in references:
            path, _, anchor = reference.partition("#")
            if reference.startswith("data:"):
                continue
            if not path:
                found += [] if anchor in self.ids else [reference]
            elif not (self.path.parent / unquote(path)).is_file():
                found.append(reference)
        return found


def pages_of(folder: Path) -> list[Path]:
    paths = Paths(folder / "out")
    return [paths.report_html, *(paths.dataset_report_html(name) for name in ("sem", "own"))]


def test_a_page_alone(finished_run: Path, tmp_path: Path) -> None:
    for number, path in enumerate(pages_of(finished_run)):
        (tmp_path / str(number)).mkdir()
        page = Page(Path(shutil.copy(path, tmp_path / str(number) / "mailed.html")))
        assert page.broken() == page.elsewhere()
    overall = Page(Paths(finished_run / "out").report_html)
    assert overall.elsewhere() == ["own/report.html", "sem/report.html"]
    assert overall.broken() == []
    # The check finds the page's anchors and pictures.
    assert any(reference.startswith("#") for reference in page.references)
    assert any(reference.startswith("data:image") for reference in page.references)


def test_links_to_files_work_in_the_results(finished_run: Path) -> None:
    for path in pages_of(finished_run)[1:]:
        page = Page(path)
        assert page.files
        assert page.broken_files() == []


def test_a_packed_report(finished_run: Path, tmp_path: Path) -> None:
    archive = tmp_path / "report.zip"
    done = Workplace(finished_run).snakemake("--report", str(archive))
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "unpacked")
    pages = list((tmp_path / "unpacked").rglob("*.html"))
    contents = {path.read_text(encoding="utf-8"): Page(path) for path in pages}
    # All our pages are in it, unchanged.
    for path in pages_of(finished_run):
        page = contents[path.read_text(encoding="utf-8")]
        assert page.broken() == page.elsewhere()
    # Snakemake's own page links to them.
    assert len(pages) > 3
    for page in contents.values():
        broken = [r for r in page.broken() if not r.startswith("http")]
        assert broken == (page.elsewhere() if page.is_ours() else [])


def test_the_check_finds_what_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        '<a href="d/report.html"></a><img src="x.png"><a href="#there" id="there"></a>'
        '<a href="#nowhere"></a><img src="data:image/png;base64,"><a href="page.html#there"></a>'
    )
    assert Page(path).broken() == ["d/report.html", "x.png", "#nowhere"]
    path.write_text('<a class="file" href="page.html"></a><a href="m.csv" class="file"></a>')
    assert Page(path).broken() == []
    assert Page(path).broken_files() == ["m.csv"]
