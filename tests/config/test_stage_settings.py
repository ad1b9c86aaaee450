"""Each stage's settings, and which config keys change which settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unet.config.data_settings import SplitsSettings, SynthesizeSettings
from unet.config.load import load
from unet.config.recipes import RECIPES
from unet.config.run import Config, merge
from unet.config.sections import TrainSection
from unet.config.stage_settings import SETTINGS, ReportAllSettings, TrainSettings
from unet.files import canonical
from unet.planning.jobs import Run
from unet.versions import STAGES, library_versions

RAW: dict[str, Any] = {
    "output": "/somewhere/out",
    "data_root": "/somewhere/data",
    "datasets": {
        "own": {
            "images": "/somewhere/i", "labels": "/somewhere/l",
            "classes": {"sky": 1, "cell": 0}, "split": {"folds": 3, "run": [0, 2]},
        },
        "made": {"synthetic": {"kind": "nuclei"}, "task": "instances"},
    },
    "models": {"a": {"preset": "unet-bn"}, "b": {"preset": "unet2015", "train": {"patch": 188}}},
}  # fmt: skip

Settings = dict[str, str]


def text(stage: str, config: Config, *names: str) -> str:
    return canonical(SETTINGS[stage].of(config, *names).to_json())


def all_settings(config: Config) -> Settings:
    """stage:dataset[:model] -> canonical JSON."""
    found = {}
    for dataset in config.datasets:
        if config.datasets[dataset].synthetic is not None:
            found[f"synthesize:{dataset}"] = text("synthesize", config, dataset)
        for stage in ("manifest", "splits", "prepare", "evaluate", "details", "report"):
            found[f"{stage}:{dataset}"] = text(stage, config, dataset)
        for model in config.models_for(dataset):
            for stage in ("train", "predict", "stitch"):
                found[f"{stage}:{dataset}:{model}"] = text(stage, config, dataset, model)
    found["report_all"] = canonical(ReportAllSettings.of(config).to_json())
    return found


BASE = all_settings(load(RAW))


def changed(over: dict[str, Any]) -> set[str]:
    now = all_settings(load(merge(RAW, over)))
    return {key for key in set(BASE) | set(now) if BASE.get(key) != now.get(key)}


def of(*stages: str) -> set[str]:
    return {key for key in BASE if key.split(":")[0] in stages}


def test_settings_are_plain_and_contain_no_path() -> None:
    for key, text in BASE.items():
        value = json.loads(text)
        assert canonical(value) == text
        stage = key.split(":")[0].removesuffix("_all")
        assert value["version"] == STAGES[stage]
        assert "somewhere" not in text


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"report": {"confidence": 0.9}}, {"quality"}),
        ({"report": {"bootstrap": 500}}, set()),
        ({"evaluate": {"boundary_tolerance": "3 px"}}, {"compare"}),
        ({"evaluate": {"metrics": ["pixel"]}}, {"compare"}),
        # Another tool's masks have no probabilities, and topology is not among its metrics.
        ({"evaluate": {"boundary": "as-is"}}, set()),
        ({"stitch": {"threshold": 0.3}}, set()),
    ],
)
def test_stages_beside_the_line(over: dict[str, Any], expected: set[str]) -> None:
    """``config/README.md`` names them besides the key's own stage."""
    new = {"images": "/somewhere/new", "predict_with": ["own/a"]}
    compare = {"own": {"compare": {"tool": "/somewhere/masks"}}, "new": new}

    def settings(change: dict[str, Any]) -> Settings:
        config = load(merge(merge(RAW, {"datasets": compare}), change))
        where = {"quality": ("new", "a@own"), "compare": ("own",), "audit": ("own",),
                 "details": ("own",)}  # fmt: skip
        return {stage: text(stage, config, *names) for stage, names in where.items()}

    base, now = settings({}), settings(over)
    assert {stage for stage in base if base[stage] != now[stage]} == expected
    page = (Path(__file__).resolve().parents[2] / "config" / "README.md").read_text()
    for section, keys in over.items():
        for key in keys:
            row = next(r for r in page.splitlines() if r.startswith(f"| `{section}.{key}` "))
            named = row.rstrip(" |").rpartition("|")[2]
            assert {stage for stage in ("quality", "compare") if stage in named} == expected


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        # Keys that change no result are in no settings.
        ({"output": "x", "data_root": "y", "memory_gb": 9}, set()),
        ({"train": {"checkpoint_seconds": 5, "cache_gb": 1, "compile": True}}, set()),
        ({"predict": {"batch": 3}}, set()),
        ({"datasets": {"own": {"images": "elsewhere", "labels": "there"}}}, set()),
        ({"train": {"lr": 0.1}}, of("train")),
        ({"train": {"augment": {"noise": 0}}}, of("train")),
        ({"predict": {"tile": 512}}, of("predict")),
        # The overlap has an effect only if windows overlap.
        ({"predict": {"overlap": 0.25}}, set()),
        ({"predict": {"blend": "gaussian"}}, of("predict")),
        ({"predict": {"skip": {"darker_than": 5}}}, of("predict")),
        ({"stitch": {"threshold": 0.3}}, of("stitch")),
        ({"evaluate": {"boundary_tolerance": "3 px"}}, of("evaluate")),
        # Keys without effect here: only topology thins membranes, only head border has borders.
        ({"evaluate": {"boundary": "as-is", "topology_class": None}}, set()),
        ({"train": {"w0": 5, "sigma": 2, "distance_px": 4, "distance_weight": 2}}, set()),
        ({"train": {"momentum": 0.5, "plateau_patience": 2, "plateau_factor": 0.1}}, set()),
        ({"models": {"a": {"groups": 2, "border_width": 4}}}, set()),
        ({"stitch": {"min_size": 3, "geojson": True}},
         {"stitch:made:a", "stitch:made:b"}),
        ({"stitch": {"grow_px": 3, "watershed_h": 0.3}}, set()),
        ({"datasets": {"own": {"split": {"test": 0.2}}}},
         of("splits") - {"splits:made"} | {"predict:own:a", "predict:own:b", "report:own"}),
        ({"report": {"bootstrap": 500}}, {"report:own", "report:made"}),
        ({"prepare": {"tile": 64}}, of("prepare")),
        ({"strict": True}, of("manifest")),
        ({"device": "cpu"}, of("train", "predict")),
        ({"seed": 1}, of("synthesize", "splits", "train", "report")),
        ({"models": {"a": {"width": 8}}}, {"train:own:a", "train:made:a"}),
        ({"models": {"b": {"stitch": {"min_size": 0}}}}, {"stitch:made:b"}),
        ({"datasets": {"made": {"train": {"lr": 1}}}}, {"train:made:a", "train:made:b"}),
        ({"datasets": {"made": {"synthetic": {"size": 128}}}}, {"synthesize:made"}),
        ({"datasets": {"made": {"models": ["a"]}}},
         {"train:made:b", "predict:made:b", "stitch:made:b", "report:made", "report_all"}),
        # Which folds are run changes the jobs, but not which images are in a fold.
        ({"datasets": {"own": {"split": {"run": [1]}}}}, {"report:own"}),
        ({"datasets": {"own": {"split": {"val": 0.3}}}}, {"splits:own"}),
        ({"datasets": {"own": {"ignore": 7}}}, {"manifest:own", "prepare:own"}),
        ({"datasets": {"own": {"split": {"group": "(x)"}}}}, {"manifest:own", "splits:own"}),
    ],
)  # fmt: skip
def test_a_key_changes_only_its_own_settings(over: dict[str, Any], expected: set[str]) -> None:
    assert changed(over) == expected


