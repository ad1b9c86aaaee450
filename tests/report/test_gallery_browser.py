"""Scripted clicks in the gallery and its viewer."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from tests.report.browser import chromium, run_in_page
from tests.report.test_report import make_report, make_results
from unet.evaluation.metrics.rows import METRIC_COLUMNS
from unet.paths import Paths

SHOWN = """
const all = (selector) => [...document.querySelectorAll(selector)];
const shown = () => all('.card:not([hidden]) h3 code').map(e => e.textContent);
const set = (name, value) => {
  const control = document.querySelector(`.gallery-tools [name=${name}]`);
  control.value = value;
  control.dispatchEvent(new Event('change', { bubbles: true }));
};
const viewer = document.querySelector('dialog.viewer');
const press = (key, more = {}) => document.activeElement.dispatchEvent(
  new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true, ...more }));
const click = (selector) => document.querySelector(selector).click();
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """im0 .. im3; AP@0.5 of a: 0.1, 0.2, 0.3, 0.4; of b: 0.8, 0.1, 0.35, 0.5."""
    chromium()
    paths = Paths(tmp_path_factory.mktemp("gallery"))
    make_results(paths, "d", ["a", "b"], "instances")
    for model, values in {"a": (0.1, 0.2, 0.3, 0.4), "b": (0.8, 0.1, 0.35, 0.5)}.items():
        with paths.metrics("d", model).open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(METRIC_COLUMNS)
            for k, value in enumerate(values):
                row = ["d", model, 0, f"im{k}", "odd" if k % 2 else "even", "instances"]
                writer.writerow([*row, "ap_0.50", value, 10])
    make_report(paths, "d", ["a", "b"], "instances")
    return paths.dataset_report_html("d")


def test_sort_and_filter(page: Path, tmp_path: Path) -> None:
    found = run_in_page(page, tmp_path, SHOWN + """
        const seen = { start: shown() };
        set('of', '1'); seen.b = shown();
        set('of', '0 minus 1'); seen.difference = shown();
        set('order', 'down'); seen.reversed = shown();
        set('of', ''); set('order', 'up'); set('most', '0.33'); seen.range = shown();
        set('most', ''); set('group', 'odd'); seen.group = shown();
        seen.status = document.querySelector('.gallery-tools output').value;
        set('score', 'name'); set('order', 'down'); seen.name = shown();
        click('.gallery-tools [name=restore]'); seen.reset = shown();
        set('search', 'M3'); seen.search = shown();
        set('model', 'b');
        const visible = (e) => e.offsetParent !== null;
        seen.models = [...document.querySelectorAll('#image-im3 [data-model]')]
          .filter(visible).map(e => e.dataset.model);
        return seen;
    """)  # fmt: skip
    assert found == {
        # Means: 0.45, 0.15, 0.325, 0.45.
        "start": ["im1", "im2", "im0", "im3"],
        "b": ["im1", "im2", "im3", "im0"],
        "difference": ["im0", "im3", "im2", "im1"],
        "reversed": ["im1", "im2", "im3", "im0"],
        "range": ["im1", "im2"],
        "group": ["im1", "im3"],
        "status": "2 of 4 images",
        "name": ["im3", "im1"],
        "reset": ["im1", "im2", "im0", "im3"],
        "search": ["im3"],
        "models": ["b", "b"],
    }


