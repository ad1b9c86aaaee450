"""The names that keys of the config take: one table for each kind of name. Torch-free.

A table contains what the config must know about each name: one line of text, and what it needs. The
code for a name is elsewhere, in a registry under the same name; ``tests/config/test_choices.py``
checks that table and registry have the same names. A key's allowed values, its messages, its lists
in ``config/README.md`` and the JSON schema all come from its table.

Tables with values that results depend on have their own files:
:mod:`unet.config.loss_table`, :mod:`unet.config.engine_table`, :mod:`unet.config.heads`,
:mod:`unet.config.presets`, :mod:`unet.config.recipes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the config knows about a name."""

    text: str
    """What it is, in one line that fits a cell of a table."""
    keys: tuple[str, ...] = ()
    """Keys of the config that have an effect only with names that list them."""

    @property
    def line(self) -> str:
        """What it is and what it needs, in one line."""
        return self.text


@dataclass(frozen=True, eq=False)
class OneOf:
    """Limits a key's values to the names in a table: ``Annotated[str, OneOf(TABLE)]``."""

    table: Mapping[str, Entry]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        # Like a Literal of the names: the same messages, and an enum in the JSON schema.
        return handler.generate_schema(Literal[tuple(self.table)])


# Files and datasets

# Suffix of the file -> its reader is in `unet.io.formats.READERS`.
FORMAT_TABLE = {
    ".tif": Entry(text="TIFF and OME-TIFF"),
    ".tiff": Entry(text="TIFF and OME-TIFF"),
    ".png": Entry(text="PNG"),
    ".zarr": Entry(text="OME-Zarr, a folder"),
    ".jpg": Entry(text="JPEG"),
    ".jpeg": Entry(text="JPEG"),
    ".jp2": Entry(text="JPEG 2000"),
    ".j2k": Entry(text="JPEG 2000, the bare codestream"),
    ".lsm": Entry(text="Zeiss LSM"),
    ".stk": Entry(text="MetaMorph STK"),
    ".svs": Entry(text="slides of Aperio scanners"),
    ".ndpi": Entry(text="slides of Hamamatsu scanners"),
    ".scn": Entry(text="slides of Leica scanners"),
    ".bif": Entry(text="slides of Ventana scanners"),
    ".czi": Entry(text="Zeiss CZI"),
    ".nd2": Entry(text="Nikon ND2"),
    ".lif": Entry(text="Leica LIF"),
    ".oib": Entry(text="Olympus OIB"),
    ".h5": Entry(text="HDF5; write the array inside, as in `dir/*.h5::/raw`"),
    ".hdf5": Entry(text="HDF5; write the array inside, as in `dir/*.hdf5::/raw`"),
    ".nrrd": Entry(text="NRRD"),
    ".nii": Entry(text="NIfTI"),
    ".nii.gz": Entry(text="NIfTI, packed"),
}

# `unet.data.layouts.LAYOUTS`
LAYOUT_TABLE = {
    "folders": Entry(text="images and labels in two folders, matched by name; or a sheet"),
    "stack": Entry(text="as folders, but each page of a file is an image of its own"),
    "dsb2018": Entry(text="Data Science Bowl 2018: a folder per image, a mask file per object"),
    "ctc": Entry(text="Cell Tracking Challenge: 01/t000.tif, 01_GT/SEG/man_seg000.tif"),
    "nnunet": Entry(text="nnU-Net: imagesTr/case_0000.tif, labelsTr/case.tif"),
    "ome-zarr": Entry(text="OME-Zarr images with their labels inside"),
    "plate": Entry(
        text="OME-Zarr plates, or files named by a pattern: each field is an image, the fields of "
        "a well a group"
    ),
}

# `unet.data.synthetic.KINDS`
SYNTHETIC_TABLE = {
    "membranes": Entry(text="membranes between cells; class labels (255 cell, 0 membrane)"),
    "nuclei": Entry(text="crowded fluorescent nuclei; instance labels"),
    "nuclei3d": Entry(
        text="volumes of nuclei; instance labels. A third as many sections as pixels per side, "
        "three times as far apart"
    ),
    "phase": Entry(text="cells in phase contrast; instance labels"),
}

# `unet.data.normalize.NORMALIZE_METHODS`
NORMALIZATION_TABLE = {
    "percentile": Entry(text="the percentile `low` becomes 0, the percentile `high` 1"),
    "zscore": Entry(text="mean 0, standard deviation 1"),
    "minmax": Entry(text="the smallest value becomes 0, the largest 1"),
    "none": Entry(text="as stored"),
}

# Training: `unet.training.schedule.OPTIMIZERS` and `SCHEDULES`

OPTIMIZER_TABLE = {
    "adamw": Entry(text="AdamW (Loshchilov, Hutter 2019)"),
    "sgd": Entry(
        text="gradient descent with classical momentum, as in the U-Net paper", keys=("momentum",)
    ),
    "nesterov": Entry(
        text="gradient descent with Nesterov momentum, as in nnU-Net", keys=("momentum",)
    ),
}

SCHEDULE_TABLE = {
    "constant": Entry(text="it stays the same"),
    "poly": Entry(text="it falls to 0 as (1 - t)^0.9, t from 0 to 1"),
    "cosine": Entry(text="it falls to 0 as half a cosine"),
    "plateau": Entry(
        text="it falls when the validation loss no longer does",
        keys=("plateau_patience", "plateau_factor"),
    ),
}

# Prediction


@dataclass(frozen=True, kw_only=True)
class Method(Entry):
    """How probabilities become objects."""

    head: str | None = None
    """The head that it needs (a key of `unet.config.heads.HEADS`); None: any head with a channel
    "background"."""

    @property
    def line(self) -> str:
        return self.text if self.head is None else f"{self.text}; needs head: {self.head}"


# `unet.prediction.objects.methods.METHODS`
METHOD_TABLE = {
    "components": Method(text="connected pieces of the foreground"),
    "grow": Method(
        text="pieces of the inside grow back over the border", head="border", keys=("grow_px",)
    ),
    "watershed": Method(
        text="each hill of the predicted distance is an object",
        head="distance",
        keys=("watershed_h",),
    ),
}

# Evaluation


@dataclass(frozen=True, kw_only=True)
class Family(Entry):
    """A family of metrics."""

    chooses: bool = False
    """Whether its threshold is chosen on the validation images."""
    masks: bool = True
    """Whether it compares masks, so that it needs no probabilities
    (`unet.evaluation.families.MASK_FAMILIES`)."""


# `unet.evaluation.families.FAMILIES`
FAMILY_TABLE = {
    "pixel": Family(text="is each pixel of the right class?"),
    "instance": Family(text="is each object found, and how well? (task instances)"),
    "objects": Family(text="which objects are split, merged, missed, added? (task instances)"),
    "rand": Family(text="do pixels of one object stay together? (task instances)"),
    "boundary": Family(text="how far are outlines off?", keys=("boundary_tolerance",)),
    "calibration": Family(text="do probabilities match how often they are right?", masks=False),
    "topology": Family(
        text="are the right cells separated (V_rand, V_info)? For membranes",
        keys=("topology_class", "boundary"),
        chooses=True,
        masks=False,
    ),
    "isbi2012": Family(
        text="the errors of the first ISBI 2012 leader board. For membranes",
        keys=("topology_class",),
        chooses=True,
        masks=False,
    ),
}

CHOOSING = frozenset(name for name, family in FAMILY_TABLE.items() if family.chooses)
"""Families whose threshold is chosen on the validation images."""
