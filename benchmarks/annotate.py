"""Does choosing what to annotate beat drawing at random? Simulates it on images with labels.

    python benchmarks/annotate.py FOLDER                 # images/ and labels/ of DSB2018
    python benchmarks/annotate.py FOLDER --seeds 1 --rounds 1 --steps 20 --out trial

A few crops are annotated (their labels are revealed), a small network is trained on them, the next
crops are chosen among the others, and so on. Each choice starts from the same first crops, drawn at
random, and is made by the function of `unet annotate`: at random among crops with enough
foreground, by doubt, or by doubt and diversity. After each round the network is scored on test
images that no training, validation or choice sees: the share of matched objects, TP / (TP + FP +
FN) at IoU 0.5, mean over the images. Every network is trained for the same number of steps.

Prints the curve (test score by number of annotated crops, mean and range over the seeds) and the
differences to random, seed by seed; writes benchmarks/results/annotate.json (or another name).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels

from benchmarks.machine import load, torch_machine
from unet.config.heads import HEADS
from unet.config.presets import architecture_of
from unet.config.sections import TrainSection
from unet.config.stage_settings import TrainSettings
from unet.data.store import add_image, add_labels, layout_of, new_image
from unet.data.tiling import Slices
from unet.errors import UserError
from unet.evaluation.metrics.contingency import contingency
from unet.evaluation.metrics.instance import match
from unet.io.images import open_image, open_label
from unet.models.inference import Predictor
from unet.models.model_file import load_model
from unet.prediction.annotation.choose_crops import METHODS, Candidate, choose, with_enough
from unet.prediction.annotation.crop_facts import facts_of
from unet.prediction.annotation.crop_features import comparable, crop_features
from unet.prediction.annotation.crop_places import crop_places
from unet.training.train import train_fold
from unet.training.training_job import TrainingData, TrainingOutputs, TrainingResources
from unet.versions import library_versions

# Random first: the others are compared with it.
ORDER = tuple(sorted(METHODS, key=lambda method: method != "random"))
HEAD = HEADS["border"].names(())
VALIDATED = 8
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Labelled:
    """An image: raw values [1, Y, X], the same normalised float32 [1, Y, X], ids [Y, X]."""

    name: str
    raw: Array
    image: Array
    labels: Array


@dataclass(frozen=True)
class Study:
    """What is simulated: crops of ``side`` pixels, ``first`` of them, ``more`` in each round."""

    side: int
    first: int
    more: int
    rounds: int
    steps: int
    threads: int


def read(folder: Path) -> list[Labelled]:
    """All images, sorted by name; normalised by their percentiles 1 and 99.8.

    Raises:
        UserError: the folder has no images, or a label is missing.
    """
    found = []
    for path in sorted((folder / "images").glob("*.tif")):
        raw = np.asarray(open_image(path).array)[:1]
        labels = np.asarray(open_label(folder / "labels" / path.name).array)
        low, high = np.percentile(raw, [1, 99.8])
        image = ((raw - low) / max(float(high - low), 1e-6)).astype(np.float32)
        found.append(Labelled(path.stem, raw, image, labels.astype(np.uint32)))
    if not found:
        raise UserError(f"{folder}/images: no *.tif; give a folder with images/ and labels/")
    return found


def parts(images: Sequence[Labelled]) -> tuple[list[Labelled], list[Labelled], list[Labelled]]:
    """Pool, validation and test images: of every ten, one validates and three test. By the sorted
    names, so that each part has images of every kind, and the same ones for all seeds."""
    pool = [one for k, one in enumerate(images) if k % 10 not in (2, 5, 8, 9)]
    val = [one for k, one in enumerate(images) if k % 10 == 9][:VALIDATED]
    test = [one for k, one in enumerate(images) if k % 10 in (2, 5, 8)]
    return pool, val, test


def write_store(store: Path, crops: Mapping[str, tuple[Array, Array]]) -> dict[str, Any]:
    """A prepared store of images [1, Y, X] with ids [Y, X]; returns its sentinel."""
    entries: dict[str, Any] = {}
    for name, (image, labels) in crops.items():
        layout = layout_of(labels.shape, 256, 1)
        about: dict[str, Any] = {
            "key": name, "axes": "CYX", "pixel_size_um": None, "statistics": {},
            "channels": [""], "group": "",
        }  # fmt: skip
        with new_image(store, name) as group:
            add_image(group, 1, labels.shape, layout)[...] = image
            add_labels(group, "classes", "uint8", labels.shape, layout)[...] = labels > 0
            add_labels(group, "instances", "uint32", labels.shape, layout)[...] = labels
            group.attrs.update(about)
        entries[name] = {**about, "shape": list(image.shape), "labelled": True}
    zarr.open_group(store, mode="a", zarr_format=3)
    return {
        "images": entries, "task": "instances", "class_names": ["background", "foreground"],
        "class_values": None, "channels": 1, "normalize": {"method": "none"},
    }  # fmt: skip


def settings_of(study: Study, seed: int) -> TrainSettings:
    """A small network with head border."""
    per_epoch = max(1, min(50, study.steps))
    return TrainSettings.made(
        architecture=architecture_of("unet-bn", width=8, depth=3), memory_gb=None, given=None,
        anisotropic=False, head="border", border_width=2, head_names=HEAD,
        train=TrainSection(
            patch=min(128, study.side), batch=4, epochs=max(1, study.steps // per_epoch),
            steps_per_epoch=per_epoch, lr=0.003, warmup_steps=min(20, per_epoch),
            precision="float32",
        ),
        device="cpu", seed=seed,
    )  # fmt: skip


def trained(
    crops: Mapping[str, tuple[Array, Array]], val: Sequence[Labelled], study: Study, seed: int
) -> Predictor:
    """A network trained on these crops; the validation images choose among its epochs."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        checked = {f"val-{one.name}": (one.image, one.labels) for one in val}
        sentinel = write_store(folder / "prepared.zarr", {**crops, **checked})
        data = TrainingData(folder / "prepared.zarr", sentinel, sorted(crops), sorted(checked))
        outputs = TrainingOutputs(folder / "kept", folder / "model.pt", folder / "history.csv")
        resources = TrainingResources(1e9, threads=study.threads)
        train_fold(data, settings_of(study, seed), 0, outputs, resources)
        model = load_model(outputs.model)
    device = torch.device("cpu")
    return Predictor([model.network()], device, "float32", False, tuple(model.head))


