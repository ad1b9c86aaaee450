"""Level and kind of the warnings and errors that the manifest and the splits stage give as text.

The stages own the texts; this table only names them. A text that is not in the table is still a
finding, of a kind for others. Light.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unet.data.survey.findings import Level

Known = Sequence[tuple[str, Level, str]]

# Warnings about single images. The first pattern that is found decides.
OF_IMAGES: Known = (
    (r"a binary mask\?", "warn", "binary_mask"),
    (r"are images and labels swapped\?", "warn", "images_labels_swapped"),
    (r"occur in several places", "warn", "scattered_numbers"),
    (r"are the values swapped\?", "warn", "swapped_classes"),
    (r"is the (background 0|first the background)\?", "warn", "covered"),
    (r"label is one object that covers", "warn", "covered"),
    (r"label is identical to the image", "warn", "label_is_image"),
    (r"label contains no object", "warn", "empty_label"),
    (r"its label is .* everywhere", "warn", "one_class_label"),
    (r"white is zero", "note", "white_is_zero"),
    (r"palette file", "note", "palette_file"),
    (r"values of type float", "note", "float_label"),
    (r"count as unlabelled", "warn", "unknown_values"),
    (r"pixel size|pixels of .* um|pixel_size_um", "warn", "odd_pixel_size"),
    (r"all pixels have the value", "note", "blank_image"),
)

# Reasons why an image is left out.
OF_REASONS: Known = (
    (r"^no label$", "warn", "no_label"),
    (r"not a regular file", "warn", "not_a_file"),
    (r"mixed planes and volumes", "warn", "mixed_axes"),
    (r"mixed channels", "warn", "mixed_channels"),
    (r"are images and labels swapped\?", "warn", "images_labels_swapped"),
    (r"belong to no class", "warn", "unknown_values"),
    (r"label is a copy of the image", "warn", "label_is_image"),
    (r"pixels, but its image has", "warn", "size_mismatch"),
    (r"all pixels have the value", "warn", "blank_image"),
)

# Warnings about a dataset as a whole.
OF_DATASETS: Known = (
    (r"^images: .* named like the labels", "warn", "named_like_labels"),
    (r"files? of (other kinds|another kind)", "warn", "files_not_read"),
    (r"not UTF-8; rename", "warn", "files_not_read"),
    (r"files are (labels|images), such as", "note", "labels_among_images"),
    (r"labels match no image", "warn", "labels_alone"),
    (r"same image under several names|images have copies", "warn", "copies"),
    (r"trains on only", "warn", "few_to_train"),
    (r"no training image has class", "warn", "class_missing"),
    (r"is never split up", "warn", "huge_group"),
    (r"were requested", "warn", "uneven_split"),
    (r"^unlabelled: ignore:", "note", "some_labelled"),
)

# Messages of errors.
OF_ERRORS: Known = (
    (r"^background: no label has a pixel", "stop", "no_background"),
    (r"no object in any of its", "stop", "no_objects"),
    (r"^split: no training image has class", "stop", "class_missing"),
    (r"all labels of its .* training images are", "stop", "one_class"),
    (r"are the same file, but", "stop", "copies_across_parts"),
    (
        r"at least \d+ are needed|only one group to train|fold \d+ has no",
        "stop",
        "too_few_to_split",
    ),
    (r"^split", "stop", "split_unusable"),
)

# Counted by the survey itself, with the finding of the images that are left out.
_COUNTED = re.compile(r"^\d+ of \d+ images are left out")


def named(text: str, known: Known, other: tuple[Level, str]) -> tuple[Level, str] | None:
    """Level and kind of a text; None if the survey says the same itself."""
    if _COUNTED.match(text):
        return None
    for pattern, level, kind in known:
        if re.search(pattern, text):
            return level, kind
    return other
