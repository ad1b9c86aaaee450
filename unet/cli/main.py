"""The ``unet`` command: lists the presets, and applies trained models without the workflow."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from typing import Any

from unet import __version__, allocator
from unet.cli.predict_request import add_arguments
from unet.cli.stage import run
from unet.config.geometry import Footprint, footprint
from unet.config.presets import PRESETS, AnyArchitecture, architecture_of
from unet.versions import library_versions


def _accepted(fp: Footprint, number: int = 5) -> list[int]:
    """Accepted sizes, starting near the paper's tile size (or at the smallest one)."""
    first = fp.fit_below(max(fp.smallest, 572 - 2 * fp.grid)) if fp.margin else fp.grid
    return [first + i * fp.grid for i in range(number)]


def network_facts(name: str, arch: AnyArchitecture, channels: int, classes: int) -> dict[str, Any]:
    """Facts about a preset for the user, as plain values."""
    import torch

    from unet.models.build import NETWORKS
    from unet.models.network import parameter_counts

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
        "accepted_rule": f"{fp.smallest} and above, {fp.remainder} modulo {fp.grid}",
    }


def _models(args: argparse.Namespace) -> int:
    rows = []
    for name in sorted(PRESETS):
        given = {"width": args.width, "depth": args.depth, "dims": args.dims}
        if PRESETS[name].kind != "unet":
            given = {}  # a sliding-window classifier has none of these options
        arch = architecture_of(name, **given)
        rows.append(network_facts(name, arch, args.channels, args.classes))
    if args.json:
        print(json.dumps(rows, indent=1))  # noqa: T201 - this is the command's output
        return 0
    from rich.console import Console
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
    Console().print(table)
    return 0


def _predict(args: argparse.Namespace) -> int:
    from unet.cli.predict_command import predict_images

    return run(args, predict_images)


class _Versions(argparse.Action):
    """Prints the versions a bug report needs: this package, Python, the system, the libraries."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        found = {"unet-pipeline": __version__, "Python": platform.python_version()}
        found |= {platform.system(): platform.release(), **library_versions()}
        print(*(f"{name} {value}" for name, value in found.items()), sep="\n")  # noqa: T201
        parser.exit()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, must be at least 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``unet``; returns the exit code."""
    p = argparse.ArgumentParser(prog="unet", description="U-Net for microscopy.")
    p.add_argument("--version", action=_Versions, nargs=0, help="print all versions and exit")
    commands = p.add_subparsers(required=True, metavar="COMMAND")
    models = commands.add_parser(
        "models",
        help="list the presets: parameters, receptive field, halo, accepted sizes",
        description="Lists each preset's number of parameters (all, including running statistics, "
        "and trainable), receptive field, halo, grid and accepted input sizes in pixels.",
    )
    models.add_argument("--json", action="store_true", help="print JSON")
    models.add_argument("--width", type=_positive, help="use this width instead of the preset's")
    models.add_argument("--depth", type=_positive, help="use this depth instead of the preset's")
    models.add_argument("--dims", type=int, choices=(2, 3), help="spatial axes (default 2)")
    models.add_argument("--channels", type=_positive, default=1, help="image channels (default 1)")
    models.add_argument("--classes", type=_positive, default=2, help="classes (default 2)")
    models.set_defaults(command=_models)
    predict = commands.add_parser(
        "predict",
        help="apply a trained model to images",
        description="Applies a trained model, or several together, to images: with the model's own "
        "normalisation, at its pixel size, in tiles without seams. Writes masks/*.tif, "
        "segmentation.zarr (OME-Zarr: probabilities and labels), objects.csv and manifest.csv "
        "(the id of each image, and which images were left out). If it is stopped, run the same "
        "command again to continue.",
    )
    add_arguments(predict)
    predict.set_defaults(command=_predict)
    args = p.parse_args(argv)
    code: int = args.command(args)
    return code


def entry() -> int:
    """Entry point of the installed command ``unet``."""
    if sys.argv[1:2] == ["predict"]:
        allocator.restart()
    return main()


if __name__ == "__main__":
    sys.exit(entry())
