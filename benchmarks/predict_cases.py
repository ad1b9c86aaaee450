"""The cases of the prediction benchmark, each run in its own process; for predict.py.

    python benchmarks/predict_cases.py WORK CASE THREADS

prints a line of JSON: megapixels per second, seconds before the first pixel (without imports), and
peak memory beyond that of the process with the network and the libraries loaded.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

IMAGE = "image.npy"
MODEL = "model.pt"
STORE = "prepared.zarr"
# Windows of the peers: MONAI's examples take 256 px, nnU-Net plans about 512 px for 2D images.
MONAI_SIDE, NNUNET_SIDE = 256, 512
MONAI_BATCH = 4
ALLOCATOR = "our allocator"


@dataclass(frozen=True)
class Task:
    """Side of the image in pixels, width of the U-Net, steps of its training."""

    side: int
    width: int
    steps: int


@dataclass(frozen=True)
class Found:
    """Seconds of a prediction and before it, probabilities [K, Y, X], pixels computed per pixel,
    and of ours the processor's seconds, which other work on the machine changes less."""

    seconds: float
    before: float
    probabilities: Any
    overhead: float | None = None
    processor: float | None = None


@dataclass(frozen=True)
class Case:
    """The function to run, whether it needs a peer's library, and whether the process uses our
    stages' memory settings (:mod:`unet.allocator`)."""

    run: Callable[[Path, int], Found]
    peer: bool = False
    allocator: bool = False


# The image and the weights.


