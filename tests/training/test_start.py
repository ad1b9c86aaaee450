"""Trainings that start from trained weights: what is taken, what stays, what is said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainings import ARCH, data_of, history, outputs_of, same_weights, settings_of, train
from unet.config.presets import Architecture, architecture_of
from unet.config.resnet import ResNetArchitecture
from unet.config.sections import TrainSection
from unet.config.start_keys import START_FORMATS
from unet.data.records import ImageRecord, SplitRecord
from unet.errors import UserError
from unet.models.build import build
from unet.models.model_file import ModelFile, load_model, save_model
from unet.models.network import Network
from unet.models.norms import BatchNorm
from unet.models.read_model import READERS, read_model
from unet.provenance import content_id
from unet.training.progress import Stopped
from unet.training.start.fitted_weights import take_weights
from unet.training.start.shared_images import shared_images, shared_line
from unet.training.start.start_differences import StartSide, differences
from unet.training.start.started import put_weights, side_of, worse_than_start
from unet.training.train import train_fold, training_key
from unet.training.training_job import StartFile, TrainingResources

NAMES = ("background", "foreground")


def start_of(arch: Any = ARCH, channels: int = 1, head: tuple[str, ...] = NAMES) -> ModelFile:
    """A model with random weights and statistics."""
    network = build(channels, len(head), arch, seed=7)
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.rand(tensor.shape, generator=generator) + 0.5
        if tensor.is_floating_point()
        else tensor
        for name, tensor in network.state_dict().items()
    }
    return ModelFile(
        arch, channels, head, head, None, "instances", {}, (0.5, 0.5), {}, {}, 0.5, 9, weights
    )


def taken(start: ModelFile, network: Network, head: tuple[str, ...] = NAMES) -> Any:
    return take_weights(start, network, head)


def run(make_store: Any, start: Path | None, name: str = "m", **keys: Any) -> Any:
    """A training of the store's dataset; the model, the history, and start.json."""
    paths, sentinel = make_store()
    data = data_of(paths, sentinel)
    if start is not None:
        keys = {"from": "file.pt", **keys}
        data = replace(data, start=StartFile(start, content_id(start)))
    outputs = outputs_of(paths, name)
    train_fold(data, settings_of(**keys), 0, outputs, TrainingResources(threads=1))
    about = json.loads(outputs.start.read_text()) if start is not None else None
    return load_model(outputs.model), history(paths, name), about


# Which weights are taken.


@pytest.mark.parametrize("preset", ["unet-bn", "unet2015", "unet-res"])
def test_the_same_network_takes_everything(preset: str) -> None:
    arch = architecture_of(preset, width=2, depth=2)
    start, network = start_of(arch), build(1, 2, arch)
    found = taken(start, network)
    assert (found.new, found.adapted, found.left_out) == ((), (), ())
    assert all(torch.equal(t, start.weights[k]) for k, t in network.state_dict().items())


def test_other_classes_give_the_last_layer_random_weights() -> None:
    start, network = start_of(), build(1, 3, ARCH)
    before = network.heads[0].weight.clone()  # type: ignore[union-attr, operator]
    found = taken(start, network, ("background", "membrane", "nucleus"))
    assert found.new == ("heads.0",)
    assert found.left_out == ("heads.0",)
    assert torch.equal(network.heads[0].weight, before)  # type: ignore[arg-type]
    # As many classes, but other ones.
    assert taken(start_of(), build(1, 2, ARCH), ("background", "membrane")).new == ("heads.0",)


@given(old=st.integers(1, 4), new=st.integers(1, 4), residual=st.booleans())
def test_other_channels_adapt_the_first_layer(old: int, new: int, residual: bool) -> None:
    arch = replace(ARCH, residual=residual, width=5)
    assert isinstance(arch, Architecture)
    start, network = start_of(arch, old), build(new, 2, arch)
    found = taken(start, network)
    first = ("down.0.convs.0", *(["down.0.shortcut.0"] if residual else []))
    assert set(found.adapted) == (set(first) if old != new else set())
    assert found.new == ()
    # An image whose channels are all equal gives what the start computes.
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        ours = network.eval()(image.expand(-1, new, -1, -1))
        theirs = start.network()(image.expand(-1, old, -1, -1))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_new_or_left_out() -> None:
    start = start_of(architecture_of("unet-bn", width=2, depth=2))
    network = build(1, 2, ARCH)
    found = taken(start, network)
    assert "down.0.convs.0" in found.taken
    assert "down.1.convs.0" in found.left_out
    every = {name.rpartition(".")[0] for name in network.state_dict()}
    assert {*found.taken, *found.new, *found.adapted} == every


