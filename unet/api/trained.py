"""Trained models, and what they find in arrays."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.api.arguments import (
    checked,
    checked_channels,
    checked_name,
    checked_out,
    flag,
    path_of,
)
from unet.api.reading import Image
from unet.api.segmented import Segmentation, Stored, Temporary, arrays_of, names_of
from unet.config.geometry import common
from unet.data.file_names import safe_id
from unet.data.records import read_manifest
from unet.errors import ArgumentError, UserError, how_many
from unet.files import digest, read_json, remove
from unet.prediction.apply.applied_images import apply, mark_done, source_of, task_of
from unet.prediction.apply.array_images import ArrayImage, image_of, write_image
from unet.prediction.apply.chosen_settings import Requested, model_files, untrained_folds
from unet.prediction.apply.result_folder import IMAGE, Output

if TYPE_CHECKING:
    from unet.models.model_file import ModelFile
    from unet.prediction.tiles.ensemble import Member

PathLike = str | os.PathLike[str]

log = logging.getLogger("unet")


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """One trained network, or several whose probabilities are averaged. See :func:`load_model`."""

    members: tuple[Member, ...]

    @property
    def _first(self) -> ModelFile:
        return self.members[0].model

    @property
    def files(self) -> tuple[Path, ...]:
        """The model file of each network."""
        return tuple(member.path for member in self.members)

    @property
    def task(self) -> str:
        """ "instances" (objects) or "semantic" (classes)."""
        return self._first.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, the background first."""
        return self._first.class_names

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the channels of the probabilities."""
        return self._first.head

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return self._first.in_channels

    @property
    def dims(self) -> int:
        """Spatial axes of an image: 2 (Y X) or 3 (Z Y X)."""
        return self._first.architecture.dims

    @property
    def pixel_size_um(self) -> tuple[float, ...] | None:
        """Micrometres per pixel of the training images along (Z) Y X; None = unknown. Images of
        another pixel size are resampled to it."""
        size = self._first.pixel_size_um
        return None if size is None else tuple(size)

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """Pixels along (Z) Y X that a pixel's probability can depend on."""
        found = common([member.footprint for member in self.members])
        return tuple(fp.receptive_field for fp in found)

    def __repr__(self) -> str:
        count = len(self.members)
        networks = "1 network" if count == 1 else f"{count} networks, averaged"
        size = "pixel size unknown"
        if self.pixel_size_um is not None:
            size = " x ".join(f"{value:g}" for value in self.pixel_size_um) + " um per pixel"
        field = " x ".join(map(str, self.receptive_field))
        return (
            f"<Model {self._first.architecture.kind}, {networks}: task {self.task}, classes "
            f"{', '.join(self.classes)}; images of {how_many(self.channels, 'channel')}, "
            f"{self.dims}D, {size}; receptive field {field} px>"
        )

    def predict(
        self,
        array: Any,
        axes: str | None = None,
        pixel_size_um: float | Sequence[float] | None = None,
        *,
        threshold: float | None = None,
        method: str | None = None,
        min_size: int | None = None,
        grow_px: int | None = None,
        tta: bool | None = None,
        tile: int | Sequence[int] | None = None,
        float32: bool = False,
        channels: Sequence[int | str] | None = None,
        device: str = "auto",
        threads: int | None = None,
        memory_gb: float = 4.0,
        out: PathLike | None = None,
        name: str = "image",
        overwrite: bool = False,
    ) -> Segmentation:
        """Segments an image, as ``unet predict`` does a file with these pixels: the same numbers.

        Memory does not grow with the image if it is a dask or zarr array (or from
        :func:`unet.read_image`). Temporary files take a few times the space of the image, in
        ``out`` or where :mod:`tempfile` puts them (``TMPDIR``).

        Args:
            array: whole numbers, floats or bool; NumPy, dask or zarr, or an :class:`unet.Image`.
            axes: a letter for each axis in the array's order: Y, X, C (channel), Z (depth), such as
                "YXC". None: those of an ``Image``; YX for two axes.
            pixel_size_um: micrometres per pixel, one number or one per axis in the order (Z) Y X.
                None: that of an ``Image``; otherwise nothing is resampled.
            threshold: minimum foreground probability, above 0 and below 1.
            method, grow_px: how objects are made, as ``--method`` and ``--grow-px``.
            min_size: drop objects smaller than this (pixels of this image).
            tta: average over 8 symmetries.
            tile: largest window in pixels; changes time and memory, not the result.
            float32: compute and store in 32 bits.
            channels: which to use, by number from 0 (names: for an ``Image``).
            device: "auto", "cpu" or "cuda".
            threads: CPU threads; None = all.
            memory_gb: memory for pixels.
            out: folder for the files that ``unet predict`` writes, to keep them.
            name: of the image, in the table and in ``out``.
            overwrite: replace the results of another image or other settings in ``out``; earlier
                results with dask arrays over these files are lost. The same prediction again
                reads the files that are there.

        ``threshold``, ``method``, ``min_size``, ``grow_px`` and ``tta`` are by default those of the
        run that trained the model, as for ``unet predict``.

        Returns:
            labels [(Z,) Y, X], probabilities [K, (Z,) Y, X] and the table of objects, in the pixels
            of the array. NumPy arrays if ``array`` is in memory, otherwise dask arrays.

        Raises:
            ArgumentError: an argument is wrong (it is a UserError and a ValueError).
            UserError: the networks cannot be used, or ``out`` holds files of something else.

        Example:
            >>> found = model.predict(pixels, axes="YX", pixel_size_um=0.5, min_size=4)
            >>> found.labels.shape == pixels.shape
            True
            >>> len(found.objects) == int(found.labels.max())
            True
        """
        if isinstance(array, Image):
            axes = array.axes if axes is None else axes
            pixel_size_um = array.pixel_size_um if pixel_size_um is None else pixel_size_um
            image = image_of(array.array, axes, self.dims, array.channel_names)
        else:
            image = image_of(array, axes, self.dims)
        asked = checked(
            self.dims, pixel_size_um=pixel_size_um, threshold=threshold, method=method,
            min_size=min_size, grow_px=grow_px, tta=tta, tile=tile, float32=float32,
            device=device, threads=threads, memory_gb=memory_gb,
        )  # fmt: skip
        image = self._with_channels(image.pick(checked_channels(channels)))
        name, overwrite = safe_id(checked_name(name)), flag("overwrite", overwrite)
        if out is not None:
            return self._segmented(image, asked, Goal(checked_out(out), name, overwrite))
        temporary = Temporary()
        try:
            hidden = replace(asked, viewed=False)
            return self._segmented(image, hidden, Goal(temporary.path, name, True, temporary))
        except BaseException:
            temporary.remove()
            raise

    def _with_channels(self, image: ArrayImage) -> ArrayImage:
        if image.shape[0] != self.channels:
            numbers = list(range(self.channels))
            advice = f"choose with channels, such as channels={numbers}"
            if image.shape[0] < self.channels:
                advice = "give an array with as many along C"
            raise ArgumentError(
                f"array: {how_many(image.shape[0], 'channel')}, but the model needs "
                f"{self.channels}; {advice}"
            )
        return image

    def _segmented(self, image: ArrayImage, asked: Requested, goal: Goal) -> Segmentation:
        from unet.prediction.stitch.stitch_image import mask_values
        from unet.report.tidy_tables import read_objects

        out = Output(goal.folder)
        with out.locked("give another folder as out"), _threads_kept():
            path = out.work / IMAGE
            source = source_of([(goal.name, path)], out)
            content = digest([goal.name, write_image(image, path)])
            with _words_of_python():
                task = task_of(self.members, source, asked, content)
            if not out.is_done(task.key):
                goal.check_replaced(out)
                out.reopen()
                with _words_of_python("array: "):
                    mark_done(task, apply(task, source, out, asked), out, asked)
            remove(out.work)
        values = mask_values(task.stitch) if self.task == "semantic" else None
        stored = Stored(goal.folder, goal.name, values, goal.temporary)
        labels, probabilities = arrays_of(stored, lazy=image.lazy)
        return Segmentation(
            labels=labels,
            probabilities=probabilities,
            objects=read_objects(out.objects),
            task=self.task,
            channels=self.head,
            classes=names_of(self.classes, values),
            pixel_size_um=read_manifest(out.manifest)[0].pixel_size_um,
            threshold=float(read_json(out.done)["threshold"]),
            folder=goal.folder if goal.temporary is None else None,
            image=image.array,
        )