def objects_of(probabilities: Array) -> Array:
    """Ids [Y, X] from [background, inside, border], as stitch.method grow makes them."""
    seeds, _ = ndimage.label(probabilities[1] > 0.5, np.ones((3, 3)))
    found = expand_labels(seeds, 3) * (1 - probabilities[0] > 0.5)
    sizes = np.bincount(found.ravel())
    found[sizes[found] < 10] = 0
    return np.asarray(found, np.uint32)


def score(predictor: Predictor, images: Sequence[Labelled]) -> float:
    """Mean over the images of TP / (TP + FP + FN) at IoU 0.5; images without any object are left
    out."""
    values = []
    for one in images:
        pairs = match(contingency(one.labels, objects_of(predictor.whole(one.image))), 0.5)
        total = pairs.tp + pairs.fp + pairs.fn
        if total:
            values.append(pairs.tp / total)
    return float(np.mean(values))


def candidates(predictor: Predictor, pool: Sequence[Labelled], side: int) -> Iterator[Candidate]:
    """All crops of the pool with what the network predicts in them; labels are not used."""
    for one in pool:
        p = np.asarray(predictor.whole(one.image), np.float32)
        ids = objects_of(p)

        def region(part: Slices, p: Array = p, ids: Array = ids) -> tuple[Array, Array, Array]:
            return p[(slice(None), *part)], ids[part] > 0, ids[part]

        for place in crop_places(ids.shape, (side, side)):
            facts = facts_of(region, place)
            yield Candidate(one.name, "", place, facts, facts.doubt)


def key_of(image: str, place: Slices) -> str:
    return "_".join([image, *(str(s.start) for s in place)])


