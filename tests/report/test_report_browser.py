"""The tables of a page in headless Chromium: they sort, filter and are saved; print opens what is
folded; no foreign script runs. ``test_every_page.py`` has what holds for all pages."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from tests.report.browser import run_in_page
from unet.report.dataset_results import PageSection
from unet.report.page_file import render, write_page

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