@dataclass(frozen=True)
class Goal:
    """Where a prediction goes.

    Attributes:
        folder: absolute.
        name: id of the image.
        overwrite: whether results of something else are replaced.
        temporary: what removes the folder; None = it stays.
    """

    folder: Path
    name: str
    overwrite: bool
    temporary: Temporary | None = None

    def check_replaced(self, out: Output) -> None:
        """Refuses to replace finished results, and removes what was written for the new ones.

        Raises:
            ArgumentError: there are such results.
        """
        if self.overwrite or not out.done.is_file():
            return
        remove(out.work / "image.zarr" if read_json(out.done).get("kept") else out.work)
        raise ArgumentError(
            f"out: {self.folder} has the results of another image or other settings; give another "
            "folder, or overwrite=True to replace them"
        )


@contextmanager
def _threads_kept() -> Iterator[None]:
    """The stages set the number of PyTorch's threads for a process of their own."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _words_of_python(argument: str = "") -> Iterator[None]:
    """Errors of the stages, with the name of the argument instead of the temporary file's."""
    try:
        yield
    except UserError as error:
        text = re.sub(r"^.*image\.zarr: ", "", str(error))
        text = text.replace(" (unet predict: --pixel-size)", "")
        raise ArgumentError(argument + text) from error


def load_model(path: PathLike | Sequence[PathLike]) -> Model:
    """Loads a trained model.

    Args:
        path: a ``model.pt``; the folder of a fold; the folder of a model in the results of a run,
            such as ``results/nuclei/unet-border``, which stands for the ensemble of all its folds;
            or a list of these, whose probabilities are averaged. If the run has not trained all
            its folds yet, a warning is logged.

    Raises:
        ArgumentError: ``path`` is no path.
        UserError: there is no model, its file is damaged, or the networks do not fit together.

    Example:
        >>> model = load_model("model.pt")
        >>> model.task, model.channels, model.dims
        ('instances', 1, 2)
        >>> load_model(["model.pt", "other.pt"])
        <Model ... 2 networks, averaged: ...>
    """
    from unet.prediction.tiles.applied_models import target_of
    from unet.prediction.tiles.ensemble import Member, check_alike

    listed = hasattr(path, "__iter__") and not isinstance(path, str | bytes | os.PathLike)
    given: list[Any] = list(path) if listed else [path]  # type: ignore[arg-type]
    if not given:
        raise ArgumentError("path: got no model; give a model.pt or a folder")
    paths = [path_of("path", one, "a model.pt or a folder") for one in given]
    files = model_files(paths)
    for line in untrained_folds(paths):
        log.warning("warning: %s", line)
    members = tuple(Member.load(file) for file in files)
    target_of({member.path: member.model for member in members})
    for member in members[1:]:
        check_alike(members[0], member)
    return Model(members)
