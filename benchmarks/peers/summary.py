"""Prints what is in benchmarks/results/peer_nnunet_*.json as one Markdown table.

python benchmarks/peers/summary.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
EQUAL = {"minutes": "minutes", "megapixels": "pixels"}


def number(value: dict[str, Any], bold: bool = False) -> str:
    """A mean with its interval."""
    mean = f"{value['mean']:.3f}"
    mean = f"**{mean}**" if bold else mean
    return mean if value["low"] is None else f"{mean} [{value['low']:.3f}, {value['high']:.3f}]"


def rows(result: dict[str, Any]) -> list[str]:
    """The rows of one dataset: of each kind of budget those of its scores."""
    lines = []
    for kind, text in EQUAL.items():
        run = result["runs"].get(kind)
        if run is None:
            continue
        ours = run["ours"]
        told = [f"{t['minutes']:.1f}, {t['megapixels']:.0f}"
                for t in (run["training"], ours["training"])]  # fmt: skip
        head = [result["dataset"], text, *told]
        for label, theirs in run["scores"].items():
            apart = ours["ours minus theirs"][label]
            cells = [label, number(theirs), number(ours["scores"][label], bold=True), number(apart)]
            lines.append("| " + " | ".join([*head, *cells]) + " |")
            head = [""] * len(head)
    return lines


def main() -> int:
    print(
        "| dataset | equal | nnU-Net: minutes, Mpx | ours: minutes, Mpx | score | nnU-Net | ours "
        "| ours minus theirs |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for path in sorted(RESULTS.glob("peer_nnunet_*.json")):
        print("\n".join(rows(json.loads(path.read_text()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
