"""The scripts of a page: inline, each allowed by the page's policy through its hash.

A page names its scripts in ``{% block scripts %}`` of ``base.html.j2``. A browser runs these and
nothing else: not a script that somebody added to the page, nor one in an attribute.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

FOLDER = Path(__file__).parent / "templates" / "scripts"


class PageScripts:
    """Collects the scripts that a page uses while it is rendered."""

    def __init__(self) -> None:
        self._hashes: list[str] = []

    def script(self, name: str) -> Markup:
        """The ``<script>`` element with the text of ``templates/scripts/<name>``; nothing if the
        page has it already.

        Raises:
            ValueError: the text would end the element early.
        """
        return self.inline((FOLDER / name).read_text(encoding="utf-8"), name)

    def inline(self, text: str, name: str = "script") -> Markup:
        """The same for the text of a script."""
        if "</script" in text.lower() or "<!--" in text:
            raise ValueError(f"{name}: write '<\\/script' and no '<!--' inside a script")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        if digest in self._hashes:
            return Markup("")
        self._hashes.append(digest)
        return Markup(f"<script>{text}</script>\n")

    def sources(self) -> Markup:
        """The sources of the policy's ``script-src``: the hashes of the scripts so far."""
        allowed = " ".join(f"'sha256-{digest}'" for digest in self._hashes)
        return Markup(allowed or "'none'")
