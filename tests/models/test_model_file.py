"""model.pt: round trip; nothing in it is executed; damage is reported in one line."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unet.config.presets import PRESETS, AnyArchitecture, Architecture, architecture_of
from unet.errors import UserError
from unet.models.build import build
from unet.models.model_file import (
    FORMAT,
    ModelFile,
    load_model,
    load_tensors,
    save_model,
    save_tensors,
)


def model(arch: AnyArchitecture | None = None) -> ModelFile:
    arch = arch or architecture_of("unet-bn", width=2, depth=1)
    network = build(1, 2, arch, seed=4)
    return ModelFile(
        architecture=arch,
        in_channels=1,
        head=("background", "cell"),
        class_names=("background", "cell"),
        class_values=(0, 255),
        task="semantic",
        normalize={"method": "percentile", "low": 1.0, "high": 99.8},
        pixel_size_um=(0.5, 0.25),
        settings={"train": {"lr": 0.001, "patience": None}, "seed": 0},
        versions={"torch": "2"},
        score=0.5,
        step=12,
        weights=network.state_dict(),
    )


ARCHITECTURES = {
    name: architecture_of(name, width=2, depth=1)
    for name, arch in PRESETS.items()
    if isinstance(arch, Architecture)
} | {
    "ciresan2012": architecture_of("ciresan2012", window=11, stages=[[2, 2]], hidden=[3]),
    "volumes": architecture_of(
        "unet-res", width=2, depth=2, dims=3, norm="group", groups=2, max_width=4,
        kernels=[[1, 3, 3], [3, 3, 3], [3, 3, 3]], pools=[[1, 2, 2], [2, 2, 2]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_round_trip(tmp_path: Path, name: str) -> None:
    before = model(ARCHITECTURES[name])
    path = tmp_path / "deep" / "model.pt"
    save_model(path, before)
    after = load_model(path)
    assert replace(after, weights={}) == replace(before, weights={})
    assert list(after.weights) == list(before.weights)
    assert all(torch.equal(after.weights[k], before.weights[k]) for k in before.weights)
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]
    network = after.network()
    assert not network.training
    x = torch.rand(1, 1, *(fp.fit(20) for fp in network.footprint))
    with torch.no_grad():
        assert torch.equal(network(x), before.network()(x))


def test_none_and_nan_travel(tmp_path: Path) -> None:
    before = replace(model(), class_values=None, pixel_size_um=None, score=float("nan"))
    save_model(tmp_path / "m.pt", before)
    after = load_model(tmp_path / "m.pt")
    assert (after.class_values, after.pixel_size_um) == (None, None)
    assert after.score != after.score


def test_what_the_training_images_look_like(tmp_path: Path) -> None:
    """Older files do not say it, and a file without it is the same as before."""
    path = tmp_path / "m.pt"
    save_model(path, model())
    assert "appearance" not in load_tensors(path)
    assert load_model(path).appearance is None
    known = {"images": [{"levels": [[0.0, 0.5]], "polarity": [0.1]}], "sizes": [3.0, 9.5, 20.0]}
    save_model(path, replace(model(), appearance=known))
    assert load_model(path).appearance == known
    save_tensors(path, {**load_tensors(path), "appearance": "[1]"})
    with pytest.raises(UserError, match="appearance is not a mapping"):
        load_model(path)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (os.system, (f"touch {self.marker}",))


@pytest.mark.parametrize("how", ["torch", "old torch", "pickle"])
def test_a_payload_is_refused_and_not_executed(tmp_path: Path, how: str) -> None:
    path, marker = tmp_path / "model.pt", tmp_path / "executed"
    value = {"format": FORMAT, "weights": Payload(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert not marker.exists()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.pt"
    save_model(path, model())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"model\.pt: .*train it again") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_among_the_weights(tmp_path: Path) -> None:
    """torch itself does not check the checksums that it writes."""
    path = tmp_path / "model.pt"
    save_model(path, model(architecture_of("unet-bn", width=16, depth=1)))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    assert "/data/" in largest.filename
    data[largest.header_offset + 64 + largest.file_size // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"model\.pt: .*train it again"):
        load_model(path)


@pytest.mark.parametrize(
    "value",
    [
        {"format": 99},
        {"weights": {}},
        {"format": FORMAT, "architecture": {"padding": "same"}},
        {"format": FORMAT, "architecture": "unet-bn"},
        {"format": FORMAT, "architecture": {"kind": "transformer"}},
        {"format": FORMAT - 1, "architecture": model().architecture.to_json()},
        {"format": FORMAT, "architecture": {"padding": "same", "norm": "none", "colour": 3}},
        {
            "format": FORMAT,
            "architecture": model().architecture.to_json(),
            "settings": "{",
            "normalize": "",
        },
    ],
)
def test_other_files_of_tensors(tmp_path: Path, value: dict) -> None:
    save_tensors(tmp_path / "m.pt", value)
    with pytest.raises(UserError, match=r"m\.pt: not a model file"):
        load_model(tmp_path / "m.pt")


def test_nothing_there_and_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model file"):
        load_model(tmp_path / "m.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="not a model file"):
        load_tensors(tmp_path / "list.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    save_tensors(path, {"a": 1})

    class Unpicklable:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        save_tensors(path, {"a": Unpicklable()})
    assert load_tensors(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]
