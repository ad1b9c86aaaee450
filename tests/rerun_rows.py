"""An edit of every key of the config, and what must run again after it
(:mod:`tests.planning.test_reruns`)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.workflow.test_workflow import CONFIG, FOLDS, STAGES, jobs_of, since
from unet.config.run import merge

# Additions to the finished run's config, for keys that have an effect only with them. `snakemake
# --touch` updates the workflow's records, as if the run had been made with the additions.
# What a package needs.
EXPORTED = {"write": True, "license": "CC-BY-4.0", "authors": {"Ada Example": {}}}
ADDITIONS: dict[str, dict[str, Any]] = {
    "paper": {
        "train": {"loss": "border-ce", "optimizer": "sgd", "schedule": "plateau"},
        "models": {"a": {"norm": "group"}, "b": {"head": "border", "stitch": {"method": "grow"}}},
        "predict": {"blend": "gaussian", "skip": {"darker_than": 5}},
    },
    "distance": {
        "train": {"loss": "boundary"},
        "models": {"b": {"head": "distance", "stitch": {"method": "watershed"}}},
    },
    "window": {
        "train": {"loss": "focal"},
        "models": {
            "b": {
                "preset": "ciresan2012", "width": None, "depth": None, "window": 15,
                "stages": [[4, 4], [4, 3]], "hidden": [8],
            },
        },
    },
    "encoder": {
        "models": {
            "b": {
                "preset": "unet-resnet34", "width": None, "depth": None, "dropout": None,
                "train": {"patch": 64}, "predict": {"tile": "auto"},
            },
        },
    },
    "sparse": {"datasets": {"own": {"unlabelled": "ignore", "background_px": 2}}},
    "start": {"models": {"a": {"train": {"from": "own/b", "show_start": False}}}},
    "auto": {"models": {"a": {"preset": "auto", "width": None, "depth": None}}},
    "export": {"export": EXPORTED},
    "download": {"datasets": {"own": {"download": "isbi2012"}}},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """An edit of one key.

    Attributes:
        over: the changes to the config.
        stage: the first stage that runs again; "" if none does.
        datasets, models: those that it concerns.
        addition: key of ADDITIONS, for a key that has no effect in the run's own config.
        only: the setting that the key needs to have an effect, in words.
        jobs: all jobs that must run, if these are not the stage and the following ones.
    """

    key: str
    over: dict[str, Any]
    stage: str
    datasets: tuple[str, ...] = ("sem", "own")
    models: tuple[str, ...] = ("a", "b")
    addition: str = ""
    only: str = ""
    jobs: frozenset[str] | None = None

    @property
    def expected(self) -> set[str]:
        if self.jobs is not None:
            return set(self.jobs)
        return follows(self.stage, self.datasets, self.models) if self.stage else set()


def follows(stage: str, datasets: Iterable[str], models: Iterable[str]) -> set[str]:
    """The jobs of a stage for these datasets and models, and all that follow."""
    # The split changes no prepared image.
    without = {"splits": ("prepare",)}
    found = since(stage, *datasets, models=list(models), without=without.get(stage, ()))
    # The files of `own` are not generated.
    return {job for job in found if job != "synthesize own"}


def at(key: str, value: Any) -> dict[str, Any]:
    """A nested mapping with this value under a dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def of_all(stage: str, **values: Any) -> list[Row]:
    """Rows for keys of the whole run; ``__`` stands for a dot."""
    return [
        Row(k.replace("__", "."), at(k.replace("__", "."), v), stage) for k, v in values.items()
    ]


def of_dataset(stage: str, name: str, **values: Any) -> list[Row]:
    found = {k.replace("__", "."): v for k, v in values.items()}
    return [
        Row(f"datasets.<name>.{k}", at(f"datasets.{name}.{k}", v), stage, (name,))
        for k, v in found.items()
    ]


