"""What holds for the scripts of every page."""

from __future__ import annotations

import base64
import hashlib
import re


def assert_scripts_allowed(page: str) -> None:
    """Every script is inline and its hash is in the page's policy, which allows no other; nothing
    runs from attributes."""
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    (sources,) = re.findall(r"script-src ([^;]*)", policy[1])
    scripts = re.findall(r"<script\b([^>]*)>(.*?)</script>", page, re.DOTALL)
    texts = [text for attributes, text in scripts if 'type="application/json"' not in attributes]
    assert "src=" not in "".join(attributes for attributes, _ in scripts)
    hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
    assert sources.split() == ([f"'sha256-{digest}'" for digest in hashes] or ["'none'"])
    assert not re.search(r"<[a-z][^<>]* on[a-z]+=", page.split("<script")[0])