class Simulation:
    """One seed: the crops that each method has annotated so far, and the scores."""

    def __init__(self, images: Sequence[Labelled], study: Study, seed: int) -> None:
        self.pool, self.val, self.test = parts(images)
        self.study, self.seed = study, seed
        self.by_name = {one.name: one for one in self.pool}

    def curves(self) -> dict[str, dict[int, float]]:
        """Method -> number of annotated crops -> test score."""
        every = [
            (one.name, place)
            for one in self.pool
            for place in crop_places(one.labels.shape, (self.study.side,) * 2)
        ]
        # The first crops are drawn from all: there is no network yet that knows the foreground.
        rng = np.random.default_rng(self.seed)
        drawn = rng.permutation(len(every))[: self.study.first]
        start = dict(self._crop(*every[k]) for k in drawn)
        first = trained(start, self.val, self.study, self.seed)
        base = score(first, self.test)
        self._say("start", len(start), base)
        return {method: self._curve(method, dict(start), first, base) for method in ORDER}

    def _curve(
        self, method: Any, crops: dict[str, tuple[Array, Array]], model: Predictor, base: float
    ) -> dict[int, float]:
        curve = {len(crops): base}
        for turn in range(self.study.rounds):
            free = [
                one
                for one in candidates(model, self.pool, self.study.side)
                if key_of(one.image, one.place) not in crops
            ]
            features = None
            if method == "doubt":
                some = [free[k] for k in with_enough(free)]
                look = [crop_features(self.by_name[c.image].raw, c.place, c.facts) for c in some]
                features = comparable(look)
            seed = 1000 * self.seed + turn
            for choice in choose(free, self.study.more, method, seed, features):
                chosen = free[choice.number]
                crops.update([self._crop(chosen.image, chosen.place)])
            model = trained(crops, self.val, self.study, self.seed)
            curve[len(crops)] = score(model, self.test)
            self._say(method, len(crops), curve[len(crops)])
        return curve

    def _crop(self, image: str, place: Slices) -> tuple[str, tuple[Array, Array]]:
        one = self.by_name[image]
        return key_of(image, place), (one.image[(slice(None), *place)], one.labels[place])

    def _say(self, method: str, count: int, value: float) -> None:
        print(f"seed {self.seed}: {method}, {count} crops: {value:.3f}", flush=True)


def summary(curves: Mapping[int, Mapping[str, Mapping[int, float]]]) -> dict[str, Any]:
    """Mean, smallest and largest score by method and number of crops, and the mean difference to
    random of the same seed, with its range.

    Args:
        curves: seed -> method -> number of crops -> score.
    """
    found: dict[str, Any] = {}
    methods = list(next(iter(curves.values())))
    for method in methods:
        rows = []
        for count in next(iter(curves.values()))[method]:
            values = [seed[method][count] for seed in curves.values()]
            change = [seed[method][count] - seed["random"][count] for seed in curves.values()]
            row: dict[str, Any] = {"crops": count, "mean": float(np.mean(values))}
            row |= {"range": [min(values), max(values)], "minus_random": float(np.mean(change))}
            rows.append({**row, "range_minus_random": [min(change), max(change)]})
        found[method] = rows
    return found


def table(found: Mapping[str, Any]) -> str:
    """The curve as Markdown."""
    counts = [row["crops"] for row in next(iter(found.values()))]
    names = {"doubt": "doubt and diversity", "doubt-alone": "doubt alone"}
    lines = ["| crops | " + " | ".join(names.get(m, m) for m in found) + " |"]
    lines.append("|---" * (1 + len(found)) + "|")
    for k, count in enumerate(counts):
        cells = []
        for method, rows in found.items():
            row = rows[k]
            low, high = row["range"]
            text = f"{row['mean']:.3f} ({low:.3f} to {high:.3f})"
            if method != "random":
                low, high = row["range_minus_random"]
                text += f", {row['minus_random']:+.3f} ({low:+.3f} to {high:+.3f})"
            cells.append(text)
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    p.add_argument("folder", type=Path, help="with images/ and labels/ of the same names")
    p.add_argument("--seeds", type=int, default=3, help="repetitions (3)")
    p.add_argument("--side", type=int, default=128, help="side of a crop (128)")
    p.add_argument("--first", type=int, default=8, help="crops at the start (8)")
    p.add_argument("--more", type=int, default=8, help="crops in each round (8)")
    p.add_argument("--rounds", type=int, default=4, help="rounds (4)")
    p.add_argument("--steps", type=int, default=300, help="steps of each training (300)")
    p.add_argument("--most", type=int, help="only this many images, evenly spread")
    p.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    p.add_argument("--out", default="annotate", help="name of the result file (annotate)")
    args = p.parse_args(argv)
    torch.set_num_threads(args.threads)
    images = read(args.folder)
    if args.most:
        images = images[:: max(1, len(images) // args.most)][: args.most]
    study = Study(args.side, args.first, args.more, args.rounds, args.steps, args.threads)
    started = time.monotonic()
    curves = {seed: Simulation(images, study, seed).curves() for seed in range(args.seeds)}
    found = summary(curves)
    print(f"\n{table(found)}")
    pool, val, test = parts(images)
    value = {
        "machine": {**torch_machine(), "load": load()},
        "versions": library_versions(),
        "settings": {name: v for name, v in vars(args).items() if name not in ("folder", "out")},
        "images": {"pool": len(pool), "val": len(val), "test": len(test)},
        "minutes": round((time.monotonic() - started) / 60, 1),
        "curves": curves,
        "summary": found,
    }
    target = Path(args.out)
    if target.suffix != ".json":
        target = ROOT / "benchmarks" / "results" / f"{args.out}.json"
    target.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    print(f"\n{value['minutes']} minutes; {target}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