def test_nothing_fits() -> None:
    start = start_of(architecture_of("unet-bn", width=4, depth=1))
    with pytest.raises(UserError, match=r"train\.from: no layer of the start fits") as error:
        taken(start, build(1, 2, ARCH), ("background", "membrane"))
    assert "\n" not in str(error.value)


def test_formats() -> None:
    assert READERS.keys() == START_FORMATS.keys()
    with pytest.raises(UserError, match=r"a\.h5: no model file"):
        read_model(Path("a.h5"))


# What stays.


def section(**keys: Any) -> TrainSection:
    return TrainSection.model_validate({"from": "file.pt", **keys})


def test_freeze_names_layers_that_are_new() -> None:
    start = start_of(architecture_of("unet-bn", width=2, depth=1, convs=1))
    own = StartSide(head=NAMES)
    with pytest.raises(UserError, match=r"freeze: down\.0\.convs\.1 does not come from the start"):
        put_weights(start, build(1, 2, ARCH), own, section(freeze=1))
    with pytest.raises(UserError, match="has 1; write at most 1"):
        put_weights(start_of(), build(1, 2, ARCH), own, section(freeze=2))


RESNET = ResNetArchitecture(encoder="resnet18", decoder=(4, 4, 4, 4, 4))


@pytest.mark.parametrize("arch", [architecture_of("unet-bn", width=2, depth=3), RESNET])
def test_all_levels_of_the_contracting_path_can_be_frozen(arch: Any) -> None:
    network = build(1, 2, arch)
    assert len(network.levels) == arch.depth
    started = put_weights(start_of(arch), network, StartSide(head=NAMES),
                          section(freeze=arch.depth))  # fmt: skip
    path = ("encoder.",) if arch == RESNET else tuple(f"down.{n}." for n in range(arch.depth))
    for name, weights in network.named_parameters():
        assert weights.requires_grad != name.startswith(path)
    # The running statistics stay, too.
    network.train()
    started.keep()
    network(torch.rand(2, 1, 64, 64))
    after, start = network.state_dict(), start_of(arch).weights
    moved = {name for name in after if not torch.equal(after[name], start[name])}
    assert moved
    assert not any(name.startswith(path) for name in moved)


def test_the_levels_of_a_resnet_are_frozen_from_the_finest() -> None:
    start, own = start_of(RESNET), StartSide(head=NAMES)
    network = build(1, 2, RESNET)
    put_weights(start, network, own, section(freeze=2))
    frozen = {name for name, weights in network.named_parameters() if not weights.requires_grad}
    parts = {".".join(name.split(".")[:2]) for name in frozen}
    assert parts == {"encoder.conv1", "encoder.bn1", "encoder.layer1"}
    # The first stage of a larger ResNet has blocks that the start lacks.
    larger = build(1, 2, replace(RESNET, encoder="resnet34"))
    with pytest.raises(UserError, match=r"freeze: encoder\.layer1\.2\.conv1 does not .* write 1"):
        put_weights(start, larger, own, section(freeze=2))
    with pytest.raises(UserError, match="has 5; write at most 5"):
        put_weights(start, network, own, section(freeze=6))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_frozen_levels_and_statistics(make_store, tmp_path: Path, norm: str) -> None:  # type: ignore[no-untyped-def]
    arch = replace(ARCH, norm=norm)
    paths, sentinel = make_store()
    train(paths, sentinel, "first", arch=arch)
    path = paths.model("d", "first", 0)
    start = load_model(path)

    def changed(name: str, **keys: Any) -> set[str]:
        # Without validation images the last weights are kept, not the best.
        data = replace(data_of(paths, sentinel, val=""), start=StartFile(path, content_id(path)))
        outputs = outputs_of(paths, name)
        given = settings_of(**{"from": "file.pt", "arch": arch, **keys})
        train_fold(data, given, 0, outputs, TrainingResources(threads=1))
        weights = load_model(outputs.model).weights
        return {k for k, t in weights.items() if not torch.equal(t, start.weights[k])}

    frozen = changed("frozen", freeze=1)
    assert frozen
    assert not any(name.startswith("down.0.") for name in frozen)
    assert any(name.startswith("bridge.") and "running" in name for name in frozen)
    kept = changed("kept", norm_statistics="keep")
    assert kept
    assert not any("running" in name for name in kept)
    assert any("norms" in name for name in kept)
    assert any("down.0" in name and "running" in name for name in changed("continued"))