def of_model(stage: str, name: str, addition: str = "", only: str = "", **values: Any) -> list[Row]:
    return [
        Row(f"models.<name>.{k}", at(f"models.{name}.{k}", v), stage,
            models=(name,), addition=addition, only=only)
        for k, v in values.items()
    ]  # fmt: skip


def only_with(
    addition: str, only: str, stage: str, values: dict[str, Any], **scope: Any
) -> list[Row]:
    """Rows for keys that need another setting; ``where=key``: the key is set there."""
    rows = []
    for where, value in values.items():
        path, _, key = where.rpartition("=")
        over = at(path or key, value)
        rows.append(Row(key, over, stage, addition=addition, only=only, **scope))
    return rows


def _jobs(*names: str) -> frozenset[str]:
    return frozenset(names)


EVERYTHING = frozenset(follows("synthesize", ("sem", "own"), ("a", "b")))
# `sem` is trained on generated images, which depend on the seed, `own` on the user's.
SEEDED = frozenset(
    follows("synthesize", ("sem",), ("a",)) | follows("splits", ("own",), ("a", "b"))
)
A_FOLD_MORE = frozenset(
    follows("splits", ("sem",), ("a",)) | {f"{s} sem a 2" for s in ("train", "predict", "stitch")}
)
A_MODEL_MORE = frozenset(
    {f"{stage} sem b {fold}" for stage in ("train", "predict", "stitch") for fold in FOLDS["sem"]}
    | {"evaluate sem b", "details sem b", "audit sem b", "report_dataset sem", "report"}
)
A_SHARE_MORE = frozenset(
    {f"{stage} sem a-50pct {fold}"
     for stage in ("train", "predict", "stitch") for fold in FOLDS["sem"]}
    | {f"{stage} own a-50pct 0" for stage in ("train", "predict", "stitch")}
    | {f"evaluate {d} a-50pct" for d in ("sem", "own")}
    | {"report_dataset sem", "report_dataset own", "report"}
)  # fmt: skip
A_SWEEP = frozenset(
    {f"train {d} a-width{w} {k}" for d, k in (("sem", 0), ("sem", 1), ("own", 0)) for w in (4, 5)}
    | {"choose sem a 0", "choose sem a 1", "choose own a 0"}
    | follows("predict", ("sem", "own"), ("a",))
)
A_START_MORE = frozenset(
    {f"{stage} own a-start 0" for stage in ("train", "predict", "stitch")}
    | {"evaluate own a-start", "report_dataset own", "report"}
)
APPLIED = _jobs(
    "manifest new", "prepare_applied new a@own", "predict new a@own ensemble",
    "stitch new a@own ensemble", "quality new a@own", "report_dataset new", "report",
)  # fmt: skip
# Of the finished run itself, which has the only OME-Zarr images there.
ZARR = {"images": "../out/own/a/fold-0/segmentation.zarr", "predict_with": ["own/a"],
        "stitch": {"write_back": "labels/cells"}}  # fmt: skip
# A second dataset of the same images, and one of both.
JOINED = {
    "twin": {**copy.deepcopy(CONFIG["datasets"]["own"]), "models": ["a"]},
    "both": {"join": ["own", "twin"], "models": ["a"]},
}
TWINS = frozenset(
    jobs_of([s for s in STAGES if s != "synthesize"], "twin", ["a"], [0])
    | jobs_of(["join", *STAGES[STAGES.index("train") :]], "both", ["a"], [0])
    | {"report"}
)
SHARDED = frozenset(
    follows("predict", ("sem", "own"), ("a", "b"))
    | {f"predict_shard {d} {m} {k} {i}" for d, m, k in
       (("sem", "a", 0), ("sem", "a", 1), ("own", "a", 0), ("own", "b", 0)) for i in (0, 1)}
)  # fmt: skip
DOWNLOADED = frozenset(follows("manifest", ("own",), ("a", "b")) | {"download own"})
EXPORTS = _jobs("export sem a", "export own a", "export own b")
SKIP = "predict.skip"

