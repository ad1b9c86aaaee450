"""The arguments of ``unet evaluate``."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from unet.cli.arguments import axes, lengths, positive
from unet.errors import UserError

# Names of folders that say nothing about the method.
_PLAIN = frozenset(
    ("masks", "labels", "segmentation", "predictions", "predicted", "pred", "output", "results")
)
_FOLD = re.compile(r"fold-\w+")


def add_request(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet evaluate``."""
    p.add_argument("predicted", metavar="PREDICTED", help="folder, glob or file of predicted masks")
    p.add_argument("truth", metavar="TRUTH", help="folder, glob or file of true masks")
    p.add_argument("-o", "--output", type=Path, help="folder for the tables and the page")
    p.add_argument("--name", help="name of PREDICTED in the tables (default: the folder's name)")
    p.add_argument(
        "--also", action="append", default=[], metavar="NAME=FOLDER",
        help="masks of one more method, to compare on the same images (repeatable)",
    )  # fmt: skip
    p.add_argument("--images", help="folder or glob of the images, to draw outlines on")
    p.add_argument(
        "--classes", type=_classes, metavar="NAME=VALUE,..",
        help="the values are classes, the first one is the background: background=0,cell=255",
    )  # fmt: skip
    p.add_argument(
        "--binary", choices=("predicted", "truth", "both"),
        help="these masks are only foreground: their connected pieces are the objects",
    )  # fmt: skip
    p.add_argument("--ignore", type=int, metavar="VALUE", help="pixels of the truth not to count")
    p.add_argument(
        "--unlabelled", choices=("background", "ignore"), default="background",
        help="pixels of the truth without a label: background, or not to count because only some "
        "objects have one (default background)",
    )  # fmt: skip
    p.add_argument(
        "--missing", choices=("leave-out", "zero"), default="leave-out",
        help="images without a predicted mask: leave them out, or count them as if nothing had "
        "been predicted (default leave-out)",
    )  # fmt: skip
    p.add_argument(
        "--metrics", type=_words, metavar="A,B",
        help="families of metrics: pixel, instance, objects, rand, boundary (default: all)",
    )  # fmt: skip
    p.add_argument(
        "--boundary-tolerance", default="2 px", metavar="DISTANCE",
        help="how far off an outline may be, such as '0.5 um' (default 2 px)",
    )  # fmt: skip
    p.add_argument(
        "--pixel-size", type=lengths, metavar="UM",
        help="micrometres per pixel, or one value per axis (2,0.5,0.5); overrides the files",
    )  # fmt: skip
    p.add_argument("--axes", type=axes, help="axes of files that do not declare them, such as ZYX")
    p.add_argument(
        "--group", metavar="REGEX",
        help="the part of a name that images of one slide, animal or video share, such as "
        "'(mouse\\d+)': intervals are then over these",
    )  # fmt: skip
    p.add_argument("--shown", type=positive, default=3, help="images in the page (default 3)")
    p.add_argument("--json", action="store_true", help="print the scores as JSON, not as a table")
    p.add_argument("--threads", type=positive, default=os.cpu_count() or 1, help="CPU threads")
    p.add_argument("--log", type=Path, help="also write all messages to this file")


def _words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _classes(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name, value = name.strip(), value.strip()
        known = name in found or (value.isdecimal() and int(value) in found.values())
        if not (name and equals and value.isdecimal()) or known:
            raise argparse.ArgumentTypeError(
                f"got {text}; write each class once with its value, such as background=0,cell=255"
            )
        found[name] = int(value)
    if len(found) < 2:
        raise argparse.ArgumentTypeError(
            f"got {text}; write at least two classes, the background first: background=0,cell=255"
        )
    return found


def methods_given(args: argparse.Namespace) -> dict[str, str]:
    """Name of each method -> its masks, as the user wrote them."""
    found = {args.name or name_of(args.predicted): args.predicted}
    for text in args.also:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).exists():
            name, folder = name_of(text), text
        if not name or not folder:
            raise UserError(f"--also: got {text!r}; write a name and a folder: stardist=sd/masks")
        if name in found:
            raise UserError(
                f"--also: the name {name!r} is taken; write another one, such as --also "
                f"{name}-2={folder}"
            )
        found[name] = folder
    return found


def name_of(pattern: str) -> str:
    """A name for masks: the last folder that says more than "masks" or "fold-0"."""
    parts = [part for part in Path(pattern).absolute().parts if not set(part) & set("*?[")]
    if len(parts) > 1 and Path(pattern).is_file():
        parts = parts[:-1]
    names = [part.removesuffix(".zarr") for part in parts[1:]]
    told = [name for name in names if not (name.lower() in _PLAIN or _FOLD.fullmatch(name))]
    return told[-1] if told else "predicted"
