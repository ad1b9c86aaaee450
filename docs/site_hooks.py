"""What makes pages that are written for GitHub pages of the site (`hooks` of mkdocs.yml).

- Pages that lie outside docs/, such as the tables of the config, become part of the site.
- Notebooks become pages of their cells (they are stored without outputs).
- Links between all of these lead to the site's pages; a link to another file of the repository
  becomes plain text.
- A Mermaid flowchart becomes a table: to draw it, a browser would load a script from another
  host.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Path in the repository -> path in the site's sources. README.md leads to the site, so it is none.
OUTSIDE = ("config/README.md", "CHANGELOG.md", "CONTRIBUTING.md")
HOME = {"README.md": "index.md"}

FENCED = re.compile(r"^( *)```.*?^ *```$", re.M | re.S)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
# GitHub begins a list below a line of text, Markdown for Python needs an empty line between.
TEXT_THEN_LIST = re.compile(r"^((?![-#|>`<\s]|\d+\. ).+\n)(?=(?:- |1\. )\S)", re.M)
PLACEHOLDER = re.compile(r"^(\| [\w.]*)<name>", re.M)
FOREIGN = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc="?(?:https?:)?//[^>]*>'
    r'|<link\b[^>]*\brel="?(?:stylesheet|preconnect|preload)[^>]*\bhref="?(?:https?:)?//[^>]*>'
)
EDGE = re.compile(r"^ *(.+?) (?:-->|-\.->)(?:\|(.*?)\|)? (\w+)$")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in docs/ as Markdown."""
    for name in OUTSIDE:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / "docs").rglob("*.ipynb")):
        name = path.relative_to(ROOT / "docs").with_suffix(".md").as_posix()
        files.append(File.generated(config, name, content=_notebook(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's text as the site needs it."""
    source = page.file.src_uri
    return outside_code(_flowcharts(markdown), lambda text: _text(text, source, files))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Raises PluginError for a page that loads a script, a picture or a font from another host."""
    if found := FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri}: loads from another host: {found[0]}")
    return output


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """The text with a change of all that is not in a fenced block."""
    parts, end = [], 0
    for block in FENCED.finditer(markdown):
        parts += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(markdown[end:])])


def _text(text: str, source: str, files: Files) -> str:
    text = TEXT_THEN_LIST.sub(r"\1\n", text)
    text = PLACEHOLDER.sub(r"\1&lt;name&gt;", text)
    return LINK.sub(lambda link: _link(link, source, files), text)


def _link(link: re.Match[str], source: str, files: Files) -> str:
    """The link as the site needs it. One that leads nowhere stays, and MkDocs warns of it."""
    image, label, target, anchor = link[1], link[2], link[3], link[4] or ""
    folder = posixpath.dirname(source if source in OUTSIDE else f"docs/{source}")
    path = posixpath.normpath(posixpath.join(folder, target))
    there = HOME.get(path, path.removeprefix("docs/"))
    if there.endswith(".ipynb"):
        there = f"{there.removesuffix('.ipynb')}.md"
    if files.get_file_from_path(there) is not None:
        found = posixpath.relpath(there, posixpath.dirname(source) or ".")
        return f"{image}[{label}]({found}{anchor})"
    return label if (ROOT / path).exists() else link[0]


def _notebook(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [
        "".join(cell["source"])
        if cell["cell_type"] == "markdown"
        else f"```python\n{''.join(cell['source'])}\n```"
        for cell in cells
    ]
    return "\n\n".join([*texts, f"The notebook itself: `docs/notebooks/{path.name}`.", ""])


def _flowcharts(markdown: str) -> str:
    return re.sub(
        r"^```mermaid\n(.*?)^```$", lambda block: _table(block[1]), markdown, flags=re.M | re.S
    )


def _table(flowchart: str) -> str:
    """Each arrow of a flowchart as a row; dotted ones exist only if they are asked for."""
    rows = ["| from | what | to | always |", "|---|---|---|---|"]
    for line in flowchart.splitlines():
        if edge := EDGE.match(line):
            # A node may have a text of its own, in brackets; several nodes are joined by &.
            first = ", ".join(re.sub(r"^\w+\[(.*)\]$", r"\1", n) for n in edge[1].split(" & "))
            always = "yes" if "-->" in line else "if asked for"
            rows.append(f"| {first} | {edge[2] or ''} | {edge[3]} | {always} |")
    return "\n".join(rows)
