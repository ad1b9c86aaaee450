"""One page with all pages of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.report.browser import run_in_page
from tests.report.page_policy import assert_scripts_allowed
from tests.report.test_report import make_report, make_results
from unet.cli import main
from unet.config.stage_settings import DatasetTask
from unet.paths import Paths
from unet.report.overall_page import report_all
from unet.report.page_parts import page_parts
from unet.report.single_page import report_pages, write_single

PAGE = """<!DOCTYPE html><html><head><style>a > b { }</style></head><body>
<main class="x"><nav aria-label="Parts"><a href="#s">S</a></nav>
<h2 id="s">1 &lt; 2 &amp; 3 &#181;</h2><a href="d/report.html#t">d</a>
<a href="x.tif" class="m">x</a>
<p aria-labelledby="s t">p</p><label for="i">l</label>
<input id="i" name="n" value="a&quot;b" checked>
<svg viewBox="0 0 1 1"><g clip-path="url(#c)"></g><use xlink:href="#c"/></svg>
<script type="application/json" id="j">{"a": "<b>"}</script><!-- gone -->
<img src="data:image/png;base64,AA" alt="a > b"></main>
<script>one < two;</script><script>three;</script></body></html>"""


def test_a_page_is_taken_apart_with_its_names_changed() -> None:
    parts = page_parts(PAGE, "p__", "d", {"d/report.html#t": "#d__t"}.get)
    assert parts.style == "a > b { }"
    assert parts.scripts == ("one < two;", "three;")
    for expected in (
        '<nav aria-label="d: Parts"><a href="#p__s">S</a>',
        '<h2 id="p__s">1 &lt; 2 &amp; 3 &#181;</h2>',
        '<a href="#d__t">d</a>\n<a class="m">x</a>',
        '<p aria-labelledby="p__s p__t">',
        '<label for="p__i">',
        '<input id="p__i" name="p__n" value="a&quot;b" checked>',
        '<svg viewBox="0 0 1 1"><g clip-path="url(#p__c)"></g><use xlink:href="#p__c" /></svg>',
        '<script type="application/json" id="p__j">{"a": "<b>"}</script>',
        '<img src="data:image/png;base64,AA" alt="a > b">',
    ):
        assert expected in parts.main, expected
    assert "main" not in parts.main
    assert "gone" not in parts.main


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The results of a run with two datasets."""
    paths = Paths(tmp_path / "results")
    tasks: dict[str, Any] = {"cells": "semantic", "nuclei": "instances"}
    for name, task in tasks.items():
        make_results(paths, name, ["m1", "m2"], task)
        make_report(paths, name, ["m1", "m2"], task)
    report_all(paths, {n: DatasetTask(task=t, models=("m1", "m2")) for n, t in tasks.items()})
    return paths.output


def test_the_single_page_has_all_pages_and_no_reference_out(results: Path) -> None:
    file = results / "all.html"
    assert [page.name for page in write_single(results, file)] == ["Overview", "cells", "nuclei"]
    page = file.read_text("utf-8")
    assert_scripts_allowed(page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    links = re.findall(r'\bhref="([^"]*)"', page)
    assert {"#cells__", "#nuclei__", "#__", "#cells__scores", "#nuclei__scores"} <= set(links)
    assert {link[1:] for link in links} <= set(ids)
    assert all(link.startswith("#") for link in links)
    assert all(s.startswith("data:image/") for s in re.findall(r'\bsrc="([^"]*)"', page))
    # All pictures of all pages, and each style sheet once.
    pages = [each.path.read_text("utf-8") for each in report_pages(results)]
    assert page.count("<img ") == sum(each.count("<img ") for each in pages)
    assert page.count("<style>") == 1
    assert page.count("color-scheme: light dark;") == 1


@pytest.mark.browser
def test_scripts_work_in_each_part_of_the_single_page(results: Path, tmp_path: Path) -> None:
    write_single(results, results / "all.html")
    script = """
    const found = {};
    for (const part of document.querySelectorAll("main > article")) {
      const table = part.querySelector("table");
      table.querySelector("thead button").click();
      found[part.id] = [
        table.querySelectorAll("[aria-sort]").length,
        part.querySelectorAll(".save").length ===
          part.querySelectorAll("table:not([data-plain])").length,
        table.querySelectorAll("thead button button").length,
      ];
    }
    return found;"""
    found = run_in_page(results / "all.html", tmp_path, script)
    assert found == {name: [1, True, 0] for name in ("__", "cells__", "nuclei__")}


def test_the_command_names_the_pages_and_writes_the_file(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["report", str(results)]) == 0
    shown = capsys.readouterr().out.split("\n")
    assert [line.split() for line in shown[:-1]] == [
        ["Overview", str(results / "report.html")],
        ["cells", str(results / "cells" / "report.html")],
        ["nuclei", str(results / "nuclei" / "report.html")],
    ]
    mail = tmp_path / "mail.html"
    assert main.main(["report", str(results), "--single", "-o", str(mail)]) == 0
    assert "the overview and 2 datasets" in capsys.readouterr().out
    assert 'id="nuclei__"' in mail.read_text("utf-8")
    assert not (results / "report-single.html").exists()
    (results / "cells" / "report.html").unlink()
    assert main.main(["report", str(results), "--single"]) == 0
    captured = capsys.readouterr()
    assert "the overview and 1 dataset," in captured.out
    assert (results / "report-single.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{results}", "-o", "x.html"], "--output: only for --single"),
        (["{results}", "--single", "-o", "{results}/cells/report.html"], "a page of the"),
        (["{results}/raw"], "no report.html here"),
        (["{results}", "--single", "-o", "{results}/report.html"], "a page of the report itself"),
    ],
)
def test_mistakes_are_said_in_a_line(
    results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    before = (results / "report.html").read_bytes()
    assert main.main(["report", *(word.format(results=results) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert (results / "report.html").read_bytes() == before


def test_the_folder_of_a_dataset_is_not_taken_for_the_results(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = next(page.path.parent for page in report_pages(results) if page.name != "Overview")
    said = f"{dataset}: the folder of a dataset; give the results folder above: {results}"
    for words in ([], ["--single"]):
        assert main.main(["report", str(dataset), *words]) == 2
        out, err = capsys.readouterr()
        assert said in err
        assert err.count("\n") == 1
        assert out == ""
    assert not list(dataset.glob("report-single*"))
    monkeypatch.chdir(dataset)
    assert main.main(["report", "."]) == 2
    assert f"give the results folder above: {results.resolve()}" in capsys.readouterr().err
    # From the folder of a model, and by a link of another name, inside and outside of the results.
    (dataset / "model").mkdir(exist_ok=True)
    monkeypatch.chdir(dataset / "model")
    assert main.main(["report", ".."]) == 2
    assert f"..: the folder of a dataset; give the results folder above: {results}" in (
        capsys.readouterr().err
    )
    for place in (results, results.parent):
        (place / "other").symlink_to(dataset)
        assert main.main(["report", str(place / "other")]) == 2
        assert f"give the results folder above: {results}\n" in capsys.readouterr().err
