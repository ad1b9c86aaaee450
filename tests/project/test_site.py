"""How pages that are written for GitHub become pages of the site (docs/site_hooks.py). `make site`
builds all of it, and fails for a broken link."""

from __future__ import annotations

from pathlib import Path

import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs import site_hooks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config() -> MkDocsConfig:
    found = MkDocsConfig()
    found.load_dict({"site_name": "x", "docs_dir": str(ROOT / "docs"), "plugins": []})
    assert found.validate() == ([], [])
    # MkDocs sets it while it calls a hook, to note who made a page.
    found.plugins._current_plugin = "docs/site_hooks.py"
    return found


@pytest.fixture(scope="module")
def files(config: MkDocsConfig) -> Files:
    names = ("index.md", "data.md", "python.md", "howto/few_labels.md", "images/demo.png")
    given = Files([File.generated(config, name, content="") for name in names])
    return site_hooks.on_files(given, config)


def shown(markdown: str, source: str, files: Files, config: MkDocsConfig) -> str:
    file = files.get_file_from_path(source)
    assert file is not None
    return site_hooks.on_page_markdown(markdown, Page(None, file, config), config, files)


@pytest.mark.parametrize(
    ("source", "written", "expected"),
    [
        ("data.md", "[a](python.md#errors)", "[a](python.md#errors)"),
        ("data.md", "[a](../config/README.md#split)", "[a](config/README.md#split)"),
        ("data.md", "[a](../README.md)", "[a](index.md)"),
        ("data.md", "![a](images/demo.png)", "![a](images/demo.png)"),
        ("data.md", "[the file](../benchmarks/results/metrics.json)", "the file"),
        ("data.md", "[a](gone.md)", "[a](gone.md)"),
        ("data.md", "[a](https://x.org/data.md)", "[a](https://x.org/data.md)"),
        ("data.md", "[a](notebooks/predict.ipynb)", "[a](notebooks/predict.md)"),
        ("howto/few_labels.md", "[a](../data.md)", "[a](../data.md)"),
        ("howto/few_labels.md", "[a](../../config/README.md)", "[a](../config/README.md)"),
        ("config/README.md", "[a](../docs/data.md#splits)", "[a](../data.md#splits)"),
        ("CHANGELOG.md", "[a](docs/data.md)", "[a](data.md)"),
        ("notebooks/predict.md", "[a](../python.md)", "[a](../python.md)"),
        ("data.md", "```\n[a](../README.md)\n```", "```\n[a](../README.md)\n```"),
        ("data.md", "Text:\n- one\n- two\n", "Text:\n\n- one\n- two\n"),
        ("data.md", "- one\n  more\n- two\n", "- one\n  more\n- two\n"),
        ("config/README.md", "| datasets.<name>.x | y |", "| datasets.&lt;name&gt;.x | y |"),
    ],
)
def test_what_a_page_becomes(
    source: str, written: str, expected: str, files: Files, config: MkDocsConfig
) -> None:
    assert shown(written, source, files, config) == expected


def test_a_flowchart_becomes_a_table(files: Files, config: MkDocsConfig) -> None:
    text = (
        "```mermaid\nflowchart TD\n    config[config.yaml] --> synthesize\n"
        "    a & b -.->|their images| join\n```\n"
    )
    assert shown(text, "data.md", files, config).splitlines()[2:] == [
        "| config.yaml |  | synthesize | yes |",
        "| a, b | their images | join | if asked for |",
    ]
    drawn = (ROOT / "docs" / "pipeline.md").read_text("utf-8")
    arrows = sum("-->" in line or "-.->" in line for line in drawn.splitlines())
    table = shown(drawn, "data.md", files, config)
    assert table.count("| yes |") + table.count("| if asked for |") == arrows > 30


def test_notebooks_are_pages_of_their_cells(files: Files) -> None:
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        page = files.get_file_from_path(f"notebooks/{path.stem}.md")
        assert page is not None
        text = page.content_string
        assert text.startswith("# ")
        assert "```python\n" in text


@pytest.mark.parametrize(
    ("html", "refused"),
    [
        ('<script src="https://unpkg.com/x"></script>', True),
        ('<img alt="x" src=//x.org/a.png>', True),
        ('<link rel="stylesheet" href="https://fonts.googleapis.com/css">', True),
        ('<link rel="canonical" href="https://x.org"><a href="https://x.org">x</a>', False),
        ('<script src="../iframe-worker.js"></script><img src="images/demo.png">', False),
    ],
)
def test_a_page_loads_nothing_from_other_hosts(
    html: str, refused: bool, files: Files, config: MkDocsConfig
) -> None:
    page = Page(None, files.src_uris["data.md"], config)
    if refused:
        with pytest.raises(PluginError, match=r"data\.md: loads from another host"):
            site_hooks.on_post_page(html, page, config)
    else:
        assert site_hooks.on_post_page(html, page, config) == html
