"""The pages in headless Chromium: tables sort, filter and are saved, print shows everything, and
axe-core finds nothing to object to (if UNET_AXE names its axe.min.js)."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from tests.report.browser import run_in_page
from tests.report.test_report import make_report, make_results
from unet.config.stage_settings import DatasetTask
from unet.data.dataset_warnings import write_warnings
from unet.paths import Paths
from unet.report.dataset_results import PageSection
from unet.report.overall_page import report_all
from unet.report.page_file import render, write_page
from unet.report.single_page import SINGLE, write_single

pytestmark = pytest.mark.browser

# Name, score with its interval, time, memory.
ROWS = [
    ("b10", "0.900", "[0.8, 1]", "3 min 05 s", "512 MiB"),
    ("b9", "1,234", "", "0.4 s", "1.5 GiB"),
    ("c, d", "–", "", "2 h 07 min", "–"),
    ("a", "0.0995", "[0, 0.2]", "12 s", "90 MiB"),
]


def table_page(folder: Path, repeat: int = 1) -> Path:
    """A page with one table."""
    cells = "".join(
        f'<tr><th class="text" scope="row">{name}</th><td>{score}<span class="range">{interval}'
        f"</span></td><td>{time}</td><td>{memory}</td></tr>"
        for name, score, interval, time, memory in ROWS * repeat
    )
    heads = "".join(f"<th>{name}</th>" for name in ("Name", "Score", "Time", "Memory"))
    html = (
        f'<section id="s"><h2>Scores</h2><div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{cells}</tbody></table></div><details><summary>More</summary><p>x</p></details>"
        "</section>"
    )
    page = render(
        "dataset.html.j2", dataset="d", task="semantic", models=("m",), applied=True, warnings=[],
        listed=0, sections=[PageSection("s", "Scores", Markup(html))],
    )  # fmt: skip
    write_page(folder / "table.html", page)
    return folder / "table.html"


# The texts of a column, and clicks on its head.
COLUMN = """
const body = document.querySelector("tbody");
const names = () => [...body.rows].filter((r) => !r.hidden).map((r) => r.cells[0].textContent);
const heads = [...document.querySelectorAll("thead th")];
const found = [];
"""


def test_tables_sort_by_value(tmp_path: Path) -> None:
    script = (
        COLUMN
        + """
    for (const head of heads) {
      for (let click = 0; click < 3; click++) {
        head.querySelector("button").click();
        found.push([head.getAttribute("aria-sort"), names()]);
      }
    }
    heads[1].querySelector("button").click();
    heads[2].querySelector("button").click();
    found.push(heads.map((head) => head.getAttribute("aria-sort")));
    heads[1].querySelector("button").focus();
    found.push(document.activeElement === heads[1].querySelector("button"));
    return found;"""
    )
    found = run_in_page(table_page(tmp_path), tmp_path, script)
    given = ["b10", "b9", "c, d", "a"]
    by_name = ["a", "b9", "b10", "c, d"]
    # What is not known is last both ways.
    by_score, by_time, by_memory = (
        ["a", "b10", "b9"],
        ["b9", "a", "b10", "c, d"],
        ["a", "b10", "b9"],
    )
    ways: list[list[Any]] = []
    for up, down in (
        (by_name, by_name[::-1]),
        ([*by_score, "c, d"], [*by_score[::-1], "c, d"]),
        (by_time, by_time[::-1]),
        ([*by_memory, "c, d"], [*by_memory[::-1], "c, d"]),
    ):
        ways += [["ascending", up], ["descending", down], [None, given]]
    assert found[:12] == ways
    assert found[12:] == [[None, None, "ascending", None], True]


def test_long_tables_filter_and_short_ones_do_not(tmp_path: Path) -> None:
    script = (
        COLUMN
        + """
    const input = document.querySelector("input[type=search]");
    if (!input) return null;
    for (const text of ["", "MIB b10", "c, d", "nothing"]) {
      input.value = text;
      input.dispatchEvent(new Event("input"));
      found.push([names().length, document.querySelector("[role=status]").textContent]);
    }
    return found;"""
    )
    assert run_in_page(table_page(tmp_path), tmp_path, script) is None
    assert run_in_page(table_page(tmp_path, repeat=4), tmp_path, script) == [
        [16, ""], [4, "4 of 16 rows"], [4, "4 of 16 rows"], [0, "0 of 16 rows"]
    ]  # fmt: skip


def test_tables_are_saved_as_csv(tmp_path: Path) -> None:
    script = """
    let saved, name;
    URL.createObjectURL = (blob) => { saved = blob; return "#"; };
    HTMLAnchorElement.prototype.click = function () { name = this.download; };
    document.querySelectorAll("thead button")[1].click();
    document.querySelector(".save").click();
    return [name, await saved.text(), new Uint8Array(await saved.arrayBuffer())[0]];"""
    name, text, first = run_in_page(table_page(tmp_path), tmp_path, script)
    assert name == "d-Scores.csv"
    assert first == 0xEF  # Excel's mark of UTF-8
    # As they are sorted on the page.
    assert list(csv.reader(io.StringIO(text))) == [
        ["Name", "Score", "Score interval", "Time", "Memory"],
        ["a", "0.0995", "[0, 0.2]", "12 s", "90 MiB"],
        ["b10", "0.900", "[0.8, 1]", "3 min 05 s", "512 MiB"],
        ["b9", "1234", "", "0.4 s", "1.5 GiB"],
        ["c, d", "", "", "2 h 07 min", ""],
    ]


def test_print_opens_what_is_folded(tmp_path: Path) -> None:
    script = """
    const folded = document.querySelector("details");
    const found = [folded.open];
    dispatchEvent(new Event("beforeprint"));
    found.push(folded.open);
    dispatchEvent(new Event("afterprint"));
    return [...found, folded.open];"""
    assert run_in_page(table_page(tmp_path), tmp_path, script) == [False, True, False]


def test_a_foreign_script_does_not_run(tmp_path: Path) -> None:
    page = table_page(tmp_path)
    text = page.read_text("utf-8")
    page.write_text(text.replace("</main>", "</main><script>window.ran = true</script>"), "utf-8")
    assert run_in_page(page, tmp_path, "return window.ran ?? null") is None


@pytest.fixture(scope="module")
def run_pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The pages of a run with two datasets, its overview, and all in one."""
    paths = Paths(tmp_path_factory.mktemp("run"))
    tasks: dict[str, Any] = {"cells": "semantic", "nuclei": "instances"}
    for name, task in tasks.items():
        make_results(paths, name, ["m1", "m2"], task)
        write_warnings(paths.warnings(name, "manifest"), ["a warning"])
        make_report(paths, name, ["m1", "m2"], task)
    report_all(paths, {n: DatasetTask(task=t, models=("m1", "m2")) for n, t in tasks.items()})
    write_single(paths.output, paths.output / SINGLE)
    found = [paths.report_html, *(paths.dataset_report_html(name) for name in tasks)]
    return [*found, paths.output / SINGLE]


