"""The config: every mistake is one line with the key, the value and what is allowed; overrides; and
the model, config/config.yaml, its examples and config/README.md agree."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from unet.config.load import load, load_file
from unet.config.run import Config, merge
from unet.config.sections import sections_of
from unet.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "config" / "README.md"

BASE: dict[str, Any] = {
    "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
    "models": {"m": {"preset": "unet-bn", "depth": 2}},
    "train": {"patch": 64},
}


def in_dataset(**keys: Any) -> dict[str, Any]:
    return {"datasets": {"d": keys}}


def in_model(**keys: Any) -> dict[str, Any]:
    return {"models": {"m": keys}}


def semantic(**keys: Any) -> dict[str, Any]:
    return in_dataset(task="semantic", **keys)


CLASSES = {"background": 0, "cell": 255}
SOURCE = {"synthetic": {"kind": "nuclei"}, "task": "instances"}

# (changes to BASE, the key, what else the line must say)
MISTAKES: list[tuple[dict[str, Any], str, list[str]]] = [
    # Unknown and missing keys, at every level.
    ({"xyz": {}}, "xyz", ["unknown key", "config/README.md"]),
    ({"trian": {}}, "trian", ["unknown key; did you mean train?"]),
    ({"epochs": 3}, "epochs", ["unknown key; did you mean train.epochs?"]),
    ({"train": {"images": 3}}, "train.images", ["did you mean datasets.<name>.images?"]),
    (in_model(channels=2), "models.m.channels", ["did you mean datasets.<name>.channels?"]),
    (in_model(features=8), "models.m.features", ["did you mean width?"]),
    ({"train": {"batch_size": 8}}, "train.batch_size", ["did you mean batch?"]),
    ({"train": {"lrr": 1}}, "train.lrr", ["unknown key; did you mean lr?"]),
    ({"train": {"lr:1": None}}, "train.lr:1", ["did you mean lr?"]),
    ({"train": {"augment": {"flop": True}}}, "train.augment.flop", ["did you mean flip?"]),
    ({"prepare": {"normalise": {}}}, "prepare.normalise", ["did you mean normalize?"]),
    (in_dataset(image="x"), "datasets.d.image", ["unknown key; did you mean images?"]),
    (in_dataset(split={"fold": 3}), "datasets.d.split.fold", ["did you mean folds?"]),
    (in_dataset(train={"batchh": 1}), "datasets.d.train.batchh", ["did you mean batch?"]),
    (in_dataset(train={"augment": {"gama": 1}}), "datasets.d.train.augment.gama",
     ["did you mean gamma?"]),
    (in_model(stitch={"threshhold": 0.1}), "models.m.stitch.threshhold",
     ["unknown key; did you mean threshold?"]),
    (in_model(presett="auto"), "models.m.presett", ["did you mean preset?"]),
    (in_model(preset="unet-nb"), "models.m.preset", ["'unet-nb'", "did you mean unet-bn?"]),
    ({"train": {"recipe": "ronnebreger"}}, "train.recipe", ["did you mean ronneberger2015?"]),
    ({"train": {"loss": "ce-dcie"}}, "train.loss", ["did you mean ce-dice?"]),
    ({"predict": {"tile": "autoo"}}, "predict.tile", ["did you mean auto?"]),
    ({"models": {"unet-w32": {"preset": "unet-bn"}}, "datasets": {"d": {"models": ["unet-w23"]}}},
     "datasets.d.models", ["did you mean unet-w32?"]),
    (in_dataset(synthetic={"kind": "nucleii"}), "datasets.d.synthetic.kind",
     ["did you mean nuclei?"]),
    ({"models": {"n": {}}}, "models.n.preset", ["needed"]),
    (in_dataset(synthetic={"images": 5, "kind": "cats"}), "datasets.d.synthetic.kind",
     ["'cats'", "membranes", "nuclei", "phase"]),
    # Types and ranges.
    ({"seed": -1}, "seed", ["-1", "greater than or equal to 0"]),
    ({"device": "tpu"}, "device", ["'tpu'", "auto", "cpu", "cuda"]),
    ({"memory_gb": float("nan")}, "memory_gb", ["finite"]),
    ({"output": ""}, "output", ["''", "not be empty"]),
    ({"train": {"lr": 0}}, "train.lr", ["0", "greater than 0"]),
    ({"train": {"lr": "fast"}}, "train.lr", ["'fast'", "number"]),
    ({"train": {"epochs": 2.5}}, "train.epochs", ["2.5", "whole number"]),
    ({"train": {"loss": "l2"}}, "train.loss", ["'l2'", "border-ce", "dice"]),
    ({"train": {"checkpoint_seconds": 90}}, "train.checkpoint_seconds", ["90", "60"]),
    ({"train": 5}, "train", ["5", "keys of its own"]),
    (in_model(preset=None), "models.m.preset", ["needed"]),
    (in_dataset(train=5), "datasets.d.train", ["5", "keys of its own"]),
    (in_dataset(train={"lr": -1}), "datasets.d.train.lr", ["-1", "greater than 0"]),
    ({"train": {"compile": True, "gpus": 2}}, "train.compile", ["and train.gpus is 2 (dataset"]),
    (in_model(train={"compile": True, "gpus": 2}), "train.compile", ["write compile: false"]),
    (in_dataset(train={"compile": True}) | {"train": {"gpus": 2}}, "train.compile", ["gpus: 1"]),
    (in_model(predict={"precision": "int8"}), "models.m.predict", ["torch does not", "int8"]),
    ({"prepare": {"tile": 8}}, "prepare.tile", ["8", "32"]),
    ({"report": {"bootstrap": 5}}, "report.bootstrap", ["5", "100"]),
    ({"report": {"confidence": 0.9999}}, "report",
     ["2000", "0.9999", "no difference could be clear", "write bootstrap: 9999"]),
    ({"report": {"confidence": 0.999999}}, "report", ["a confidence of at most 0.99999"]),
    ({"evaluate": {"metrics": ["pixel", "speed"]}}, "evaluate.metrics.1", ["'speed'", "topology"]),
    ({"evaluate": {"metrics": "pixel"}}, "evaluate.metrics", ["'pixel'", "list"]),
    ({"evaluate": {"metrics": []}}, "evaluate.metrics", ["at least one"]),
    # Keys of another network.
    ({"models": {"r": {"preset": "unet-resnet34", "width": 8}}}, "models.r",
     ["width: the preset", "drop this key (encoder and decoder set its layers and their widths)"]),
    (in_model(window=65, hidden=[5]), "models.m", ["hidden, window: the", "drop these keys"]),
    # Lists of a given length.
    ({"models": {"r": {"preset": "unet-resnet34", "decoder": [8] * 4}}}, "models.r.decoder",
     ["must name 5 numbers, the coarsest level first (got [8, 8, 8, 8])"]),
    ({"models": {"r": {"preset": "unet-resnet34", "decoder": [8] * 6}}}, "models.r.decoder",
     ["must name 5 numbers"]),
    ({"train": {"patch": []}}, "train.patch", ["a whole number or name at least 2 (got [])"]),
    ({"train": {"patch": [64] * 4}}, "train.patch", ["a whole number or name at most 3 (got"]),
    (in_model(blocks=[1] * 10), "models.m.blocks", ["must name at most 9 (got"]),
    # Keys that take a number or a word: one line, not one per alternative.
    ({"predict": {"overlap": 1}}, "predict.overlap", ["1", "0.95"]),
    ({"predict": {"skip": {}}}, "predict.skip", ["darker_than", "brighter_than"]),
    ({"predict": {"skip": {"darker_than": 1, "brighter_than": 2}}}, "predict.skip", ["either"]),
    ({"predict": {"skip": {"darker_than": 1, "fill": "cell"}}}, "predict.skip.fill",
     ["'cell'", "background, foreground"]),
    ({"predict": {"blend": "gaussian", "tile": 8}, "models": {"m": {"depth": 4}}}, "predict.tile",
     ["8", "at least 16"]),
    ({"predict": {"batch": 0}}, "predict.batch", ["0", "greater than 0 or 'auto'"]),
    ({"stitch": {"threshold": 1.5}}, "stitch.threshold", ["1.5", "less than 1 or 'auto'"]),
    ({"stitch": {"threshold": "best"}}, "stitch.threshold", ["'best'", "number or 'auto'"]),
    ({"train": {"class_weights": "equal"}}, "train.class_weights", ["'equal'", "'auto'"]),
    ({"train": {"class_weights": [1, -1]}}, "train.class_weights", ["[1, -1]", "equal to 0"]),
    (in_dataset(pixel_size_um=0), "datasets.d.pixel_size_um", ["0", "greater than 0"]),
    (in_dataset(pixel_size_um=[1, -1]), "datasets.d.pixel_size_um", ["[1, -1]", "greater than 0"]),
    # true is no number, though Python counts it as 1.
    ({"train": {"epochs": True}}, "train.epochs", ["must be a number", "true"]),
    ({"train": {"clip_norm": False}}, "train.clip_norm", ["must be a number", "false"]),
    (in_dataset(train={"lr": True}), "datasets.d.train.lr", ["must be a number", "true"]),
    # What YAML makes of `{no: 0, yes: 1}`.
    (in_dataset(classes={False: 0, "cell": 1}), "datasets.d.classes.False", ["yes, no", "'no'"]),
    # Names that would leave the folder, or that the pipeline uses itself.
    ({"datasets": {"../up": SOURCE}}, "datasets", ["'../up'", "letters, digits"]),
    ({"datasets": {"a/b": SOURCE}}, "datasets", ["'a/b'"]),
    ({"datasets": {"a\n": SOURCE}}, "datasets", ["'a\\n'"]),
    ({"datasets": {".hidden": SOURCE}}, "datasets", ["'.hidden'"]),
    ({"datasets": {"logs": SOURCE}}, "datasets", ["'logs'"]),
    ({"models": {"raw": {"preset": "unet-bn"}}}, "models", ["'raw'"]),
    ({"models": {"n" * 65: {"preset": "unet-bn"}}}, "models", ["64"]),
    # Within a section.
    (in_dataset(split={"test": 0.2, "column": "p"}), "datasets.d.split", ["test, column"]),
    (in_dataset(split={"folds": 2, "test": 0.2, "column": "part"}), "datasets.d.split", ["one of"]),
    (in_dataset(split={"folds": 5, "run": [5]}), "datasets.d.split", ["run", "[5]", "0 to 4"]),
    (in_dataset(split={"folds": 5, "run": [1, 1]}), "datasets.d.split", ["run", "once"]),
    (in_dataset(split={"folds": 40}), "datasets.d.split.folds", ["40", "12"]),
    ({"prepare": {"normalize": {"low": 60, "high": 40}}}, "prepare.normalize", ["60", "40"]),
    (in_dataset(axes="YXX"), "datasets.d.axes", ["'YXX'", "such as CYX"]),
    (in_dataset(axes="CZ"), "datasets.d.axes", ["'CZ'", "Y and X"]),
    (in_dataset(images="i"), "datasets.d", ["either images", "or synthetic"]),
    (in_dataset(synthetic=None, images="i"), "datasets.d.labels", ["needed to train"]),
    (in_dataset(labels="l"), "datasets.d", ["labels", "drop this key"]),
    (semantic(), "datasets.d", ["classes", "{background: 0, cell: 255}"]),
    (semantic(classes={"a": 0}), "datasets.d", ["classes", "at least two"]),
    (semantic(classes={"a": 0, "b": 0}), "datasets.d", ["classes", "same label value"]),
    (semantic(classes=CLASSES, ignore=255), "datasets.d", ["ignore", "255"]),
    (in_dataset(classes=CLASSES), "datasets.d", ["classes", "write task: semantic"]),
    # Between sections.
    (in_dataset(models=["x"]), "datasets.d.models", ["'x'", "there are: m"]),
    (in_dataset(models=[]), "datasets.d.models", ["at least one"]),
    (in_dataset(models=["m", "m"]), "datasets.d.models", ["once"]),
    ({"train": {"patch": 65}}, "train.patch", ["65", "64 and 68"]),
    ({"predict": {"tile": 48}}, "predict.tile", ["48", "at least 52"]),
    (in_model(depth=3, train={"patch": 68}), "train.patch", ["68", "64 and 72"]),
    (in_model(depth=4, norm="instance", train={"patch": 16}), "train.patch",
     ["one pixel", "at least 32"]),
    (in_model(depth=4, train={"patch": 16, "batch": 1}), "train.patch", ["norm: batch"]),
    ({"train": {"patch": [64, 64, 64]}}, "train.patch", ["2 spatial axes"]),
    (in_model(dims=3, anisotropic=False, train={"patch": 65}), "train.patch", ["65"]),
    ({"train": {"recipe": "unet"}}, "train.recipe", ["'unet'", "ronneberger2015"]),
    ({"train": "unet"}, "train", ["'unet'", "ronneberger2015"]),
    (in_model(train="unet"), "models.m.train.recipe", ["'unet'", "ronneberger2015"]),
    (in_model(train={"loss": "focus"}), "models.m.train.loss", ["'focus'", "focal"]),
    ({"train": {"loss": "focal", "loss_options": {"gama": 2}}}, "train.loss_options",
     ["'gama'", "gamma"]),
    ({"train": {"loss": "cldice", "loss_options": {"thin": 2}}}, "train.loss_options", ["thin"]),
    (in_model(window=95), "models.m", ["window", "unet-bn"]),
    (in_model(preset="ciresan2012", depth=None, width=None, window=94), "models.m", ["odd"]),
    (in_model(preset="ciresan2012", depth=None, width=None, window=97), "models.m", ["pooling"]),
    (in_model(preset="auto", depth=3), "models.m", ["depth", "plan"]),
    (in_model(kernels=[[3, 3]]), "models.m", ["kernels", "2 numbers"]),
    (in_model(pools=[[2, 3], [2, 2]]), "models.m", ["pools", "1 or 2"]),
    ({"train": {"class_weights": [1, 2, 3]}}, "train.class_weights",
     ["3 weights", "background, foreground"]),
    (merge(semantic(classes=CLASSES), in_model(head="border")), "models.m.head",
     ["instance labels", "head: classes"]),
    ({"stitch": {"method": "grow"}}, "stitch.method", ["head: border", "components"]),
    ({"stitch": {"method": "watershed"}}, "stitch.method", ["head: distance", "components"]),
    (in_model(head="border", stitch={"method": "watershed"}), "stitch.method", ["head: distance"]),
    ({"stitch": {"watershed_h": 0}}, "stitch.watershed_h", ["0", "greater than 0"]),
    ({"evaluate": {"topology_class": "cell"}}, "datasets.d", ["topology_class", "'cell'"]),
    ({"datasets": {"d": {"compare": {"m": "masks"}}}}, "datasets.d.compare",
     ["m is also the name of a model"]),
    ({"datasets": {"d": {"compare": {"a/b": "masks"}}}}, "datasets.d.compare",
     ["'a/b'", "letters, digits"]),
    ({"datasets": {"d": {"compare": {"tool": ""}}}}, "datasets.d.compare.tool",
     ["must not be empty"]),
    ({"datasets": {"d": {"compare": {"tool": "masks"}}}, "evaluate": {"metrics": ["calibration"]}},
     "datasets.d.compare", ["only calibration", "add one of pixel, instance"]),
    ({"models": {"compared": {"preset": "unet-bn"}}}, "models", ["'compared'", "not usable"]),
]  # fmt: skip


@pytest.mark.parametrize(("over", "key", "says"), MISTAKES, ids=[k for _, k, _ in MISTAKES])
def test_each_mistake_is_one_line(over: dict[str, Any], key: str, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(merge(BASE, over))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"config: {key}: "), lines
    for text in says:
        assert text in lines[0], lines
    assert len(lines[0]) < 260
    assert not re.search(r"pydantic|constrained|literal\[|Section", lines[0])


def test_the_base_of_the_mistakes_is_sound() -> None:
    config = load(BASE)
    assert config.models_for("d") == ("m",)
    assert config.head_for("d", "m") == ("background", "foreground")


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        load(merge(BASE, {"train": {"lr": 0, "batch": 0}, "seeed": 1}))
    lines = str(caught.value).splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == ["seeed", "train.batch", "train.lr"]


def test_an_empty_config() -> None:
    with pytest.raises(UserError, match=r"datasets: this key is needed\nconfig: models: this key"):
        load({})
    for key in ("datasets", "models"):
        with pytest.raises(UserError, match=f"config: {key}: at least one is needed"):
            load({**BASE, key: {}})
        with pytest.raises(UserError, match=f"config: {key}: this key is needed"):
            load({**BASE, key: None})


def test_values_do_not_change_after_the_load() -> None:
    config = load(BASE)
    with pytest.raises(ValidationError):
        config.train.lr = 3  # type: ignore[misc]


# Overrides.


def test_the_model_overrides_the_dataset_which_overrides_the_section() -> None:
    config = load(
        merge(
            BASE,
            {
                "train": {"lr": 0.1, "batch": 3, "augment": {"gamma": 0.1, "noise": 0.2}},
                "datasets": {
                    "d": {"train": {"lr": 0.2, "epochs": 4, "augment": {"noise": 0.3}}},
                    "e": SOURCE,
                },
                "models": {"m": {"train": {"lr": 0.3}}, "n": {"preset": "unet-bn"}},
            },
        )
    )
    found = config.train_for("d", "m")
    assert (found.lr, found.epochs, found.batch) == (0.3, 4, 3)
    # Nested keys are merged, not replaced.
    assert (found.augment.gamma, found.augment.noise, found.augment.flip) == (0.1, 0.3, True)
    assert config.train_for("d", "n").lr == 0.2
    assert config.train_for("e", "n").lr == 0.1
    assert config.train_for("e", "n").epochs == config.train.epochs


def test_each_stage_takes_its_overrides() -> None:
    config = load(
        merge(
            BASE,
            {
                "datasets": {
                    "d": {
                        "prepare": {"tile": 64},
                        "predict": {"tta": True},
                        "stitch": {"min_size": 3},
                        "evaluate": {"metrics": ["pixel"]},
                    }
                },
                "models": {"m": {"predict": {"tile": 128}, "stitch": {"threshold": 0.3}}},
            },
        )
    )
    assert config.prepare_for("d").tile == 64
    assert (config.predict_for("d", "m").tta, config.predict_for("d", "m").tile) == (True, 128)
    stitch = config.stitch_for("d", "m")
    assert (stitch.min_size, stitch.threshold) == (3, 0.3)
    assert config.evaluate_for("d").metrics == ("pixel",)


def test_a_mistake_that_only_one_pair_makes_is_found() -> None:
    over = {"datasets": {"d": {"train": {"patch": 66}}}, "models": {"n": {"preset": "unet-bn"}}}
    with pytest.raises(UserError) as caught:
        load(merge(merge(BASE, over), in_model(depth=1)))
    # 66 fits the grid of 2 of one model, but not that of 16 of the other.
    assert "66 does not fit the network (dataset d, model n)" in str(caught.value)
    assert "model m" not in str(caught.value)


VALUES = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.text(max_size=2), VALUES, max_size=4)


@given(MAPPINGS, MAPPINGS)
def test_merge(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = merge(base, over)
    assert set(merged) == set(base) | set(over)
    for key in merged:
        if isinstance(base.get(key), dict) and isinstance(over.get(key), dict):
            assert merged[key] == merge(base[key], over[key])
        else:
            assert merged[key] == over.get(key, base.get(key))
    assert merge(base, {}) == base
    assert merge({}, base) == base


# Values as YAML and the command line give them.


def test_numbers_as_text_are_numbers() -> None:
    """YAML 1.1 reads 1e-3 as text, and so does `--config`."""
    train = {"lr": "1e-3", "batch": "4", "augment": {"flip": "false"}}
    config = load(merge(BASE, {"train": train}))
    assert (config.train.lr, config.train.batch, config.train.augment.flip) == (1e-3, 4, False)


def test_the_order_of_keys_changes_nothing_but_that_of_classes() -> None:
    turned = {key: BASE[key] for key in reversed(BASE)}
    assert load(turned) == load(BASE)
    classes = {"b": 1, "a": 0}
    config = load(merge(BASE, semantic(classes=classes)))
    assert config.datasets["d"].class_names == ("b", "a")  # the index of a class is its place


# Files.


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with pytest.raises(UserError, match=r"c\.yaml: cannot be read"):
        load_file(path)
    for text, says in (
        ("a: [1", "not valid YAML"),
        ("just words", "contains no keys"),
        ("", "contains no keys"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=says) as caught:
            load_file(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load_file(path)
    path.write_text(yaml.safe_dump(BASE))
    assert load_file(path) == load(BASE)


@pytest.mark.parametrize(
    "path",
    [ROOT / "config" / "config.yaml", *sorted((ROOT / "config" / "examples").glob("*.yaml"))],
    ids=lambda path: path.stem,
)
def test_configs_of_the_project_are_sound(path: Path) -> None:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    config = load(raw)
    assert Config.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "config" / "examples" / "overlays").glob("*.yaml")),
    ids=lambda path: path.stem,
)
def test_overlays_fit_the_example_that_they_are_named_after(path: Path) -> None:
    # plant-em-original changes plant-em, but dsb2018-rgb-original does not change dsb2018.
    examples = [
        p for p in (ROOT / "config" / "examples").glob("*.yaml") if path.stem.startswith(p.stem)
    ]
    base = max(examples, key=lambda p: len(p.stem))
    raw, over = (yaml.safe_load(p.read_text(encoding="utf-8")) for p in (base, path))
    assert load(merge(raw, over)) != load(raw)


def test_a_dry_run_imports_nothing_heavy() -> None:
    code = (
        "import sys, unet.config.load, unet.planning.jobs, unet.data.layouts;"
        "import unet.data.raw_changes, unet.planning.resources, unet.planning.resume;"
        "heavy = {'torch', 'dask', 'zarr', 'skimage', 'scipy', 'pandas', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# The code, config.yaml and README.md agree.


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of the config, `datasets.<name>.images`; sections themselves below the top."""
    for name, field in model.model_fields.items():
        inner = sections_of(field.annotation)
        key = prefix + name
        if not inner:
            yield key
            continue
        named = getattr(field.annotation, "__origin__", None) is dict
        for section in inner:
            yield from keys_of(section, f"{key}.<name>." if named else f"{key}.")


