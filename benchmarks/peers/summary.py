"""Prints what is in benchmarks/results/peer_nnunet_*.json as one Markdown table.

    python benchmarks/peers/summary.py
    python benchmarks/peers/summary.py --write

The intervals are computed from the images' scores in the files; --write puts them into the files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.scoring import as_json, differences
from unet.evaluation.statistics import mean_interval
from unet.report.score_tables import bounds

RESULTS = Path(__file__).resolve().parents[1] / "results"
EQUAL = {"minutes": "minutes", "megapixels": "pixels"}


def number(value: dict[str, Any]) -> str:
    """A mean with its interval."""
    mean = f"{value['mean']:.3f}"
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
            cells = [label, number(theirs), number(ours["scores"][label]), number(apart)]
            lines.append("| " + " | ".join([*head, *cells]) + " |")
            head = [""] * len(head)
    return lines


def recompute(run: dict[str, Any]) -> None:
    """Puts the intervals that follow from the images' scores into a run."""
    for scores in (run["scores"], run["ours"]["scores"]):
        for found in scores.values():
            values = [v for v in found["images"].values() if v is not None]
            found |= as_json(mean_interval(values, bounds=bounds(found["metric"])))
    run["ours"]["ours minus theirs"] = differences(run["ours"]["scores"], run["scores"], 0.95)


def main(argv: Sequence[str] | None = None, folder: Path = RESULTS) -> int:
    p = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    p.add_argument("--write", action="store_true", help="also write the intervals to the files")
    args = p.parse_args(argv)
    print(
        "| dataset | equal | nnU-Net: minutes, Mpx | ours: minutes, Mpx | score | nnU-Net | ours "
        "| ours minus theirs |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for path in sorted(folder.glob("peer_nnunet_*.json")):
        result = json.loads(path.read_text())
        for run in result["runs"].values():
            if "ours" in run:
                recompute(run)
        if args.write:
            path.write_text(json.dumps(result, indent=1) + "\n")
        print("\n".join(rows(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
