"""Every page that the software writes: accessible in light and dark, whole on a phone, on paper and
without scripts; and its parts can be used with the keyboard."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import chromium
from tests.report.devtools import OpenPage, open_page
from tests.report.every_page import every_page

pytestmark = pytest.mark.browser

PAGES = ("objects", "classes", "d", "overall", "single", "check", "evaluate", "predict", "annotate")
PHONE = 360
# An A4 sheet without the browser's margins, in CSS pixels.
PAPER = 718

# What sticks out of the window, and what its own box cuts off: a box may scroll on a screen.
CUT = """
const style = (one) => getComputedStyle(one);
const name = (one) => `${one.tagName}.${one.className} in ${one.closest("[id]")?.id}: `
  + one.textContent.trim().slice(0, 40);
const cut = (width, scrolling) => [...document.querySelectorAll("main *")].filter((one) => {
  const box = one.getBoundingClientRect();
  if (!box.width || !box.height || style(one).opacity === "0") return false;
  for (let up = one.parentElement; up.tagName !== "BODY"; up = up.parentElement) {
    if (style(up).overflowX === "visible") continue;
    if (scrolling && ["auto", "scroll"].includes(style(up).overflowX)) return false;
    const outer = up.getBoundingClientRect();
    return box.right > outer.right + 1 || box.left < outer.left - 1;
  }
  return box.right > width + 1 || box.left < -1;
}).map(name);
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    chromium()
    found = every_page(tmp_path_factory.mktemp("pages"))
    assert tuple(found) == PAGES
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    with open_page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_violation(
    pages: dict[str, Path], browser: OpenPage, name: str, dark: bool
) -> None:
    library = os.environ.get("UNET_AXE", "")
    if not Path(library).is_file():
        pytest.skip("no axe-core: UNET_AXE must name its axe.min.js")
    axe = Path(library).read_text("utf-8")
    script = """
    for (const folded of document.querySelectorAll("details")) folded.open = true;
    const found = await axe.run(document);
    return [found.passes.length, found.violations.flatMap((one) =>
      one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 200)}`))];"""
    opened = "document.querySelector('.card button.zoom')?.click();"
    for width in (1300, PHONE):
        browser.show(pages[name], width=width, dark=dark)
        browser.order("Runtime.evaluate", expression=axe)
        for first in ("", opened):
            passed, violations = browser.run(first + script)
            assert violations == [], width
            assert passed > 20


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_the_whole_page(pages: dict[str, Path], browser: OpenPage, name: str) -> None:
    browser.show(pages[name], width=PHONE)
    for folded in ("", "document.querySelectorAll('details').forEach((d) => { d.open = true; });"):
        assert browser.run(f"{CUT} {folded} return cut({PHONE}, true);") == []
        assert browser.run("return document.documentElement.scrollWidth") == PHONE


@pytest.mark.parametrize("name", PAGES)
def test_paper_shows_the_whole_page(pages: dict[str, Path], browser: OpenPage, name: str) -> None:
    browser.show(pages[name], width=PAPER, dark=True, media="print")
    found = browser.run(f"""{CUT}
      dispatchEvent(new Event("beforeprint"));
      const seen = (selector) => [...document.querySelectorAll(selector)]
        .filter((one) => one.getBoundingClientRect().height > 0).map(name);
      const pictures = [...document.querySelectorAll("main img, main .picture")];
      return {{
        cut: cut({PAPER}, false),
        controls: seen("nav, .tools, .gallery-tools, dialog, .switch, .save, select"),
        folded: seen("details:not([open])"),
        empty: pictures.filter((one) => !one.getBoundingClientRect().height).map(name),
        colours: ["--page", "--card", "--ink"].map((one) =>
          style(document.documentElement).getPropertyValue(one).trim()),
        heads: [...document.querySelectorAll("button.sort")].filter((one) =>
          style(one).display !== "contents").length,
      }};""")
    assert found == {
        "cut": [], "controls": [], "folded": [], "empty": [],
        "colours": ["#fff", "#fff", "#000"], "heads": 0,
    }  # fmt: skip


