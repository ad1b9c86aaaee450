"""The kinds of network output, by name: their channels, and what they are learned from. Torch-free.

Adding a head is one entry in ``HEADS`` and, if it learns something new, its target in
:mod:`unet.training.patch_targets`.
"""

from __future__ import annotations

from dataclasses import dataclass

from unet.config.choices import Entry

# Class index of pixels that are ignored in training and scores.
IGNORE = 255


@dataclass(frozen=True, kw_only=True)
class Head(Entry):
    """A kind of output.

    Attributes:
        channels: names of the output's channels; None = the dataset's classes.
        softmax: how many of them are classes, with a softmax; the others are numbers in [0, 1],
            each with a sigmoid. None = all.
        maps: names of the float maps that training needs besides the class target.
        needs_instances: whether it can be learned from instance labels only.
    """

    channels: tuple[str, ...] | None = None
    softmax: int | None = None
    maps: tuple[str, ...] = ()
    needs_instances: bool = False

    def names(self, class_names: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the output's channels for a dataset with these classes."""
        return class_names if self.channels is None else self.channels

    def classes(self, class_names: tuple[str, ...]) -> int:
        """How many of the channels are classes."""
        return len(self.names(class_names)) if self.softmax is None else self.softmax


HEADS: dict[str, Head] = {
    "classes": Head(text="the dataset's classes"),
    # Caicedo et al. 2019.
    "border": Head(
        text="background, inside and inner border of each object; keeps touching objects apart "
        "(task instances)",
        keys=("border_width",),
        channels=("background", "inside", "border"),
        needs_instances=True,
    ),
    "distance": Head(
        text="foreground, and the distance to the object's edge, cut off at `train.distance_px`; "
        "keeps touching objects apart (task instances)",
        keys=("distance_px", "distance_weight"),
        channels=("background", "foreground", "distance"),
        softmax=2,
        maps=("distance",),
        needs_instances=True,
    ),
}


def head_of(channels: tuple[str, ...]) -> Head:
    """The kind of an output, given the names of its channels."""
    return next((head for head in HEADS.values() if head.channels == channels), HEADS["classes"])


def classes_among(head: tuple[str, ...]) -> int:
    """How many of an output's channels, given by name, are classes with a softmax."""
    for known in HEADS.values():
        if known.channels == head and known.softmax is not None:
            return known.softmax
    return len(head)