def test_viewer(page: Path, tmp_path: Path) -> None:
    found = run_in_page(page, tmp_path, SHOWN + """
        const seen = {};
        click('#image-im2 .model button.zoom');
        seen.open = viewer.open;
        seen.title = viewer.querySelector('h2').textContent;
        seen.hash = location.hash;
        seen.focus = document.activeElement.name;
        seen.panes = [...viewer.querySelectorAll('.pane strong')].map(e => e.textContent);
        seen.kinds = ['left', 'right'].map(n => viewer.querySelector(`[name=${n}]`).value);
        seen.kindsOf = all('.pane:first-child .picture').map(e => e.className);
        const layer = viewer.querySelector('.over .picture');
        seen.loaded = getComputedStyle(layer).backgroundImage.split('data:image').length - 1;
        const wipe = viewer.querySelector('[name=wipe]');
        seen.legend = [...viewer.querySelectorAll('.legend span')].map(e => e.textContent);
        wipe.value = 25; wipe.dispatchEvent(new Event('input'));
        seen.clip = [...viewer.querySelectorAll('.over')].map(e => getComputedStyle(e).clipPath);
        const before = layer.getBoundingClientRect().width;
        press('+'); press('+');
        seen.zoomed = [...viewer.querySelectorAll('.picture')]
          .map(e => Math.round(100 * e.getBoundingClientRect().width / before));
        const x = layer.getBoundingClientRect().x;
        press('ArrowRight', { shiftKey: true });
        seen.moved = Math.round(layer.getBoundingClientRect().x - x);
        press('0');
        seen.whole = Math.round(100 * layer.getBoundingClientRect().width / before);
        press('ArrowRight');
        seen.next = viewer.querySelector('h2').textContent;
        press('ArrowLeft'); press('ArrowLeft'); press('ArrowLeft');
        seen.first = viewer.querySelector('h2').textContent;
        seen.disabled = viewer.querySelector('[name=previous]').disabled;
        click('[name=close]');
        await new Promise((done) => setTimeout(done, 100));
        seen.closed = !viewer.open;
        seen.back = document.activeElement.closest('.card').id;
        return seen;
    """)  # fmt: skip
    assert found == {
        "open": True,
        "title": "im2 (2 of 4)",
        "hash": "#image-im2",
        "focus": "close",
        "panes": ["a", "b"],
        "kinds": ["base", "prediction"],
        "kindsOf": ["picture base", "picture prediction"],
        "loaded": 2,
        "legend": [
            "found (IoU at least 0.5): outlines of truth and prediction",
            "only of the truth",
            "only of the prediction",
            "missed object",
            "false object",
            "ignored",
        ],
        "clip": ["inset(0px 0px 0px 25%)"] * 2,
        "zoomed": [225] * 4,
        "moved": -60,
        "whole": 100,
        "next": "im0 (3 of 4)",
        "first": "im1 (1 of 4)",
        "disabled": True,
        "closed": True,
        "back": "image-im1",
    }


def test_a_link_shows_a_card_that_is_filtered_away(page: Path, tmp_path: Path) -> None:
    found = run_in_page(page, tmp_path, SHOWN + """
        set('search', 'im1');
        const hidden = shown();
        location.hash = '#image-im3';
        await new Promise((done) => setTimeout(done, 100));
        return [hidden, shown().length];
    """)  # fmt: skip
    assert found == [["im1"], 4]


@pytest.mark.parametrize("width", [1300, 1000])
def test_the_links_to_files_are_not_cut_off(tmp_path: Path, width: int) -> None:
    chromium()
    paths, model = Paths(tmp_path), "a-model-with-a-long-name"
    make_results(paths, "d", [model], "instances")
    with paths.metrics("d", model).open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(METRIC_COLUMNS)
        for k in range(1000, 1500):
            for score in ("ap_0.50", "f1_0.50", "pq", "seg", "iou"):
                image = f"im{k % 2}"
                writer.writerow(["d", model, 0, image, image, "instances", score, 0.123, 10])
    rows = "".join(f"im0,{k}\n" for k in range(1, 12_001))
    paths.objects("d", model, 0).write_text(f"image,label\n{rows}")
    paths.masks("d", model, 0).mkdir()
    (paths.masks("d", model, 0) / "im0.tif").write_bytes(b"")
    make_report(paths, "d", [model], "instances")
    found = run_in_page(paths.dataset_report_html("d"), tmp_path, SHOWN + """
        return [all('#image-im0 td a').map(e => e.textContent.split(' ')[0]),
          ...all('.card > .scroll').map(e => e.scrollWidth - e.clientWidth)];
    """, width=width)  # fmt: skip
    assert found[0] == ["mask", "metrics.csv,", "objects.csv,"]
    assert max(found[1:]) <= 0


@pytest.mark.parametrize(("width", "dark"), [(1300, False), (500, True)])
def test_nothing_is_wider_than_the_window(
    page: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    shutil.copy(page, tmp_path / "page.html")
    found = run_in_page(tmp_path / "page.html", tmp_path, SHOWN + """
        const wide = document.documentElement.scrollWidth - innerWidth;
        click('button.zoom');
        await new Promise((done) => setTimeout(done, 100));
        return [wide, viewer.scrollWidth - innerWidth, viewer.scrollHeight - innerHeight];
    """, width=width, dark=dark)  # fmt: skip
    assert max(found) <= 0
