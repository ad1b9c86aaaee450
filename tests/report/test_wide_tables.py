"""Tables of many columns: whole where the window has room, with a shadow where they are cut."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.devtools import OpenPage, open_page
from unet.report.page_file import render

pytestmark = pytest.mark.browser

# A score table of five metrics, each with an interval and a note.
TABLE = 1230


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    with open_page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "wide.html"
    table = f'<table style="width: {TABLE}px"><tr><td>&nbsp;</td></tr></table>'
    section = f'<section><div class="scroll" id="box">{table}</div></section>'
    path.write_text(render("base.html.j2").replace("<main>", f"<main>{section}"), "utf-8")
    return path


def sides(browser: OpenPage) -> tuple[float, float, float]:
    """Brightness of the box at its left side, in the middle, and at its right side."""
    box = browser.run("const b = box.getBoundingClientRect(); return [b.x, b.y, b.width, 20];")
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True), scale=1)
    shot = browser.order("Page.captureScreenshot", clip=clip)["data"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("L"), float)
    row, middle = pixels[5], pixels.shape[1] // 2
    return row[:6].mean(), row[middle - 3 : middle + 3].mean(), row[-6:].mean()


def test_a_score_table_fits_into_a_wide_window(page: Path, browser: OpenPage) -> None:
    browser.show(page, width=1400)
    assert browser.run("return box.scrollWidth <= box.clientWidth && !box.hasAttribute('tabindex')")
    assert browser.run("return document.documentElement.scrollWidth") == 1400
    left, middle, right = sides(browser)
    assert left == middle == right


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1100])
def test_a_cut_table_has_a_shadow_where_it_goes_on(
    page: Path, browser: OpenPage, width: int, dark: bool
) -> None:
    browser.show(page, width=width, dark=dark)
    assert browser.run("return box.tabIndex") == 0
    differs = 15  # of 255, for anybody to see
    left, middle, right = sides(browser)
    assert abs(right - middle) > differs
    assert left == middle
    browser.run("box.scrollLeft = 100; await new Promise(requestAnimationFrame);")
    left, middle, right = sides(browser)
    assert abs(right - middle) > differs
    assert abs(left - middle) > differs
    browser.run("box.scrollLeft = 5000; await new Promise(requestAnimationFrame);")
    left, middle, right = sides(browser)
    assert right == middle
    assert abs(left - middle) > differs


def test_paper_has_no_shadow(page: Path, browser: OpenPage) -> None:
    browser.show(page, width=700, media="print")
    left, middle, right = sides(browser)
    assert left == middle == right