def test_cut_parts_are_found(browser: OpenPage, tmp_path: Path) -> None:
    """The check itself: a wide table is fine in a box that scrolls, but not on paper."""
    row = "<td>" + "x" * 300 + "</td>"
    page = tmp_path / "wide.html"
    for box, on_screen in (("overflow-x: auto", 0), ("overflow-x: hidden", 1), ("", 1)):
        page.write_text(
            f'<body><main><div style="{box}"><table><tr>{row}</tr></table></div></main>', "utf-8"
        )
        browser.show(page, width=PHONE)
        assert bool(browser.run(f"{CUT} return cut({PHONE}, true);")) == bool(on_screen)
        assert browser.run(f"{CUT} return cut({PHONE}, false);") != []


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_everything_is_there(
    pages: dict[str, Path], browser: OpenPage, name: str
) -> None:
    browser.order("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.show(pages[name])
        found = browser.run("""
          for (const folded of document.querySelectorAll("details")) folded.open = true;
          const flat = (selector) => [...document.querySelectorAll(selector)]
            .filter((one) => !one.getBoundingClientRect().height).length;
          return {
            scripts: document.scripts.length > 0,
            flat: flat("main img, main .picture, main tr, main section"),
            // What only a script can use, only a script makes.
            dead: document.querySelectorAll("button, select, input[type=search], dialog").length,
            targets: [...document.querySelectorAll("a[href^='#']")].filter((one) =>
              !document.getElementById(decodeURI(one.hash.slice(1)))
              && !document.getElementById(one.hash.slice(1))).map((one) => one.hash),
          };""")
    finally:
        browser.order("Emulation.setScriptExecutionDisabled", value=False)
    assert found == {"scripts": True, "flat": 0, "dead": 0, "targets": []}


FOCUS = """
const at = document.activeElement;
return at.closest("dialog") ? `viewer ${at.name || at.tagName}`
  : at.name || at.className || at.getAttribute("href") || at.tagName;"""


def tabbed(browser: OpenPage, presses: int) -> list[str]:
    """What has the focus after each press of Tab."""
    found = []
    for _ in range(presses):
        browser.press("Tab")
        found.append(browser.run(FOCUS))
    return found


def test_everything_is_reached_by_tab(pages: dict[str, Path], browser: OpenPage) -> None:
    browser.show(pages["classes"])
    wanted = browser.run("""
      return [...document.querySelectorAll(
        "a[href], button, select, input, summary, [tabindex='0']")].filter((one) =>
        !one.disabled && one.getBoundingClientRect().height && one.checkVisibility()).length""")
    reached = tabbed(browser, wanted)
    for part in ("sort", "save", "zoom", "score", "search", "restore", "SUMMARY"):
        assert part in reached
    assert "BODY" not in reached
    # The next press leaves the page.
    assert tabbed(browser, 1) == ["BODY"]
    # Where it is can be seen.
    browser.show(pages["classes"])
    browser.press("Tab")
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.run(outline) == "solid"


def test_the_viewer_by_keyboard(pages: dict[str, Path], browser: OpenPage) -> None:
    browser.show(pages["classes"])
    browser.run("document.querySelectorAll('.card button.zoom')[1].focus();")
    title = "return document.querySelector('dialog h2').textContent"
    card = "return document.activeElement.closest('.card').id"
    before = browser.run(card)
    browser.press("Enter")
    assert browser.run("return document.querySelector('dialog').open") is True
    assert browser.run(FOCUS) == "viewer close"
    first = browser.run(title)
    assert re.fullmatch(r"im\d \(1 of 4\)", first)
    # The focus stays in the viewer, in both directions; the browser's own bar comes in between.
    for shift in (False, True):
        reached = set()
        for _ in range(24):
            browser.press("Tab", shift=shift)
            reached.add(browser.run(FOCUS))
        assert {"viewer left", "viewer wipe", "viewer right", "viewer in", "viewer out",
                "viewer whole", "viewer next", "viewer close"} <= reached  # fmt: skip
        assert all(one.startswith("viewer") for one in reached - {"BODY"})
    browser.run("document.querySelector('dialog [name=wipe]').focus();")
    browser.press("ArrowRight", "ArrowRight")
    assert browser.run("return document.activeElement.value") == "52"
    browser.run("document.querySelector('dialog [name=close]').focus();")
    browser.press("+")
    zoom = "return document.querySelector('dialog').style.getPropertyValue('--zoom')"
    assert browser.run(zoom) == "1.5"
    browser.press("Escape")
    settle = "await new Promise((done) => setTimeout(done, 100));"
    assert browser.run(settle + "return document.querySelector('dialog').open") is False
    assert browser.run(card) == before
    # After a step to the next image the focus returns to that one.
    browser.press("Enter")
    browser.press("ArrowRight")
    assert browser.run(title).endswith("(2 of 4)")
    browser.press("Escape")
    assert browser.run(settle + card) != before


def test_sort_and_filter_by_keyboard(pages: dict[str, Path], browser: OpenPage) -> None:
    browser.show(pages["predict"])
    browser.run("document.querySelector('#table button.sort').focus();")
    browser.press("Enter")
    sorted_by = "return document.activeElement.closest('th').getAttribute('aria-sort')"
    assert browser.run(sorted_by) == "ascending"
    browser.press(" ")
    assert browser.run(sorted_by) == "descending"
    browser.run("document.querySelector('#table input[type=search]').focus();")
    browser.press(*"c03")
    browser.press("Tab")
    assert browser.run("return document.querySelector('#table [role=status]').textContent") == (
        "0 of 14 rows"
    )
