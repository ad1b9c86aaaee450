"""``unet view``: opens results in napari."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.cli.stage import closed_pipe, run
from unet.errors import UserError
from unet.paths import Paths

if TYPE_CHECKING:
    from unet.report.view_layers import LayerData, Result

log = logging.getLogger("unet")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet view``."""
    p.description = (
        "Opens one image of a result in napari: the image, the probabilities, the labels, and the "
        "truth if it is known, all at their size in micrometres. Large images are read as needed. "
        'Needs napari: pip install "unet-pipeline[view]".'
    )
    p.epilog = (
        "examples:\n"
        "  unet view results/nuclei/unet-border/fold-0\n"
        "  unet view results/nuclei --image nuclei_003     the results of all models\n"
        "  unet view segmented --images photos             results of unet predict\n"
        "  unet view results/nuclei --list                 which images there are"
    )
    p.add_argument(
        "result", type=Path, metavar="RESULT",
        help="folder of a fold, a model or a dataset in the results, a segmentation.zarr, or the "
        "output folder of unet predict",
    )  # fmt: skip
    p.add_argument("--image", metavar="ID", help="which image to show (default: the first)")
    p.add_argument("--list", action="store_true", help="print the ids of the images, open nothing")
    p.add_argument(
        "--images", type=Path, metavar="FOLDER",
        help="folder of the images, for results of unet predict, which hold no copy of them",
    )  # fmt: skip


def command(args: argparse.Namespace) -> int:
    """Runs ``unet view``; returns the exit code."""
    return run(args, _view)


def _view(args: argparse.Namespace, _: Paths) -> None:
    from unet.report.view_layers import find_result, layers_of

    result = find_result(args.result, args.images)
    if args.list:
        with closed_pipe():
            print(*result.images, sep="\n")  # noqa: T201 - this is the command's output
        return
    if find_spec("napari") is None:
        raise UserError(
            'unet view needs napari; run: pip install "unet-pipeline[view]" '
            '(in a clone: pip install -e ".[view]")'
        )
    _check_display()
    layers = layers_of(result, args.image)
    _tell(result, args.image)
    open_viewer(layers, title=f"unet view: {args.image or result.images[0]}")


def _check_display() -> None:
    """Qt ends the process, without an error that could be caught, if there is no display.

    Raises:
        UserError: there is none.
    """
    named = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, named)):
        raise UserError(
            "unet view needs a display, and this session has none; run it on your desktop, or "
            "connect with ssh -X"
        )


def _tell(result: Result, image: str | None) -> None:
    """Says which other images there are."""
    known = result.images
    if image is None and len(known) > 1:
        listed = ", ".join(known[1:6]) + (", ..." if len(known) > 6 else "")
        log.info("%s of %d images; --image shows another: %s", known[0], len(known), listed)


def add_layers(viewer: Any, layers: list[LayerData]) -> None:
    """Adds the layers to a viewer, or to its model without a window."""
    from napari.layers import Layer

    for data, options, kind in layers:
        viewer.add_layer(Layer.create(data, options, kind))
    if layers and "units" in layers[0][1]:
        # Since napari 0.9 on the canvas.
        overlays = getattr(getattr(viewer, "canvas", None), "overlays", viewer)
        overlays.scale_bar.visible = True


def open_viewer(layers: list[LayerData], title: str) -> None:
    """Shows the layers in a window until it is closed."""
    import napari

    viewer = napari.Viewer(title=title)
    add_layers(viewer, layers)
    viewer.reset_view()
    napari.run()
