"""The scripts of pages and the policy that allows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.page_policy import assert_scripts_allowed
from unet.report import page_scripts
from unet.report.page_file import render
from unet.report.page_scripts import PageScripts


def test_a_script_comes_once_and_with_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_scripts, "FOLDER", tmp_path)
    (tmp_path / "a.js").write_text("a < b && c", encoding="utf-8")
    scripts = PageScripts()
    assert scripts.sources() == "'none'"
    assert scripts.script("a.js") == "<script>a < b && c</script>\n"
    assert scripts.script("a.js") == ""
    # printf 'a < b && c' | openssl dgst -sha256 -binary | base64
    assert scripts.sources() == "'sha256-utQp/tNR5pLN51qgX2CHuY7l3VqhWnEovrzaSf41FJ8='"


@pytest.mark.parametrize("text", ["x = '</SCRIPT>'", "x = '<!-- '"])
def test_a_script_that_would_end_early_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(page_scripts, "FOLDER", tmp_path)
    (tmp_path / "a.js").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.js"):
        PageScripts().script("a.js")


def test_a_page_allows_its_own_scripts_alone() -> None:
    page = render(
        "dataset.html.j2",
        dataset="d",
        task="semantic",
        models=(),
        applied=True,
        warnings=[],
        listed=0,
        sections=[],
    )
    assert page.count("<script>") == 3
    assert_scripts_allowed(page)
    with pytest.raises(AssertionError):
        assert_scripts_allowed(page.replace("</main>", "</main><script>alert(1)</script>"))