KEYS = sorted(keys_of(Config))
# `section.key`, or a single word in the first cell of a table's row.
DOTTED = re.compile(r"`([a-z_][a-z0-9_]*(?:\.(?:<name>|[a-z_][a-z0-9_]*))+)`")
FIRST_CELL = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def test_the_walk_finds_all_levels() -> None:
    for key in ("output", "train.lr", "train.augment.flip", "datasets.<name>.split.folds",
                "models.<name>.preset", "prepare.normalize.method"):  # fmt: skip
        assert key in KEYS
    assert len(KEYS) > 90


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_explained(key: str) -> None:
    rows = FIRST_CELL.findall(README.read_text(encoding="utf-8"))
    assert key in rows, f"config/README.md: no table row for `{key}`"
    assert rows.count(key) == 1, f"config/README.md: several rows for `{key}`"


def test_every_key_of_the_readme_exists() -> None:
    text = README.read_text(encoding="utf-8")
    known = set(KEYS)
    for key in KEYS:
        parts = key.split(".")
        known |= {".".join(parts[:n]) for n in range(1, len(parts))}
    unknown = (set(FIRST_CELL.findall(text)) | set(DOTTED.findall(text))) - known
    # Files and modules are dotted too.
    unknown = {key for key in unknown if not key.endswith((".py", ".yaml", ".md", ".csv", ".html"))}
    assert not unknown, f"config/README.md: keys that do not exist: {sorted(unknown)}"


