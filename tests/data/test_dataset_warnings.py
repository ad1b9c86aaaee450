"""Warnings: kept per image and per dataset, and shown on the console and in the report."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from tests.data.test_manifest import SEMANTIC, dataset, manifest_settings
from tests.report.test_report import make_report, make_results, script
from unet.data.dataset_warnings import (
    first_lines,
    grouped,
    read_facts,
    read_warnings,
    warning_lines,
    write_warnings,
)
from unet.data.manifest import manifest_stage
from unet.data.raw_files import RawSource
from unet.data.records import ImageRecord, read_manifest, write_manifest
from unet.files import read_json
from unet.io import formats
from unet.io.axes import Raw
from unet.paths import Paths


def run_manifest(source: RawSource, output: Path, **settings: object) -> list[str]:
    """The warnings of a manifest of dataset ``d``."""
    paths = Paths(output)
    manifest_stage(
        source,
        manifest_settings(**{**SEMANTIC, **settings}),
        paths.manifest("d"),
        paths.inputs("d"),
        threads=2,
        warnings=paths.warnings("d", "manifest"),
    )
    return read_warnings(paths.dataset("d"))


def test_warnings_of_an_image_survive_a_round_trip(tmp_path: Path) -> None:
    texts = ('a "quoted", text', "one; two | three", "größer")
    records = [ImageRecord("a", "a.tif", warnings=texts), ImageRecord("b", "b.tif")]
    write_manifest(tmp_path / "m.csv", records)
    assert read_manifest(tmp_path / "m.csv") == records
    with (tmp_path / "m.csv").open(encoding="utf-8") as handle:
        assert [bool(row["warnings"]) for row in csv.DictReader(handle)] == [True, False]


def test_a_manifest_without_the_column_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    write_manifest(path, [ImageRecord("a", "a.tif", shape=(1, 2, 3))])
    with path.open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = [name for name in rows[0] if name != "warnings"]
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert read_manifest(path) == [ImageRecord("a", "a.tif", shape=(1, 2, 3))]


def test_the_same_warning_of_many_images_is_one_line() -> None:
    said = [("a.tif", "14 pieces of 0.5 um"), ("b", "dark"), ("c", "9 pieces of 1 um")]
    assert grouped(said) == ["a.tif and 1 more image: 14 pieces of 0.5 um", "b: dark"]
    assert grouped([("line\nfeed", "odd")]) == ["line feed: odd"]


def test_a_console_shows_some_and_says_where_the_rest_is() -> None:
    lines = [str(k) for k in range(30)]
    assert first_lines(lines[:10], "file") == lines[:10]
    assert first_lines(lines, "file") == [*lines[:9], "and 21 more, see file"]


def test_a_dataset_has_the_warnings_of_all_its_stages(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert read_warnings(paths.dataset("d")) == []
    for stage in ("later", "splits", "manifest", "prepare-m-1@e", "prepare-m@e"):
        write_warnings(paths.warnings("d", stage), [stage])
    assert read_warnings(paths.dataset("d")) == ["manifest", "splits", "later"]
    # Only for models that are still in the config.
    kept = ["manifest", "splits", "later", "prepare-m@e"]
    assert read_warnings(paths.dataset("d"), ["m@e", "n@e"]) == kept
    assert warning_lines(paths, {"d": ["m@e"]}) == [f"warning: d: {line}" for line in kept]
    write_warnings(paths.warnings("d", "splits"), [])
    assert read_warnings(paths.dataset("d")) == ["manifest", "later"]


def test_what_several_models_say_is_there_once(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_warnings(paths.warnings("d", "prepare-m"), ["a is far larger", "of m"])
    write_warnings(paths.warnings("d", "prepare-n"), ["a is far larger"])
    assert read_warnings(paths.dataset("d"), ["m", "n"]) == ["a is far larger", "of m"]


def test_what_makes_results_worthless_comes_before_all_else(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_warnings(paths.warnings("d", "manifest"), [f"image {k} is odd" for k in range(12)])
    write_warnings(paths.warnings("d", "quality-m@o"), ["m@o: look at a"], ["m@o: poor\nmodel"])
    write_warnings(paths.warnings("d", "report"), [], ["m@o: hardly anything is right"])
    found = read_warnings(paths.dataset("d"), ["m@o"])
    assert found[:3] == ["m@o: poor model", "m@o: hardly anything is right", "image 0 is odd"]
    assert len(found) == 15
    shown = warning_lines(paths, {"d": ["m@o"]})
    assert shown[:2] == [f"warning: d: {line}" for line in found[:2]]
    assert len(shown) == 10
    assert read_facts(paths.dataset("d")) == {}


def test_a_readers_warnings_are_in_the_manifest_and_on_the_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = dataset(tmp_path / "raw", 2)
    (tmp_path / "raw" / "l" / "lonely.tif").write_bytes(b"")

    def read(path: Path, page: int | None, label: bool) -> Raw:
        pixels = np.arange(600, dtype=np.uint8).reshape(20, 30)
        marked = np.where(pixels > 100, 255, 0).astype(np.uint8)
        return Raw(da.from_array(marked if label else pixels), "YX", warnings=("odd",))

    monkeypatch.setitem(formats.READERS, ".tif", read)
    lines = run_manifest(source, tmp_path / "out")
    assert "1 labels match no image and are left out: lonely.tif" in lines
    assert {"i/0.tif and 1 more image: odd", "i/0.tif and 1 more image: label: odd"} <= set(lines)
    for record in read_manifest(Paths(tmp_path / "out").manifest("d")):
        assert {"odd", "label: odd"} <= set(record.warnings)
    assert f"warning: {lines[0]}" in caplog.messages


def test_images_that_are_left_out_are_a_warning(tmp_path: Path) -> None:
    source = dataset(tmp_path / "raw", 3)
    (tmp_path / "raw" / "i" / "1.tif").write_bytes(b"")
    lines = run_manifest(source, tmp_path / "out")
    assert "1 of 3 images is left out; the first: i/1.tif: the file is empty" in lines


def test_warnings_change_nothing_that_the_planning_compares(tmp_path: Path) -> None:
    source = RawSource(tmp_path, "i")
    heard = replace(source, warn=print)
    assert (heard, repr(heard)) == (source, repr(source))


def test_the_page_says_what_the_stages_noted(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "semantic")
    classes = [{"name": "cell", "share": 0.25, "intensity": None}]
    write_warnings(paths.warnings("d", "manifest"), [], classes=classes)
    write_warnings(paths.warnings("d", "splits"), [], remembered="remembered since 2026-01-31")
    page = make_report(paths, "d", ["m"], "semantic")
    assert "<dt>Pixels by class</dt><dd>cell 25 % (mean intensity none)</dd>" in page
    assert "<dt>Split</dt><dd>remembered since 2026-01-31</dd>" in page
    assert 'id="warnings"' not in page


def test_the_page_and_the_console_of_the_report_show_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "semantic")
    assert 'id="warnings"' not in make_report(paths, "d", ["m"], "semantic")
    write_warnings(paths.warnings("d", "manifest"), ["<b>odd", *(f"w{k}" for k in range(12))])
    page = make_report(paths, "d", ["m"], "semantic")
    assert page.index("13 warnings") < page.index("Scores on the test images")
    assert "<li>&lt;b&gt;odd</li>" in page
    assert "<li>w11</li>" in page
    settings = '{"version": 1, "datasets": {"d": {"task": "semantic", "models": ["m"]}}}'
    args = ["--all", "--output", str(tmp_path), "--settings", settings]
    assert script().main(args) == 0
    out = capsys.readouterr().out
    assert "warning: d: <b>odd\nwarning: d: w0\n" in out
    assert f"warning: d: and 4 more, see {paths.dataset_report_html('d')}\n" in out
    assert "w9" not in out
    assert read_json(paths.warnings("d", "manifest"))["warnings"][1] == "w0"