def test_the_order_of_keys_changes_nothing() -> None:
    assert all_settings(load({key: RAW[key] for key in reversed(RAW)})) == BASE
    same = {
        **RAW,
        "train": {"lr": "1e-3", "batch": 8.0},
    }  # the defaults, written out in other words
    assert all_settings(load(same)) == BASE


def test_the_order_of_classes_is_their_index() -> None:
    turned = {"cell": 0, "sky": 1}
    raw = {**RAW, "datasets": {**RAW["datasets"]}}
    raw["datasets"]["own"] = {**RAW["datasets"]["own"], "classes": turned}
    now = all_settings(load(raw))
    assert {key for key in BASE if now[key] != BASE[key]} >= {"prepare:own", "evaluate:own"}
    assert json.loads(now["prepare:own"])["classes"] == [["cell", 0], ["sky", 1]]
    # Neither the allowed values nor the splits depend on the order.
    assert not {"manifest:own", "splits:own"} & {key for key in BASE if now[key] != BASE[key]}


def test_the_settings_of_some_stages() -> None:
    train = json.loads(BASE["train:own:b"])
    assert train["head_names"] == ["sky", "cell"]
    assert (train["architecture"]["padding"], train["architecture"]["dropout"]) == ("valid", 0.5)
    assert train["train"]["patch"] == 188
    stitch = json.loads(BASE["stitch:own:a"])
    assert (stitch["class_names"], stitch["class_values"]) == (["sky", "cell"], [1, 0])
    assert json.loads(BASE["stitch:made:a"])["class_values"] is None
    assert json.loads(BASE["report:own"])["folds"] == [0, 2]
    with pytest.raises(ValueError, match="not a generated dataset"):
        SynthesizeSettings.of(load(RAW), "own")


