"""``unet models``: lists the presets with their sizes."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from unet.cli.arguments import positive
from unet.cli.stage import closed_pipe
from unet.config.geometry import Footprint, footprint
from unet.config.presets import PRESETS, AnyArchitecture, architecture_of

if TYPE_CHECKING:
    from rich.table import Table

# Presets in a table: with more, a terminal of 80 columns would cut numbers.
BESIDE = 3


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet models``."""
    p.description = (
        "Lists each preset's number of parameters (all, including running statistics, and "
        "trainable), receptive field, halo, grid, and the sizes that a patch or tile may have, in "
        "pixels. Images may have any size: they are cut into tiles, and small ones are padded."
    )
    p.epilog = (
        "examples:\n"
        "  unet models\n"
        "  unet models --width 32 --channels 3    the numbers of a smaller network\n"
        "  unet models --json                     for programs"
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("--width", type=positive, help="use this width instead of the preset's")
    p.add_argument("--depth", type=positive, help="use this depth instead of the preset's")
    p.add_argument("--dims", type=int, choices=(2, 3), help="spatial axes (default 2)")
    p.add_argument("--channels", type=positive, default=1, help="channels of an image")
    p.add_argument("--classes", type=positive, default=2, help="number of classes")


def _accepted(fp: Footprint, number: int = 5) -> list[int]:
    """Accepted sizes, starting near the paper's tile size (or at the smallest one)."""
    first = fp.fit_below(max(fp.smallest, 572 - 2 * fp.grid)) if fp.margin else fp.grid
    return [first + i * fp.grid for i in range(number)]


def network_facts(name: str, arch: AnyArchitecture, channels: int, classes: int) -> dict[str, Any]:
    """Facts about a preset for the user, as plain values."""
    import torch

    from unet.models.build import NETWORKS
    from unet.models.network import parameter_counts
    from unet.report.model_facts import rule_in_words

    with torch.device("meta"):  # shapes only: no memory, no time
        total, trainable = parameter_counts(NETWORKS[arch.kind](channels, classes, arch))
    # A preset is the same along all axes.
    fp = footprint(arch)[-1]
    return {
        "preset": name,
        "width": arch.width,
        "depth": arch.depth,
        "padding": "valid" if fp.margin else "same",
        "parameters": total,
        "trainable": trainable,
        "receptive_field": fp.receptive_field,
        "halo": fp.halo or fp.margin,
        "grid": fp.grid,
        "output_smaller_by": 2 * fp.margin,
        "accepted_sizes": _accepted(fp),
        "accepted_rule": rule_in_words(fp),
    }


def command(args: argparse.Namespace) -> int:
    """Prints the table of presets."""
    rows = []
    for name in sorted(PRESETS):
        given = {"width": args.width, "depth": args.depth, "dims": args.dims}
        if PRESETS[name].kind != "unet":
            given = {}  # the other kinds have none of these options
        arch = architecture_of(name, **given)
        rows.append(network_facts(name, arch, args.channels, args.classes))
    with closed_pipe():
        if args.json:
            print(json.dumps(rows, indent=1))  # noqa: T201 - this is the command's output
            return 0
        from rich.console import Console

        for start in range(0, len(rows), BESIDE):
            Console().print(_table(rows[start : start + BESIDE]))
    return 0


def _table(rows: list[dict[str, Any]]) -> Table:
    """The facts about some presets, a column for each."""
    from rich.table import Table

    table = Table("preset", *(str(row["preset"]) for row in rows))
    for key in list(rows[0])[1:]:
        label = key.replace("_", " ")
        cells = []
        for row in rows:
            value = row[key]
            if isinstance(value, list):
                cells.append(", ".join(map(str, value)) + ", ...")
            else:
                cells.append(f"{value:,}" if isinstance(value, int) else str(value))
        table.add_row(label, *cells)
    return table
