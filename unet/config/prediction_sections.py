"""The ``predict`` section of the config: windows, devices, clusters, empty tiles."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from unet.config.choices import OneOf
from unet.config.engine_table import ENGINE_TABLE
from unet.config.section_base import Count, Gpus, Positive, Section, Shown, Size
from unet.config.training_sections import Precision

PredictPrecision = Literal[Precision, "int8"]


class SkipSection(Section):
    reruns: ClassVar[str] = "predict"

    darker_than: float | None = None
    """Fluorescence: pixels below this intensity are empty. Write a little more than the dark
    background of an image without cells."""
    brighter_than: float | None = None
    """Transmitted light: pixels above this intensity are empty. Write a little less than the
    bright background."""
    channel: Count = 0
    """The channel to check, one of those that the dataset uses."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.999
    """Share of a window's pixels that must be empty. Lower it, with care, if there is dirt."""
    fill: Annotated[str | None, Shown("name of a class", "the first")] = None
    """The class that empty tiles get, with probability 1."""

    @model_validator(mode="after")
    def _one_side(self) -> SkipSection:
        if (self.darker_than is None) == (self.brighter_than is None):
            raise ValueError(
                "give either darker_than or brighter_than, an intensity of the image files, such "
                "as {brighter_than: 230}"
            )
        return self


class ClusterSection(Section):
    reruns: ClassVar[str] = "-"

    address: str | None = None
    """Address of a running dask scheduler, such as tls://10.0.0.1:8786."""
    queue: Literal["slurm"] | None = None
    """Start the workers as jobs of this queue (dask-jobqueue). null: as processes of this
    machine."""
    workers: Annotated[int, Field(ge=1, le=1000)] = 2
    """Number of workers to start."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of each worker."""
    memory_gb: Size = 8.0
    """Memory of each worker, in GB. A worker that uses more is restarted."""
    hours: Annotated[float, Field(gt=0, le=1000)] = 4.0
    """Time limit of each of the queue's jobs, in hours."""
    interface: str | None = None
    """Network interface by which workers reach the scheduler, such as ib0."""
    options: Annotated[tuple[str, ...], Shown(default="[]")] = ()
    """More options for the queue's jobs, such as --partition=gpu, --gres=gpu:1."""

    @model_validator(mode="after")
    def _one_place(self) -> ClusterSection:
        if self.address is not None and self.queue is not None:
            raise ValueError(
                "give either address (of a running scheduler) or queue (to start jobs)"
            )
        return self


class PredictSection(Section):
    reruns: ClassVar[str] = "predict"

    tile: Annotated[
        Literal["auto"]
        | Annotated[int, Field(ge=8, le=16384)]
        | Annotated[
            tuple[Annotated[int, Field(ge=8, le=16384)], ...], Field(min_length=2, max_length=3)
        ],
        Shown("auto, integer from 8 to 16384, or a list with one per axis"),
    ] = "auto"
    """Largest window, in pixels. auto: what the memory allows. It changes time and memory, not the
    result (except for rounding). Lower it when one tile does not fit on the device."""
    batch: Annotated[Positive | Literal["auto"], Shown(reruns="-")] = "auto"
    """Windows per batch. auto: by free memory. It is halved whenever the device runs out of
    memory."""
    precision: PredictPrecision = "auto"
    """As for training. int8: convolutions with 8 bits, by the engine openvino; the ranges are
    measured on windows of the first images: docs/prediction.md."""
    engine: Annotated[str, OneOf(ENGINE_TABLE)] = "torch"
    """The library that runs the network. Engines other than torch run on CPUs and need
    `pip install 'unet-pipeline[engines]'`. At the start, an engine's result on a piece of the first
    image is compared with float32; if it is too inaccurate, PyTorch in float32 is used."""
    dtype: Literal["float16", "float32"] = "float16"
    """How probabilities are stored."""
    tta: bool = False
    """Average over the 8 symmetries of the square (in 3D the 8 flips). Takes eight times as
    long."""
    gpus: Annotated[Gpus, Shown(reruns="-")] = 1
    """GPUs of one machine that a job uses."""
    shards: Annotated[
        Annotated[int, Field(ge=1, le=1000)], Shown(reruns="predict (keeps what is there)")
    ] = 1
    """Jobs that share the tiles of a fold (or ensemble); one more job joins them. For clusters
    whose workers cannot share a scheduler."""
    cluster: Annotated[ClusterSection | None, Shown("mapping, see below, or null", reruns="-")] = (
        None
    )
    """A dask cluster that computes the tiles."""
    blend: Literal["none", "gaussian"] = "none"
    """none: exact cores. gaussian: overlapping windows averaged under a Gaussian, as other tools
    do, for comparison: docs/prediction.md. The result then depends on `predict.tile` (auto: 256 px,
    96 px for volumes)."""
    overlap: Annotated[
        Annotated[float, Field(ge=0, le=0.95)], Shown(reruns="predict (with blend)")
    ] = 0.5
    """With blend gaussian: share of a window that the next one covers too."""
    skip: Annotated[SkipSection | None, Shown("mapping, see below, or null")] = None
    """Which tiles count as empty; they are not predicted."""

    @model_validator(mode="after")
    def _engine_has_precision(self) -> PredictSection:
        known = ENGINE_TABLE[self.engine].precisions
        if self.precision not in ("auto", *known):
            able = [
                name for name, engine in ENGINE_TABLE.items() if self.precision in engine.precisions
            ]
            raise ValueError(
                f"engine {self.engine} does not compute in {self.precision}; write precision: "
                f"{' or '.join(known)}, or engine: {' or '.join(able)}"
            )
        return self