def test_statistics_are_reset_after_the_start_was_scored() -> None:
    network = build(1, 2, ARCH)
    started = put_weights(start_of(), network, StartSide(head=NAMES), section(
        norm_statistics="reset"))  # fmt: skip
    norms = [m for m in network.modules() if isinstance(m, BatchNorm)]
    assert all(float(m.running_mean.min()) >= 0.5 for m in norms if m.running_mean is not None)
    started.renew()
    assert all(not m.running_mean.any() for m in norms if m.running_mean is not None)


# The training.


def test_no_step_gives_the_start_itself(make_store) -> None:  # type: ignore[no-untyped-def]
    paths, sentinel = make_store()
    first, _ = train(paths, sentinel, "first")
    model, rows, about = run(make_store, paths.model("d", "first", 0), epochs=0)
    assert same_weights(model, first)
    assert [row["epoch"] for row in rows] == ["0"]
    assert model.score == about["validation_score"]["start"]
    assert about["validation_score"]["best"] is None
    assert about["warnings"] == []


def test_the_start_is_validated_first_and_kept_if_nothing_is_better(make_store) -> None:  # type: ignore[no-untyped-def]
    paths, sentinel = make_store()
    first, before = train(paths, sentinel, "first", epochs=8, lr=0.02)
    best = max(float(row["val_score"]) for row in before)
    # A rate that breaks the weights.
    model, rows, about = run(make_store, paths.model("d", "first", 0), lr=30.0, optimizer="sgd",
                             clip_norm=None, loss="dice", epochs=1)  # fmt: skip
    assert float(rows[0]["val_score"]) == pytest.approx(best, abs=1e-5)
    assert float(rows[1]["val_score"]) < best
    assert same_weights(model, first)
    assert model.step == 0
    (line,) = about["warnings"]
    assert line.startswith("training did not improve on its start: validation score")


def row(epoch: int, score: float) -> dict[str, float]:
    return {"epoch": epoch, "val_score": score}


def test_a_training_that_ends_worse_than_it_began_says_so() -> None:
    assert worse_than_start(0.5, [row(1, 0.6), row(2, 0.55)]) == []
    (line,) = worse_than_start(0.5, [row(1, 0.6), row(2, 0.4)])
    assert "ended worse than it began: validation score 0.500" in line
    assert "epoch 1" in line
    (line,) = worse_than_start(0.5, [row(1, 0.4)])
    assert "model.pt has the start's weights" in line
    assert worse_than_start(math.nan, [row(1, 0.4)]) == []
    assert worse_than_start(0.5, [row(1, math.nan)]) == []


def test_the_advice_for_a_random_last_layer_is_to_train_more() -> None:
    assert worse_than_start(0.5, [row(1, 0.6), row(2, 0.4)], True) == []
    (line,) = worse_than_start(0.5, [row(1, 0.4)], True)
    assert "did not improve on a random last layer" in line
    assert "write more train.epochs, or a larger train.lr" in line
    assert "the start's weights" not in line


def other_head(make_store: Any) -> Path:
    """A trained model with other outputs than the store's."""
    paths, sentinel = make_store()
    train(paths, sentinel, "first")
    path = paths.model("d", "first", 0)
    save_model(path, replace(load_model(path), head=("background", "other")))
    return path


def test_a_random_last_layer_is_never_kept(make_store) -> None:  # type: ignore[no-untyped-def]
    start = other_head(make_store)
    # Too slow to change a score.
    model, rows, about = run(make_store, start, lr=1e-12, norm_statistics="keep", epochs=2)
    assert [each["epoch"] for each in rows] == ["1", "2"]
    assert model.step > 0
    assert about["random_outputs"]
    assert about["layers"]["new"] == ["heads.0"]
    assert about["validation_score"]["start"] == about["validation_score"]["best"]
    assert about["warnings"][-1].startswith("training did not improve on a random last layer")
    # Without any step there is nothing else to keep.
    model, rows, _ = run(make_store, start, "none", epochs=0)
    assert [each["epoch"] for each in rows] == ["0"]