ROWS: list[Row] = [
    # The run.
    Row("output", {"output": "out2"}, "", jobs=EVERYTHING),
    Row("data_root", {"data_root": "moved"}, ""),
    Row("seed", {"seed": 1}, "", jobs=SEEDED),
    *of_all("manifest", strict=True),
    *of_all("train", device="auto"),
    Row("memory_gb", {"memory_gb": 3}, "train", models=("a",), addition="auto",
        only="preset: auto"),
    # Datasets.
    *of_dataset("", "own", images="images", labels="labels"),
    *of_dataset("manifest", "own", layout="stack", ignore=7, label_kind="binary", axes="YX",
                pixel_size_um=0.3, channels=[0], split__group="(nuclei)"),
    Row("datasets.<name>.unlabelled",
        at("datasets.own", {"unlabelled": "ignore", "background_px": 2}), "manifest", ("own",)),
    *(Row(f"datasets.<name>.{key}", at(f"datasets.own.{key}", 3), stage, ("own",),
          addition="sparse", only="unlabelled: ignore")
      for key, stage in (("background", "manifest"), ("background_px", "prepare"))),
    Row("datasets.<name>.split.column",
        at("datasets.own.split", {"test": None, "column": "part"}), "manifest", ("own",)),
    Row("datasets.<name>.task",
        at("datasets.own", {"task": "semantic", "classes": {"ground": 0, "cell": 1}}),
        "manifest", ("own",)),
    *of_dataset("manifest", "sem", classes={"wall": 7}),
    *of_dataset("splits", "sem", split__val=0.3, split__redraw=1),
    *of_dataset("splits", "own", split__test=0.4),
    Row("datasets.<name>.split.folds", at("datasets.sem.split.folds", 3), "", jobs=A_FOLD_MORE),
    Row("datasets.<name>.split.run", at("datasets.sem.split.run", [1]), "evaluate", ("sem",),
        jobs=frozenset(follows("evaluate", ("sem",), ("a",)) | {"details sem a", "audit sem a"})),
    Row("datasets.<name>.models", at("datasets.sem.models", ["a", "b"]), "", jobs=A_MODEL_MORE),
    Row("datasets.<name>.predict_with",
        at("datasets.new", {"images": "images", "predict_with": ["own/a"]}), "", jobs=APPLIED),
    Row("datasets.<name>.join", at("datasets", JOINED), "", jobs=TWINS),
    Row("datasets.<name>.download", ADDITIONS["download"], "", jobs=DOWNLOADED),
    Row("datasets.<name>.download_from", at("datasets.own.download_from", "mine.zip"), "",
        addition="download", only="download"),
    *of_dataset("prepare", "own", prepare={"tile": 32}),
    *of_dataset("train", "own", train={"lr": 0.02}),
    *of_dataset("predict", "own", predict={"tta": True}),
    *of_dataset("stitch", "own", stitch={"threshold": 0.4}),
    *of_dataset("evaluate", "own", evaluate={"metrics": ["pixel"]}),
    *of_dataset("synthesize", "sem", synthetic__kind="phase", synthetic__images=5,
                synthetic__size=112, synthetic__pixel_size_um=0.4),
    # Models.
    *of_model("train", "a", dims=3, width=5, max_width=6, depth=2, dropout=0.1, convs=3,
              norm="instance", order="norm-act", activation="leaky_relu", residual=True,
              blocks=[1, 2], decoder_convs=1, up="nearest", attention=True, deep_supervision=True,
              kernels=[[5, 5], [3, 3]], pools=[[1, 2]], anisotropic=False, train={"lr": 0.02}),
    *of_model("train", "b", preset="unet-bn", padding="same", head="border"),
    *of_model("predict", "a", predict={"tta": True}),
    *of_model("stitch", "a", stitch={"threshold": 0.4}),
    *of_model("train", "a", "paper", "norm: group", groups=2),
    *of_model("train", "b", "paper", "head: border", border_width=3),
    *of_model("train", "b", "window", "preset: ciresan2012", window=11, stages=[[4, 4], [5, 3]],
              hidden=[9]),
    *of_model("train", "b", "encoder", "preset: unet-resnet34", encoder="resnet18",
              decoder=[8, 8, 8, 8, 8], encoder_weights="resnet34.pt"),
    Row("models.<name>.learning_curve", at("models.a.learning_curve", [0.5]), "",
        jobs=A_SHARE_MORE),
    Row("models.<name>.sweep", at("models.a.sweep", {"width": [4, 5]}), "", jobs=A_SWEEP),
    # Prepare.
    *of_all("prepare", prepare__tile=32, prepare__shard=2, prepare__normalize__method="zscore",
            prepare__normalize__low=2, prepare__normalize__high=99,
            prepare__normalize__scope="dataset"),
    # Train.
    *of_all("train", train__recipe="nnunet", train__batch=3, train__accumulate=2,
            train__epochs=3, train__steps_per_epoch=4, train__loss="ce",
            train__class_weights="auto", train__optimizer="sgd", train__lr=0.02,
            train__weight_decay=0.01, train__schedule="poly", train__warmup_steps=2,
            train__ema=0.9, train__subset=0.5, train__freeze_norm=0.5, train__clip_norm=5,
            train__foreground=0.5, train__precision="float32", train__validate_every=2,
            train__patience=1),
    # Each model has its own patch size.
    Row("train.patch", at("models.a.train.patch", 64), "train", models=("a",)),
    Row("train.from", ADDITIONS["start"], "train", models=("a",)),
    *only_with("start", "from", "train",
               {"models.a.train.freeze=train.freeze": 1,
                "models.a.train.norm_statistics=train.norm_statistics": "keep"}, models=("a",)),
    Row("train.show_start", at("models.a.train.show_start", True), "train", addition="start",
        only="from", jobs=A_START_MORE),
    *only_with("window", "a loss that has any", "train", {"train.loss_options": {"gamma": 1}}),
    *only_with("paper", "loss: border-ce", "train", {"train.w0": 5, "train.sigma": 4}),
    *only_with("paper", "loss: border-ce", "train",
               {"datasets.sem.train.cells=train.cells": "cell"}, datasets=("sem",)),
    *only_with("distance", "loss: boundary or head: distance", "train", {"train.distance_px": 6}),
    *only_with("distance", "head: distance", "train", {"train.distance_weight": 2},
               models=("b",)),
    *only_with("paper", "optimizer: sgd or nesterov", "train", {"train.momentum": 0.9}),
    *only_with("paper", "schedule: plateau", "train",
               {"train.plateau_patience": 2, "train.plateau_factor": 0.3}),
    *of_all("", train__checkpoint_seconds=7, train__cache_gb=1, train__gpus=2),
    *of_all("", train__compile=True),
    *of_all("train", **{f"train__augment__{k}": v for k, v in {
        "flip": False, "rotate90": False, "rotate_deg": 5, "scale": 0.1, "elastic_px": 2,
        "elastic_grid": 4, "geometric_probability": 0.2, "gamma": 0.1, "contrast": 0.1,
        "brightness": 0.1, "noise": 0.2, "blur_px": 0.5, "intensity_probability": 0.2,
        "channel_dropout": 0.1}.items()}),
    # Predict.
    *of_all("predict", predict__tile=72, predict__precision="float32", predict__engine="openvino",
            predict__dtype="float32", predict__tta=True, predict__blend="gaussian",
            predict__skip__brighter_than=250, predict__skip__darker_than=5),
    *of_all("", predict__batch=3, predict__gpus=2),
    Row("predict.shards", at("predict.shards", 2), "", jobs=SHARDED),
    *only_with("paper", "blend: gaussian", "predict", {"predict.overlap": 0.25}),
    *of_all("", **{f"predict__cluster__{k}": v for k, v in {
        "address": "tcp://127.0.0.1:1", "queue": "slurm", "workers": 3, "threads": 2,
        "memory_gb": 4, "hours": 2, "interface": "ib0", "options": ["-p x"]}.items()}),
    *only_with("paper", SKIP, "predict", {f"{SKIP}.channel": 1, f"{SKIP}.share": 0.5}),
    *only_with("paper", SKIP, "predict", {f"datasets.sem.{SKIP}.fill={SKIP}.fill": "cell"},
               datasets=("sem",)),
    # Stitch.
    *of_all("stitch", stitch__threshold=0.4, stitch__tiff=False, stitch__ome_zarr="0.4",
            stitch__pyramid=2, stitch__label_pyramid="mode", stitch__zip_images="always"),
    *[Row(f"stitch.{k}", at(f"stitch.{k}", v), "stitch", ("own",), only="task: instances")
      for k, v in {"connectivity": "full", "min_size": 9, "fill_holes": 3, "geojson": True,
                   "rois": True}.items()],
    # The images of `own` are no OME-Zarr, and those of `sem` are generated.
    Row("stitch.write_back", at("datasets.new", ZARR), "", jobs=APPLIED, only="OME-Zarr images"),
    Row("stitch.method", at("models.b.stitch.method", "components"), "stitch", ("own",), ("b",),
        addition="paper", only="head: border or distance"),
    Row("stitch.grow_px", at("stitch.grow_px", 5), "stitch", ("own",), ("b",), "paper",
        "method: grow"),
    Row("stitch.watershed_h", at("stitch.watershed_h", 0.2), "stitch", ("own",), ("b",),
        "distance", "method: watershed"),
    # Evaluate.
    Row("evaluate.metrics", at("evaluate.metrics", ["pixel"]), "evaluate", ("own",)),
    Row("evaluate.topology_class", at("datasets.sem.evaluate.topology_class", "membrane"),
        "evaluate", ("sem",), only="topology or isbi2012 among the metrics"),
    Row("evaluate.boundary", at("evaluate.boundary", "as-is"), "evaluate", ("sem",),
        only="topology among the metrics"),
    Row("datasets.<name>.compare", at("datasets.own.compare", {"copy": "labels"}), "", ("own",),
        jobs=_jobs("compare own copy", "report_dataset own", "report")),
    Row("evaluate.boundary_tolerance", at("evaluate.boundary_tolerance", "3 px"), "evaluate",
        ("own",), only="boundary among the metrics"),
    # Export: jobs of its own, if packages are wanted.
    Row("export.write", at("export", EXPORTED), "", jobs=EXPORTS),
    Row("export.fold", at("datasets.sem.export.fold", 1), "", jobs=_jobs("export sem a"),
        addition="export", only="write: true"),
    *[Row(f"export.{k}", at(f"export.{k}", v), "", jobs=EXPORTS, addition="export",
          only="write: true")
      for k, v in {"weights": ["torchscript"], "name": "Cells", "description": "Finds cells.",
                   "license": "MIT",
                   "cite": {"A paper": "10.1000/xyz"}, "tags": ["cells"],
                   "data_url": "https://example.org"}.items()],
    *[Row(f"export.authors.<name>.{k}", at("export.authors", {"Ada Example": {k: v}}), "",
          jobs=EXPORTS, addition="export", only="write: true")
      for k, v in {"affiliation": "Institute", "orcid": "0000-0001-2345-6789",
                   "github_user": "ada"}.items()],
    Row("datasets.<name>.export", at("datasets.own.export.tags", ["cells"]), "",
        jobs=_jobs("export own a", "export own b"), addition="export", only="write: true"),
    Row("models.<name>.export", at("models.a.export.tags", ["cells"]), "",
        jobs=_jobs("export own a", "export sem a"), addition="export", only="write: true"),
    # Report.
    *of_all("report_dataset", report__confidence=0.9, report__bootstrap=200, report__overlays=1),
]  # fmt: skip


def config_of(row: Row) -> dict[str, Any]:
    """The config with the edit."""
    return merge(base_of(row.addition), row.over)


def base_of(addition: str) -> dict[str, Any]:
    return merge(CONFIG, ADDITIONS[addition]) if addition else CONFIG