def default_of(key: str) -> Any:
    """The default of a key; ... if there is none."""
    model: Any = Config
    *path, last = [part for part in key.split(".") if part != "<name>"]
    for part in path:
        model = sections_of(model.model_fields[part].annotation)[0]
    field = model.model_fields[last]
    return ... if field.is_required() else field.default


@pytest.mark.parametrize("key", KEYS)
def test_plain_defaults_are_those_of_the_readme(key: str) -> None:
    """Numbers, words and switches; other defaults are described in words."""
    default = default_of(key)
    if default is ... or default is None or isinstance(default, (dict, tuple)):
        return
    for line in README.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"| `{key}` |"):
            # A bar within backticks would split the cell, but no default has one.
            cell = line.split("|")[3].strip().strip("`")
    said = cell.split(" (")[0].split(":")[0].strip("` ")
    if isinstance(default, bool):
        assert said == str(default).lower()
    elif isinstance(default, (int, float)):
        assert float(said) == default
    else:
        assert said in (default, "empty" if default == "" else default)


def yaml_keys(node: yaml.Node, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, int]]:
    """(key with <name> for the names of datasets and models, line) of every key in a file."""
    if not isinstance(node, yaml.MappingNode):
        return
    for name, value in node.value:
        named = prefix in (("datasets",), ("models",))
        path = (*prefix, "<name>" if named else name.value)
        yield ".".join(path), name.start_mark.line
        if path[-1] != "classes":
            yield from yaml_keys(value, path)


def test_every_key_has_a_comment_where_it_first_occurs() -> None:
    path = ROOT / "config" / "config.yaml"
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    node = yaml.compose(text)
    assert node is not None
    commented: dict[str, bool] = {}
    for key, line in yaml_keys(node):
        above = lines[line - 1].strip() if line else ""
        commented[key] = commented.get(key, False) or "#" in lines[line] or above.startswith("#")
    headings = {key for key in commented if any(k.startswith(key + ".") for k in commented)}
    missing = sorted(key for key, there in commented.items() if not there and key not in headings)
    assert not missing, f"{path.name}: keys without a comment on their line or above: {missing}"