def test_the_run(tmp_path: Path) -> None:
    made = {"datasets": {"made": RAW["datasets"]["made"]}, "models": RAW["models"]}
    run = Run(load({**made, "output": str(tmp_path / "out")}))
    assert run.pairs == [("made", "a"), ("made", "b")]
    assert run.folds("made") == (0,)
    assert run.sources.of("made").root == tmp_path / "out" / "made" / "raw"
    assert run.settings("train", "made", "a") == BASE["train:made:a"]
    run.write_config()
    from unet.config.load import load_file

    assert load_file(tmp_path / "out" / "config.yaml") == run.config


def test_versions_of_libraries() -> None:
    found = library_versions()
    assert found["torch"].startswith("2.")
    assert "not installed" not in found.values()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_the_same_as_its_values(name: str) -> None:
    """Given by name globally or in a model, or written out in full: the same training."""
    patch = {"patch": 92}
    base: dict[str, Any] = {
        "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
        "models": {"m": {"preset": "unet2015", "depth": 2}},
        "train": patch,
    }
    spelled = load({**base, "train": {**RECIPES[name], **patch}})
    given = load({**base, "train": {"recipe": name, **patch}})
    under = {"preset": "unet2015", "depth": 2, "train": {"recipe": name, **patch}}
    of_model = load({**base, "models": {"m": under}})
    for config in (given, of_model):
        assert TrainSettings.of(config, "d", "m") == TrainSettings.of(spelled, "d", "m")
    assert TrainSettings.of(load(base), "d", "m") != TrainSettings.of(spelled, "d", "m")


def test_keys_next_to_a_recipe_override_it() -> None:
    section = TrainSection.model_validate(
        {"recipe": "ronneberger2015", "batch": 2, "augment": {"elastic_px": 3}}
    )
    assert (section.batch, section.optimizer, section.momentum) == (2, "sgd", 0.99)
    assert (section.augment.elastic_px, section.augment.noise) == (3, 0)


def test_split_val_has_no_effect_in_an_ensemble() -> None:
    ensemble = {"datasets": {"own": {"split": {"test": 0.2}}}}
    base = load(merge(RAW, ensemble))
    over = load(merge(merge(RAW, ensemble), {"datasets": {"own": {"split": {"val": 0.4}}}}))
    assert SplitsSettings.of(base, "own") == SplitsSettings.of(over, "own")


def test_a_key_has_an_effect_with_the_setting_that_it_needs() -> None:
    """The keys without effect above, each with the other setting that it needs."""
    for needed, over, stage in (
        ({"train": {"loss": "border-ce"}}, {"train": {"w0": 5}}, "train"),
        ({"train": {"loss": "border-ce"}}, {"train": {"sigma": 2}}, "train"),
        ({"train": {"loss": "boundary"}}, {"train": {"distance_px": 4}}, "train"),
        ({"train": {"optimizer": "nesterov"}}, {"train": {"momentum": 0.5}}, "train"),
        ({"train": {"schedule": "plateau"}}, {"train": {"plateau_factor": 0.1}}, "train"),
        ({"models": {"a": {"norm": "group"}}}, {"models": {"a": {"groups": 2}}}, "train"),
        ({"evaluate": {"metrics": ["topology"]}}, {"evaluate": {"boundary": "as-is"}}, "evaluate"),
        ({"evaluate": {"metrics": ["isbi2012"]}},
         {"datasets": {"own": {"evaluate": {"topology_class": "sky"}}}}, "evaluate"),
    ):  # fmt: skip
        config = merge(RAW, needed)
        before, after = all_settings(load(config)), all_settings(load(merge(config, over)))
        found = {key for key in before if before[key] != after[key]}
        assert found, over
        assert {key.split(":")[0] for key in found} == {stage}
