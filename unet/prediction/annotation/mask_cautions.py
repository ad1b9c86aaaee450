"""What speaks against the predicted masks of an image, before a person corrects them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unet.errors import how_many, one_line
from unet.files import read_json
from unet.tables import read_table

_UNLIKE = "unlike the training images"


@dataclass(frozen=True)
class MaskCautions:
    """What is known about the masks of images.

    Attributes:
        unlike: image -> how it is unlike the training images, in words.
        others: image -> why somebody should look at its result; not those that are unlike.
        source: name of the file that says it; "" = nothing is known about any image.
    """

    unlike: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def of(self, image: str) -> str:
        """One line about an image; "" if nothing is known against its masks."""
        if image in self.unlike:
            return (
                f"the masks are no help here: {self.unlike[image]}; draw new ones or leave the "
                "image out"
            )
        return f"the masks may be poor here: {self.others[image]}" if image in self.others else ""

    def warnings(self, crops: Sequence[str]) -> list[str]:
        """Lines about all chosen crops; ``crops``: the image of each."""
        found = []
        unlike = [image for image in crops if image in self.unlike]
        others = [image for image in crops if image in self.others]
        if unlike:
            found.append(
                f"{how_many(len(unlike), 'crop')} of {len(crops)} from images {_UNLIKE} "
                f"({_named(unlike)}): the masks are no help here: draw new ones or leave such "
                "images out"
            )
        if others:
            found.append(
                f"{how_many(len(others), 'crop')} of {len(crops)} from {'other ' if unlike else ''}"
                f"images whose masks may be poor ({_named(others)}): {self.source} says why; draw "
                "new ones where they are wrong"
            )
        return found


def _named(images: Sequence[str], most: int = 3) -> str:
    each = list(dict.fromkeys(images))
    more = f" and {len(each) - most} more" if len(each) > most else ""
    return ", ".join(map(one_line, each[:most])) + more


def cautions_of_quality(path: Path) -> MaskCautions:
    """From a table ``quality.csv``; of one without the columns on drift, nothing is known.

    Raises:
        UserError: the table is unreadable.
    """
    table = read_table(path, "quality", ["image"], ["drift"])
    if not {"drift", "drift_reasons", "flagged", "why"} <= set(table.columns):
        return MaskCautions()
    unlike, others, known = {}, {}, False
    columns = (table[name] for name in ("image", "drift", "drift_reasons", "flagged", "why"))
    for image, drift, reasons, flagged, why in zip(*columns, strict=True):
        known = known or drift == drift or bool(reasons)
        # 1 is the limit of what is usual.
        if reasons or drift > 1:
            unlike[image] = f"{_UNLIKE} ({reasons or f'drift {drift:.2g}'})"
        elif flagged == "yes":
            others[image] = why
    # Model files of early versions do not know their training images.
    return MaskCautions(unlike, others, path.name if known or others else "")


def cautions_of_predict(done: Path) -> MaskCautions:
    """From the ``predict.json`` of ``unet predict``; that of early versions says nothing."""
    about = read_json(done)
    if "unlike" not in about:
        return MaskCautions()
    unlike = {
        image: f"{_UNLIKE} ({'; '.join(reasons)})" for image, reasons in about["unlike"].items()
    }
    others = {image: why for image, why in about.get("odd", {}).items() if image not in unlike}
    return MaskCautions(unlike, others, done.name)