def prepare(work: Path, task: Task, threads: int) -> None:
    """Makes image, weights and prepared store, unless they exist."""
    stamp = work / "task.json"
    if stamp.exists() and json.loads(stamp.read_text()) == vars(task):
        return
    import torch

    from unet.models.model_file import save_model

    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    tiles = -(-task.side // 512)
    rows = [[cells(y * tiles + x)[0] for x in range(tiles)] for y in range(tiles)]
    image = np.block(rows)[: task.side, : task.side]
    np.save(work / IMAGE, image[None])
    save_model(work / MODEL, trained(task))
    write_store(work / STORE, image[None])
    stamp.write_text(json.dumps(vars(task)))


def cells(index: int, side: int = 512) -> tuple[Any, Any]:
    """A generated image of nuclei, normalised, and its mask."""
    from unet.data.synthetic import generate

    pixels, ids = generate("nuclei", 0, index, (side, side))
    image = np.asarray(pixels, np.float32)
    low, high = np.percentile(image, (1, 99.8))
    return ((image - low) / (high - low)).astype(np.float32), (np.asarray(ids) > 0).astype(np.int64)


def trained(task: Task) -> Any:
    """A `unet-bn` of this width, trained on other images of this kind."""
    import torch
    import torch.nn.functional as F

    from unet.config.presets import architecture_of
    from unet.models.build import build
    from unet.models.devices import choose_precision
    from unet.models.engines import autocast
    from unet.models.inference import to_device
    from unet.models.model_file import ModelFile

    cpu = torch.device("cpu")
    arch = architecture_of("unet-bn", width=task.width)
    network = to_device(build(1, 2, arch, 0), cpu).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    pairs = [cells(1000 + i) for i in range(8)]
    rng = np.random.default_rng(0)
    precision = choose_precision("auto", cpu)
    for _ in range(task.steps):
        patches = []
        for _ in range(4):
            x, y = pairs[rng.integers(len(pairs))]
            a, b = rng.integers(0, 512 - 256, 2)
            patches.append((x[a : a + 256, b : b + 256], y[a : a + 256, b : b + 256]))
        images = torch.from_numpy(np.stack([p[0] for p in patches])[:, None])
        target = torch.from_numpy(np.stack([p[1] for p in patches]))
        with autocast(precision, cpu):
            scores = network(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(scores.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"trained for {task.steps} steps, loss {loss.item():.3f}", flush=True)
    return ModelFile(
        architecture=arch, in_channels=1, head=("background", "foreground"),
        class_names=("background", "foreground"), class_values=None, task="instances",
        normalize={}, pixel_size_um=None, settings={}, versions={}, score=0.0, step=task.steps,
        weights=network.eval().state_dict(),
    )  # fmt: skip


def write_store(path: Path, image: Any) -> None:
    """Writes the prepared store as the prepare stage does."""
    from unet.data.store import add_image, clean, layout_of, new_image

    clean(path, {})
    where = layout_of(image.shape[1:], tile=512, shard=4)
    with new_image(path, "image") as group:
        add_image(group, 1, image.shape[1:], where)[...] = image
        group.attrs.update({"key": "image", "axes": "CYX", "pixel_size_um": None, "statistics": {}})


# Ours.


def predictor_of(work: Path, engine: Any, precision: Any, threads: int) -> Any:
    import torch

    from unet.models.inference import Predictor
    from unet.models.model_file import load_model
    from unet.prediction.tiles.calibration import Calibration

    check_installed(engine, precision)
    network = load_model(work / MODEL).network()
    return Predictor(
        [network], torch.device("cpu"), precision, engine=engine, threads=threads,
        calibrate=Calibration.of(work / STORE, ["image"]).windows,
    )  # fmt: skip


def check_installed(engine: str, precision: str) -> None:
    """Raises ImportError if a package that the engine needs is missing."""
    from importlib.util import find_spec

    from unet.config.engine_table import ENGINE_TABLE

    known = ENGINE_TABLE[engine]
    for package in (*known.packages, *known.packages_of.get(precision, ())):
        if find_spec(package) is None:
            raise ImportError(f"{package} is not installed")


def limit(engine: str, precision: str, work: Path, threads: int) -> Found:
    """The bare network on the whole image."""
    started = time.perf_counter()
    predictor, image = predictor_of(work, engine, precision, threads), np.load(work / IMAGE)
    # The first run compiles the engine's network and allocates memory; the limit excludes both.
    predictor(image[None])
    before, cpu = time.perf_counter(), time.process_time()
    p = predictor(image[None])[0]
    seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
    return Found(seconds, before - started, p, 1.0, cpu)


def ours(engine: str, precision: str, work: Path, threads: int) -> Found:
    """The predict stage, from the prepared store to the tile store."""
    from unet.config.sections import PredictSection
    from unet.config.stage_settings import PredictSettings
    from unet.files import remove
    from unet.prediction.tiles.ensemble import Member
    from unet.prediction.tiles.predict import predict_fold
    from unet.prediction.tiles.predict_loop import run_here
    from unet.prediction.tiles.prediction_job import PredictionData, PredictionResources
    from unet.prediction.tiles.tile_store import Tiles

    check_installed(engine, precision)
    image = np.load(work / IMAGE, mmap_mode="r")
    target = work / "tiles.zarr"
    remove(target)
    values = {"engine": engine, "precision": precision, "dtype": "float32"}
    section = PredictSection.model_validate(values)
    info = {"key": "image", "shape": list(image.shape), "axes": "CYX", "pixel_size_um": None}
    times: list[float] = []
    processor: list[float] = []
    computed = []

    def timed(job: Any, todo: Iterable[Any]) -> Iterator[Any]:
        # Engines compile the network for the windows' shape, which counts as start-up.
        batches = list(todo)
        window = job._images["image"].plan.window
        computed.append(np.prod(window) * sum(map(len, batches)) / np.prod(image.shape))
        if engine != "torch":
            job.lanes[0].ensemble.predictor("image")(np.zeros((1, 1, *window), np.float32))
        times.append(time.perf_counter())
        processor.append(time.process_time())
        yield from run_here(job, batches)
        times.append(time.perf_counter())

    started = time.perf_counter()
    prepared = {"channels": 1, "images": {"image": info}}
    predict_fold(
        PredictionData(
            [Member.load(work / MODEL)], work / STORE, prepared, {"image": "test"}, target
        ),
        PredictSettings.made(predict=section, device="cpu"),
        PredictionResources(memory_bytes=4e9, threads=threads),
        run=timed,
    )
    # What comes after the last tile belongs to it.
    seconds, cpu = time.perf_counter() - times[0], time.process_time() - processor[0]
    tiles = Tiles(target)
    used = (tiles.attrs("image")["engine"], tiles.attrs("image")["precision"])
    if used != (engine, precision):
        raise SystemExit(f"too inaccurate: {' in '.join(used)} was used")
    whole = tiles.read("image", tuple(slice(0, n) for n in image.shape[1:]))
    return Found(seconds, times[0] - started, whole, float(computed[0]), cpu)


# Peers.


def network_for_peers(work: Path, precision: str) -> Any:
    """The same weights, run as by a peer's user (float32, PyTorch's default layout), or as by our
    pipeline."""
    import torch

    from unet.models.inference import to_device
    from unet.models.model_file import load_model

    network = load_model(work / MODEL).network()
    if precision == "float32":
        return network.eval()

    class Quick(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = to_device(network, torch.device("cpu"))

        def forward(self, x: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                y = self.inner(x.contiguous(memory_format=torch.channels_last))
            return y.float()

    return Quick().eval()


def monai(overlap: float, mode: str, precision: str, work: Path, threads: int) -> Found:
    """MONAI's sliding-window inferer on the image in memory."""
    import torch
    from monai.inferers import SlidingWindowInferer

    started = time.perf_counter()
    torch.set_num_threads(threads)
    network = network_for_peers(work, precision)
    image = torch.from_numpy(np.load(work / IMAGE))[None]
    inferer = SlidingWindowInferer(
        (MONAI_SIDE, MONAI_SIDE), MONAI_BATCH, overlap=overlap, mode=mode, progress=False
    )
    before = time.perf_counter()
    with torch.inference_mode():
        p = inferer(image, lambda x: torch.softmax(network(x).float(), dim=1))
    return Found(time.perf_counter() - before, before - started, p[0].numpy())


def nnunet(mirroring: bool, precision: str, work: Path, threads: int) -> Found:
    """nnU-Net's predictor on the image in memory, with its logits converted to probabilities."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    started = time.perf_counter()
    torch.set_num_threads(threads)
    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=mirroring,
        perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False,
    )  # fmt: skip
    predictor.network = network_for_peers(work, precision)
    predictor.configuration_manager = SimpleNamespace(patch_size=[NNUNET_SIDE, NNUNET_SIDE])
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=2)
    predictor.allowed_mirroring_axes = (0, 1) if mirroring else None
    image = torch.from_numpy(np.load(work / IMAGE))[:, None]
    before = time.perf_counter()
    logits = predictor.predict_sliding_window_return_logits(image)
    p = torch.softmax(logits.float(), dim=0)[:, 0]
    return Found(time.perf_counter() - before, before - started, p.numpy())


def _cases() -> dict[str, Case]:
    cases = {}
    for text, engine, precision in (
        ("float32", "torch", "float32"),
        ("bfloat16", "torch", "bfloat16"),
        ("OpenVINO float32", "openvino", "float32"),
        ("OpenVINO bfloat16", "openvino", "bfloat16"),
        ("OpenVINO int8", "openvino", "int8"),
        ("ONNX Runtime float32", "onnxruntime", "float32"),
    ):
        cases[f"limit, {text}"] = Case(partial(limit, engine, precision), allocator=True)
        cases[f"ours, {text}"] = Case(partial(ours, engine, precision), allocator=True)
    for precision, end in (("float32", ""), ("bfloat16", ", bfloat16")):
        for text, overlap, mode in (
            ("overlap 0.25", 0.25, "constant"),
            ("overlap 0.5 Gaussian", 0.5, "gaussian"),
        ):
            run = partial(monai, overlap, mode, precision)
            cases[f"MONAI, {text}{end}"] = Case(run, peer=True)
            if end:
                cases[f"MONAI, {text}{end}, {ALLOCATOR}"] = Case(run, peer=True, allocator=True)
        for text, mirroring in (("no mirroring", False), ("mirroring", True)):
            run = partial(nnunet, mirroring, precision)
            cases[f"nnU-Net, {text}{end}"] = Case(run, peer=True)
            if end:
                cases[f"nnU-Net, {text}{end}, {ALLOCATOR}"] = Case(run, peer=True, allocator=True)
    return cases


CASES = _cases()


class Peak(threading.Thread):
    """Records the peak memory of this process from its start, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = self.first = resident()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.01):
            self.most = max(self.most, resident())

    def stop(self) -> float:
        self._ended.set()
        self.join()
        return max(self.most, resident()) - self.first


def resident() -> int:
    """Resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main() -> int:
    work, name, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    import torch

    torch.set_num_threads(threads)
    peak = Peak()
    peak.start()
    try:
        found = CASES[name].run(work, threads)
    except ImportError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 3
    most = peak.stop()
    np.save(work / f"{name}.npy", found.probabilities)
    pixels = np.prod(found.probabilities.shape[1:])
    rate = pixels / 1e6 / found.seconds
    line = {"rate": rate, "start-up": found.before, "peak": most / 1e6, "overhead": found.overhead}
    if found.processor is not None:
        line["processor"] = 1e6 * found.processor / pixels
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
