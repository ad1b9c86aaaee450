"""Opens pages in headless Chromium and runs a script in them; no other library is needed.

The script is written into a copy of the page, with its hash in the page's policy, so what the page
itself may do stays as it is. What the script returns is written into the page as JSON and read from
Chromium's ``--dump-dom``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 120
_RESULT = "result-of-the-test"


def chromium() -> str:
    """The path of Chromium; skips the test where there is none."""
    names = (os.environ.get("UNET_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    for name in names:
        if name and (found := shutil.which(name)):
            return found
    pytest.skip("no Chromium; install it, or name it in UNET_CHROMIUM")


def run_in_page(
    page: Path,
    folder: Path,
    script: str,
    *,
    before: str = "",
    width: int = 1300,
    dark: bool = False,
) -> Any:
    """Runs JavaScript in a copy of a page after its own scripts; returns what the script returns.

    Args:
        page: an HTML file with a Content-Security-Policy.
        folder: for the copy; put there what the page links to.
        script: the body of an async function, whose result can be written as JSON.
        before: the text of a script that runs first, such as a library.
        width: of the window in CSS pixels. Chromium's is 500 at least.
        dark: whether the browser asks for dark pages.

    Raises:
        AssertionError: an error in the page or in the script.
    """
    wrapped = (
        "const seen = [];\n"
        "addEventListener('securitypolicyviolation', (e) => seen.push('blocked: ' + "
        "e.violatedDirective + ' ' + e.sample));\n"
        "addEventListener('error', (e) => seen.push(String(e.message)));\n"
        f"(async () => {{ {script} \n}})().then(\n"
        "  (value) => ({ value, seen }), (error) => ({ seen: [...seen, String(error)] }),\n"
        ").then((found) => {\n"
        "  const box = document.createElement('pre');\n"
        f"  box.id = '{_RESULT}';\n"
        "  box.textContent = JSON.stringify(found);\n"
        "  document.body.append(box);\n"
        "});\n"
    )
    copy = folder / f"tested-{page.name}"
    copy.write_text(
        _with_scripts(page.read_text("utf-8"), [before, wrapped]), "utf-8", newline="\n"
    )
    dumped = _dumped(copy, folder, width, dark)
    box = re.search(rf'<pre id="{_RESULT}"[^>]*>(.*?)</pre>', dumped, re.DOTALL)
    assert box is not None, f"{page.name}: the script did not end: {dumped[-300:]}"
    found = json.loads(unescape(box[1]))
    assert found["seen"] == [], found["seen"]
    return found.get("value")


def _with_scripts(text: str, scripts: list[str]) -> str:
    for script in filter(None, scripts):
        # Chromium computes the hash of the text between the tags.
        script = script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        text, number = re.subn(
            r"(script-src )('none')?", rf"\g<1>'sha256-{digest}' ", text, count=1
        )
        assert number == 1, "the page has no policy for scripts"
        head, _, tail = text.rpartition("</body>")
        text = f"{head}<script>{script}</script></body>{tail}"
    return text


def _dumped(page: Path, folder: Path, width: int, dark: bool) -> str:
    """The page's elements after its scripts have run, as HTML."""
    command = [
        chromium(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},1000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        # Timers run at once; this much of the page's time at most.
        "--virtual-time-budget=20000",
        "--dump-dom",
        page.resolve().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-500:]
    return done.stdout.decode("utf-8")
