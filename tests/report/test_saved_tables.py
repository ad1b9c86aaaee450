"""What a table's button "Save CSV" writes."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

from tests.report.browser import chromium, run_in_page
from unet.report.page_scripts import FOLDER
from unet.tables import guarded

CELLS = [
    '=HYPERLINK("http://x","y")', "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "'=1", "-0.25", "+3",
    "1e-05", "-1.5e-05", "plain", "a, b", "−0.5", "-", "=",
]  # fmt: skip


def test_no_cell_runs_as_a_formula(tmp_path: Path) -> None:
    chromium()
    rows = "".join(f"<tr><td>{k}</td><td></td></tr>" for k in range(len(CELLS)))
    page = tmp_path / "page.html"
    page.write_text(
        '<!doctype html><html><head><meta charset="utf-8"><meta http-equiv='
        '"Content-Security-Policy" content="script-src \'none\'"></head><body><main><h1>d</h1>'
        "<table><thead><tr><th>n</th><th>=head</th></tr></thead><tbody>"
        f"{rows}</tbody></table></main></body></html>",
        "utf-8",
    )
    script = f"""
        const cells = {CELLS!r};
        document.querySelectorAll('tbody tr').forEach((row, k) => {{
          row.cells[1].textContent = cells[k];
        }});
        let blob;
        URL.createObjectURL = (made) => {{ blob = made; return '#'; }};
        document.querySelector('button.save').click();
        return await blob.text();
    """
    tables = (FOLDER / "tables.js").read_text("utf-8")
    saved = run_in_page(page, tmp_path, script, before=tables)
    head, *lines = csv.reader(StringIO(saved.removeprefix("\ufeff"), newline=""))
    assert head == ["n", "'=head"]
    # A dash alone is an empty cell.
    assert [line[1] for line in lines] == ["" if c == "-" else guarded(c) for c in CELLS]
    assert [c for c in CELLS if guarded(c) == c] == [
        "-0.25", "+3", "1e-05", "-1.5e-05", "plain", "a, b", "−0.5",
    ]  # fmt: skip
