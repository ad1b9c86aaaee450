"""Writes the tables of docs/datasets.md and the configs in config/examples/public from the table of
public datasets: ``make config-docs``."""

from __future__ import annotations

import re
from pathlib import Path

from unet.cli.download_command import facts, size_of
from unet.config.public_datasets import config_of, left_out, public_names, public_set

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "datasets.md"
EXAMPLES = ROOT / "config" / "examples" / "public"
BLOCK = re.compile(r"(<!-- (sets|left out) -->\n).*?(<!-- end -->)", re.S)


def pages() -> dict[Path, str]:
    """Each file as it should be."""
    made = {ROOT / facts(name)["config"]: config_of(name, "data") for name in public_names()}
    tables = {"sets": _sets, "left out": _left_out}
    text = PAGE.read_text(encoding="utf-8")
    return {PAGE: BLOCK.sub(lambda found: found[1] + tables[found[2]]() + found[3], text), **made}


def _sets() -> str:
    lines = ["| name | shows | size | licence | hash | split | downloaded and run |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name in public_names():
        found = public_set(name)
        size = "by hand" if found.by_hand else size_of(found.mb)
        hashed = "published" if all(file.known for file in found.files) else "on first download"
        about = f"{found.dims}D, {found.shows}" + (f" ({found.note})" if found.note else "")
        config = f"../{facts(name)['config']}"
        lines.append(
            f"| [{name}]({config}) | {about} | {size} | [{found.licence}]({found.page}) | {hashed} "
            f"| {found.published_split} | {found.tried} |"
        )
    return "\n".join(lines) + "\n"


def _left_out() -> str:
    lines = ["| dataset | why |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {why} |" for name, why in left_out().items())]) + "\n"


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