def test_pages_fit_a_phone(run_pages: list[Path], tmp_path: Path) -> None:
    # A frame as wide as a phone, since Chromium's own window cannot be that narrow.
    script = """
    const frame = document.documentElement;
    frame.style.width = "360px";
    const wide = [...document.querySelectorAll("main > *, main > article > *")].filter(
      (one) => one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > 361);
    return wide.map((one) => one.id || one.tagName);"""
    for page in run_pages:
        assert run_in_page(page, tmp_path, script, width=500) == []


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_violation(run_pages: list[Path], tmp_path: Path, dark: bool) -> None:
    library = os.environ.get("UNET_AXE", "")
    if not Path(library).is_file():
        pytest.skip("no axe-core: UNET_AXE must name its axe.min.js (make report-test gets it)")
    script = """
    for (const folded of document.querySelectorAll("details")) folded.open = true;
    const found = await axe.run(document);
    return {
      dark: matchMedia("(prefers-color-scheme: dark)").matches,
      passed: found.passes.length,
      violations: found.violations.flatMap((one) =>
        one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 200)}`)),
    };"""
    axe = Path(library).read_text("utf-8")
    for page in run_pages:
        found = run_in_page(page, tmp_path, script, before=axe, dark=dark)
        assert found["violations"] == [], page
        assert found["dark"] is dark
        assert found["passed"] > 20
