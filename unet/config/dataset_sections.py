"""A dataset of the config: where its images are, what its labels mean, how it is split."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from unet.config.choices import LAYOUT_TABLE, SYNTHETIC_TABLE, OneOf
from unet.config.section_base import Changes, Section, Shown, Size
from unet.config.split_section import SplitSection
from unet.files import is_pattern, is_sheet
from unet.paths import NAME

_BY_CONTENT = "- (files are compared by content)"


class SyntheticSection(Section):
    reruns: ClassVar[str] = "synthesize"

    kind: Annotated[str, OneOf(SYNTHETIC_TABLE)]
    """What the images show."""
    images: Annotated[int, Field(ge=3, le=10_000)] = 12
    """Number of images."""
    size: Annotated[int, Field(ge=64, le=8192)] = 256
    """Side of an image, in pixels."""
    pixel_size_um: Size = 0.5
    """Pixel size that the files declare, in micrometres. It does not change the images."""


class DatasetSection(Section):
    reruns: ClassVar[str] = "manifest"

    images: Annotated[
        str | None,
        Shown(
            "folder, glob, file, pattern, plate (.zarr) or sheet (.csv, .tsv)",
            "needed, unless synthetic is given",
            _BY_CONTENT,
        ),
    ] = None
    """Where the images are, relative to `data_root` or absolute. A pattern says where the name of a
    file has its well, field and channel: `plate/{row}{col}_f{field}_c{channel}.tif`. Of an HDF5
    file or a plain Zarr store, write the array inside, too: `dir/*.h5::/raw`."""
    labels: Annotated[
        str | None,
        Shown("folder, glob or file; GT or ST; name of a label", reruns=_BY_CONTENT),
    ] = None
    """Where the labels are, as for `images`. The layouts folders and stack need it; the others find
    the labels themselves. Layout ctc takes GT or ST, ome-zarr and plate the label's name. A file
    that is a label is never read as an image."""
    synthetic: Annotated[SyntheticSection | None, Shown(reruns="synthesize")] = None
    """Generate images instead of reading files."""
    download: Annotated[str | None, Shown("name of a public dataset", reruns="download")] = None
    """Download a public dataset first, unless it is there: into a folder of its name in
    `data_root`, from which `images` and `labels` then start. docs/datasets.md lists them."""
    download_from: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Shown("URL, file or folder", "the dataset's own address", "-"),
    ] = None
    """With download: where to get the archive instead, such as a mirror, or a file fetched by hand.
    For several archives: the folder that holds them, or a URL that ends in `/`."""
    join: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | dict[str, float] | None,
        Shown(
            "list of datasets, or dataset: weight",
            reruns="join (a weight: train)",
        ),
    ] = None
    """Instead of images of its own: those of these datasets together, each prepared and split as in
    its own section ([join.md](../docs/join.md)). A patch is drawn from each dataset equally often,
    or in proportion to the weights."""
    layout: Annotated[str, OneOf(LAYOUT_TABLE)] = "folders"
    """How images and labels are stored on disk."""
    task: Literal["semantic", "instances"] = "semantic"
    """semantic: a class for each pixel. instances: labels number the objects, 0 is background."""
    classes: Annotated[
        dict[str, int] | None,
        Shown(
            "name: label value, 2 to 200 of them",
            "needed for semantic, refused for instances",
        ),
    ] = None
    """What the values in the label files mean. Their order is that of the class index; the first
    one counts as background in means over the foreground."""
    ignore: int | None = None
    """Label value of pixels that are ignored in losses and scores."""
    unlabelled: Literal["background", "ignore"] = "background"
    """What pixels without a label are: value 0 with task instances, values that belong to no class
    with task semantic. background: the background (values that belong to no class are an error).
    ignore: unknown, for labels of some of the objects, or scribbles: such pixels are ignored in
    losses and scores ([data.md](../docs/data.md#sparse-labels))."""
    background: int | None = None
    """With `unlabelled: ignore` and task instances: label value of pixels that are background."""
    background_px: Annotated[
        Annotated[float, Field(gt=0, le=1000)] | None, Shown(reruns="prepare")
    ] = None
    """With `unlabelled: ignore` and task instances: unlabelled pixels at most this far from a
    labelled object are background (in pixels; in volumes in units of the finest axis). A network
    learns what background is only from such pixels and from those of `background`."""
    label_kind: Literal["instances", "binary"] = "instances"
    """For task instances. binary: labels are masks of one value (such as 0 and 255), and each
    connected piece is an object; pieces that touch at a corner are one. Touching objects then count
    as one."""
    axes: Annotated[
        str | None, Shown("letters of S C Z Y X, each once, with Y and X", "from the file")
    ] = None
    """Meaning of the file's axes in their order, such as CYX (C channel, Z depth, S separate
    images). For files that do not declare their axes."""
    pixel_size_um: Annotated[
        Size | tuple[Size, ...] | None,
        Shown("number above 0, or one per spatial axis ((Z,) Y, X)", "from the file"),
    ] = None
    """Pixel size in micrometres. It replaces what the file says."""
    channels: Annotated[
        Annotated[tuple[int | str, ...], Field(min_length=1)] | None,
        Shown("list of numbers from 0, or of names", "all (an opaque alpha channel is left out)"),
    ] = None
    """The channels to use, in this order."""
    split: Annotated[SplitSection, Shown(default="test 0.25", reruns="splits")] = SplitSection(
        test=0.25
    )
    """Which images train, validate and test."""
    models: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | None,
        Shown("list of model names", "all models", "train of those that are new"),
    ] = None
    """The models to run on this dataset."""
    predict_with: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | None,
        Shown("list of `<dataset>/<model>`", reruns="manifest of that dataset"),
    ] = None
    """Train nothing: all images are predicted by the networks that this run trains for that dataset
    and model, averaged over the folds. Labels are optional. Task and classes are the model's unless
    they are given: docs/apply.md."""
    compare: Annotated[
        dict[str, Annotated[str, Field(min_length=1)]],
        Shown("name: folder, glob or file", "none", "compare (files are compared by content)"),
    ] = {}
    """Masks that other tools made of the test images, by a name for each tool. They are scored,
    tested and shown like a model; nothing is trained or predicted. Paths are relative to
    `data_root`. Formats and names: docs/compare.md."""
    prepare: Annotated[dict[str, Any], Changes("prepare"), Shown("mapping", reruns="prepare")] = {}
    """Changes to `prepare` for this dataset."""
    train: Annotated[
        str | dict[str, Any], Changes("train"), Shown("mapping, or a recipe", reruns="train")
    ] = {}
    """Changes to `train` for this dataset."""
    predict: Annotated[dict[str, Any], Changes("predict"), Shown("mapping", reruns="predict")] = {}
    """Changes to `predict` for this dataset."""
    stitch: Annotated[dict[str, Any], Changes("stitch"), Shown("mapping", reruns="stitch")] = {}
    """Changes to `stitch` for this dataset."""
    evaluate: Annotated[
        dict[str, Any], Changes("evaluate"), Shown("mapping", reruns="evaluate, compare")
    ] = {}
    """Changes to `evaluate` for this dataset."""
    export: Annotated[dict[str, Any], Changes("export"), Shown("mapping", reruns="export")] = {}
    """Changes to `export` for this dataset."""

    @field_validator("axes")
    @classmethod
    def _axes_known(cls, value: str | None) -> str | None:
        if value is None:
            return value
        letters = value.upper()
        if sorted(set(letters)) != sorted(letters) or set(letters) - set("SCZYX"):
            raise ValueError(
                f"got {value!r}; write Y, X and, if present, C (channel), Z (depth) or S (separate "
                "images) once each, in the order of the file, such as CYX"
            )
        if not {"Y", "X"} <= set(letters):
            raise ValueError(f"got {value!r}; Y and X must be among the axes, such as YX")
        return letters

    @field_validator("join")
    @classmethod
    def _weights_positive(cls, value: Any) -> Any:
        for name, weight in value.items() if isinstance(value, dict) else ():
            if weight <= 0:
                raise ValueError(f"got weight {weight:g} for {name}; it must be above 0")
        return value

    @field_validator("predict_with")
    @classmethod
    def _origins_named(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in value or ():
            if not all(text.partition("/")) or text.count("/") > 1 or "@" in text:
                raise ValueError(f"got {text!r}; write <dataset>/<model>")
        if value is not None and len(set(value)) != len(value):
            raise ValueError(f"got {list(value)}; name each model once")
        return value

    @field_validator("compare")
    @classmethod
    def _tools_named(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"name {name!r} is not usable as a folder: write letters, digits, '_' and '-' "
                    "(at most 64)"
                )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSection:
        if self.join is None and (self.images is None) == (self.synthetic is None):
            raise ValueError("give either images (a path or glob) or synthetic (generated images)")
        if self.synthetic is not None and self.labels is not None:
            raise ValueError("labels: generated images bring their own labels; drop this key")
        # With predict_with the classes are those of the models (unet.config.predict_with), with
        # join those of the joined datasets (unet.config.joined_datasets).
        of_others = self.predict_with is not None or self.join is not None
        of_others = of_others and self.classes is None
        if self.task == "semantic" and not self.classes and not of_others:
            raise ValueError(
                "classes: needed for task semantic; name each class and its label value, such as "
                "{background: 0, cell: 255}"
            )
        if self.task == "instances" and self.classes is not None:
            raise ValueError(
                "classes: task instances reads instance ids (0 = background); drop this key or "
                "write task: semantic"
            )
        self._unlabelled_fits()
        if self.classes is not None:
            if len(self.classes) < 2:
                raise ValueError(f"classes: got {len(self.classes)}; at least two are needed")
            if len(self.classes) > 200:
                raise ValueError(f"classes: got {len(self.classes)}; at most 200 are possible")
            if len(set(self.classes.values())) != len(self.classes):
                raise ValueError("classes: two classes have the same label value")
            if self.ignore in self.classes.values():
                raise ValueError(f"ignore: value {self.ignore} is also the value of a class")
        return self

    def _unlabelled_fits(self) -> None:
        for key in ("background", "background_px"):
            if getattr(self, key) is None:
                continue
            if not self.sparse:
                raise ValueError(f"{key}: has no effect without unlabelled: ignore; write both")
            if self.task == "semantic":
                raise ValueError(
                    f"{key}: task semantic names its background in classes; drop this key"
                )
        if self.background is not None and self.background in (0, self.ignore):
            raise ValueError(
                f"background: value {self.background} is that of "
                f"{'pixels without a label' if self.background == 0 else 'ignore'}; write another"
            )

    @property
    def sparse(self) -> bool:
        """Whether pixels without a label are unknown."""
        return self.unlabelled == "ignore"

    @property
    def weights(self) -> dict[str, float]:
        """The joined datasets with their weights, in the order of the config; none without
        ``join``."""
        if self.join is None or isinstance(self.join, dict):
            return dict(self.join or {})
        return dict.fromkeys(self.join, 1.0)

    @property
    def labelled(self) -> bool:
        """Whether labels are searched for: if they are given, or the layout has them. Joined
        datasets have some."""
        if self.join is not None:
            return True
        by_name = self.layout in ("folders", "stack") or is_pattern(self.images or "")
        return self.labels is not None or self.synthetic is not None or self.sheet or not by_name

    @property
    def sheet(self) -> bool:
        """Whether ``images`` names a sheet, which has a column for the labels."""
        return self.images is not None and is_sheet(self.images)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the class index (their order in the config)."""
        return tuple(self.classes) if self.classes else ("background", "foreground")