def test_a_random_last_layer_is_scored_once(make_store, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    start = other_head(make_store)
    keys = {"norm_statistics": "reset", "epochs": 2}
    whole, _, about = run(make_store, start, "whole", **keys)
    stop_at(monkeypatch, 2)
    with pytest.raises(Stopped):
        run(make_store, start, "killed", **keys)
    monkeypatch.undo()
    again, _, later = run(make_store, start, "killed", **keys)
    assert same_weights(again, whole)
    assert later == about


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Trainings stop after this step."""
    from unet.training.trainer import Trainer

    step = Trainer._step

    def stopping(self: Trainer, batches: Any) -> float:
        if self.progress.step == number:
            self._save()
            raise Stopped("here")
        return step(self, batches)

    monkeypatch.setattr(Trainer, "_step", stopping)


def test_a_killed_training_goes_on_with_the_same_weights(make_store, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    paths, sentinel = make_store()
    train(paths, sentinel, "first")
    path = paths.model("d", "first", 0)
    whole, rows, _ = run(make_store, path, "whole", norm_statistics="reset", ema=0.9)
    stop_at(monkeypatch, 5)
    with pytest.raises(Stopped):
        run(make_store, path, "killed", norm_statistics="reset", ema=0.9)
    monkeypatch.undo()
    again, later, _ = run(make_store, path, "killed", norm_statistics="reset", ema=0.9)
    assert same_weights(again, whole)
    assert [r["val_score"] for r in later] == [r["val_score"] for r in rows]


def test_the_key_of_a_training_has_its_start(make_store) -> None:  # type: ignore[no-untyped-def]
    paths, sentinel = make_store()
    data, settings = data_of(paths, sentinel), settings_of(**{"from": "d/first"})
    keys = {
        training_key(settings, replace(data, start=start))
        for start in (None, StartFile(Path("x"), "1"), StartFile(Path("x"), "2"))
    }
    assert len(keys) == 3
    moved = replace(data, start=StartFile(Path("y"), "1"))
    assert training_key(settings, moved) in keys


def test_preset_auto_takes_the_network_of_the_start(make_store) -> None:  # type: ignore[no-untyped-def]
    paths, sentinel = make_store()
    train(paths, sentinel, "first")
    model, _, about = run(make_store, paths.model("d", "first", 0), arch=None, epochs=1)
    assert model.architecture == ARCH
    assert about["layers"]["new"] == []
    assert not outputs_of(paths).plan.exists()


# What differs.


def test_the_same_start_differs_in_nothing() -> None:
    side = side_of(start_of())
    assert differences(side, side) == []
    assert differences(StartSide(), side) == []
    # The statistics of images, and keys at their default.
    other = replace(side, normalize={"statistics": {"mean": 1}})
    assert differences(side, other) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": replace(ARCH, width=4)}, "width: 2 (here 4)"),
        ({"architecture": architecture_of("ciresan2012")}, "another kind of network"),
        ({"task": "semantic"}, "task instances, this one is for semantic"),
        ({"head": ("background", "x")}, "here they are background, x"),
        ({"channels": 3}, "these have 3; the first layer is adapted"),
        ({"pixel_size_um": (0.25, 0.25)}, "objects look 2 times as large or small"),
        ({"normalize": {"method": "none"}}, "(here none); write the same in prepare.normalize"),
    ],
)
def test_a_difference_is_one_line(change: dict[str, Any], said: str) -> None:
    side = side_of(start_of())
    (line,) = differences(side, replace(side, **change))
    assert said in line
    assert "\n" not in line


# Images that the start has seen.


def test_test_images_that_the_start_was_trained_on() -> None:
    own = [ImageRecord(f"o{n}", f"o{n}.tif", sha256=f"hash{n}") for n in range(4)]
    other = [ImageRecord(f"s{n}", f"s{n}.tif", sha256=f"hash{n}") for n in range(3)]
    other.append(ImageRecord("s3", "s3.tif"))  # an early version noted no hash
    parts = {"s0": "train", "s1": "val", "s2": "test", "s3": "train"}
    splits = [SplitRecord(image, 0, part) for image, part in parts.items()]
    splits += [SplitRecord("s2", 1, "train")]
    tested = ["o0", "o1", "o2", "o3"]
    assert shared_images(own, tested, other, splits, 0) == ["o0", "o1"]
    assert shared_images(own, tested, other, splits, 1) == ["o2"]
    assert shared_images(own, ["o2"], other, splits, 0) == []
    assert "2 of the test images (o0 and 1 more)" in shared_line(["o0", "o1"])
