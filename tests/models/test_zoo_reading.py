"""Reading packages: ours come back bit for bit, whatever is damaged or hostile is one line."""

from __future__ import annotations

import math
import pickle
import time
import zipfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.foreign import described, sha256, state_dict, zipped
from tests.zoo import SYSTEMS, WRITES, package, system
from unet.config.start_keys import START_FORMATS
from unet.errors import UserError
from unet.models.model_file import ModelFile
from unet.models.read_model import READERS, applied_model, read_model
from unet.models.zoo_package import own_values
from unet.models.zoo_reading import applied_in_package


def full(name: str = "unet-bn") -> ModelFile:
    """A model with all values that a model file can have."""
    model = system(name)
    return replace(
        model,
        task="instances",
        settings={"border_width": 3, "lr": 1e-05, "name": "yes", "list": [[1, 2.5], None]},
        appearance={"values": [[0.1, 1e-30], [3.0, -2.5]]},
        pixel_size_um=(0.1 + 0.2,) * model.architecture.dims,
        versions={"torch": "2.9", "train": "3"},
        score=0.1 + 0.2,
        step=1234,
    )


def by_hand(
    path: Path, model: ModelFile, told: Mapping[str, Any] | None = None, **changes: Any
) -> Path:
    """A package of ours with what is needed to read it, without the libraries that write one.

    Args:
        told: more fields of its description.
        changes: of what this pipeline needs.
    """
    content = state_dict(model.weights)
    about = {
        "format_version": "0.5.14",
        "type": "model",
        "weights": {"pytorch_state_dict": {"source": "weights.pt", "sha256": sha256(content)}},
        "config": {"unet_pipeline": {**own_values(model), **changes}},
        **(told or {}),
    }
    return zipped(path, about, {"weights.pt": content})


def check_same(found: ModelFile, model: ModelFile) -> None:
    for field in fields(ModelFile):
        one, other = getattr(found, field.name), getattr(model, field.name)
        if field.name == "weights":
            assert one.keys() == other.keys()
            for name, tensor in one.items():
                assert tensor.dtype == other[name].dtype
                assert torch.equal(tensor, other[name]), name
        else:
            assert one == other, field.name
            assert type(one) is type(other), field.name


@pytest.mark.parametrize("name", SYSTEMS)
def test_our_description_gives_the_same_model(name: str, tmp_path: Path) -> None:
    model = full(name)
    path = by_hand(tmp_path / "p.zip", model)
    check_same(applied_model(path), model)
    check_same(read_model(path), model)


@WRITES
def test_a_written_package_is_the_same_model(tmp_path: Path) -> None:
    model = full()
    check_same(applied_model(package(tmp_path / "p.bioimageio.zip", model)), model)


def test_no_score_and_no_appearance(tmp_path: Path) -> None:
    model = replace(full(), score=math.nan, appearance=None, pixel_size_um=None)
    found = applied_model(by_hand(tmp_path / "p.zip", model))
    assert math.isnan(found.score)
    assert (found.appearance, found.pixel_size_um) == (None, None)


def test_every_format_to_start_from_has_a_reader() -> None:
    assert START_FORMATS.keys() == READERS.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": ["a", "b", "c"]}, "class_names: got 2 names, but the network has 3 outputs"),
        ({"head": ["a", "b", "c"], "class_names": ["a", "b", "c"]}, "weights do not fit"),
        ({"architecture": {"kind": "unet", "depth": 3}}, "description of the network"),
        ({"architecture": {"kind": "own"}}, "description of the network"),
        ({"in_channels": 10**9}, "description of the network"),
        ({"settings": "[1]"}, "settings is not a mapping"),
        ({"settings": "{"}, "description of the network"),
        ({"normalize": None}, "description of the network is not usable .normalize: "),
        ({"architecture": "abc"}, "architecture: got 'abc', needs values by name"),
        ({"task": "abc"}, "task: got 'abc', needs semantic or instances"),
        ({"task": None}, "names that are not text"),
        ({"class_names": "abc"}, "class_names: got 'abc', needs a list"),
        ({"class_names": ["x"]}, "class_names: got 1 name, but the network has 2 outputs"),
        ({"class_values": [1]}, "class_values: got 1 value, but there are 2 classes"),
        ({"class_values": 3}, "class_values: got 3, needs a list"),
        ({"pixel_size_um": [-1, 0]}, "pixel_size_um: got .*, needs numbers above 0"),
        ({"pixel_size_um": [1, 1, 1]}, "pixel_size_um: got .*, needs 2 numbers"),
        ({"step": math.inf}, "step: "),
    ],
)
def test_a_changed_description(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = by_hand(tmp_path / "p.zip", full(), **changes)
    with pytest.raises(UserError, match=message) as error:
        applied_model(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "key", ["architecture", "in_channels", "head", "class_names", "task", "normalize"]
)
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    own = {name: value for name, value in own_values(full()).items() if name != key}
    path = by_hand(tmp_path / "p.zip", full(), {"config": {"unet_pipeline": own}})
    with pytest.raises(UserError, match=f"not usable .{key} is missing.; get the package again"):
        applied_model(path)


def test_a_hash_in_capitals(tmp_path: Path) -> None:
    content = state_dict(full().weights)
    entry = {"source": "weights.pt", "sha256": sha256(content).upper()}
    told = {"weights": {"pytorch_state_dict": entry}}
    applied_model(by_hand(tmp_path / "p.zip", full(), told))


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a folder; give the model file in it"):
        applied_model(tmp_path)


DEEP = {"width": 1, "max_width": 1, "depth": 10, "convs": 45}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        # Built, these would take minutes or fill the memory.
        ({"depth": 60}, "depth: got 60, needs a whole number from 1 to 10"),
        ({"dims": 10**9}, "dims: got 1000000000, needs a whole number from 2 to 3"),
        ({"width": 10**400}, "width: got 1000"),
        ({"groups": 10**9, "norm": "group"}, "groups"),
        (DEEP, "weights do not fit"),
        ({"kind": "window", "hidden": [1] * 2000}, "layers"),
        ({"depth": 2.0}, "depth: got 2.0"),
        ({"depth": True}, "depth: got True"),
        ({"norm_eps": math.nan}, "norm_eps: got nan, needs a number from 0 to below 1"),
        ({"norm_eps": "a"}, "norm_eps: got 'a'"),
        ({"order": "x"}, "order: got 'x', needs one of act-norm, norm-act"),
        ({"up": ["x"]}, "up: got"),
        ({"residual": 1}, "residual: got 1, needs true or false"),
        ({"kind": ["a"]}, "kind: got .*, there are: unet, window, resnet"),
    ],
)
def test_numbers_of_the_network(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    arch = full().architecture.to_json() if values.get("kind") != "window" else {}
    path = by_hand(tmp_path / "p.zip", full(), architecture={**arch, **values})
    start = time.monotonic()
    with pytest.raises(UserError, match=message) as error:
        applied_model(path)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("text", ["[]", "{", '{"tta": true}'])
def test_damaged_settings_for_objects(text: str, tmp_path: Path) -> None:
    path = by_hand(tmp_path / "p.zip", full(), applied=text)
    with pytest.raises(UserError, match="applied"):
        applied_in_package(path)


class Harmful:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_no_code_of_a_package_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "import pathlib; pathlib.Path('touched').touch()"
    for content in (pickle.dumps(Harmful()), state_dict({"a": Harmful()})):
        entry = {"source": "weights.pt", "architecture": {"source": "net.py", "callable": "N"}}
        config = {"unet_pipeline": own_values(full())}
        about = described(weights={"pytorch_state_dict": entry}, config=config)
        path = zipped(tmp_path / "p.zip", about, {"weights.pt": content, "net.py": source.encode()})
        for read in (read_model, applied_model):
            with pytest.raises(UserError, match=r"weights\.pt"):
                read(path)
    assert not (tmp_path / "touched").exists()


ENTRY = {"pytorch_state_dict": {"source": "weights.pt"}}
OURS = {"weights": ENTRY, "config": {"unet_pipeline": {}}}
BOMB = "a: &a [1, 1]\nb: [*a, *a]\n"


@pytest.mark.parametrize(
    ("about", "files", "message"),
    [
        (described(), {"../out.txt": b""}, "names a file outside"),
        (described(), {"/etc/out": b""}, "names a file outside"),
        (described(), {"..\\out": b""}, "names a file outside"),
        (described(), {"C:\\out": b""}, "names a file outside"),
        (described(), {"c:out": b""}, "names a file outside"),
        (described(**OURS), {}, r"has no file weights\.pt"),
        (
            described(**{**OURS, "weights": {"pytorch_state_dict": {"source": "../w.pt"}}}),
            {},
            "has no file",
        ),
        (
            described(**{**OURS, "weights": {"pytorch_state_dict": {"source": "https://a/w.pt"}}}),
            {},
            "nothing is downloaded",
        ),
        (
            described(
                **{
                    **OURS,
                    "weights": {"pytorch_state_dict": {"source": "weights.pt", "sha256": "0" * 64}},
                }
            ),
            {"weights.pt": b"1"},
            "sha256",
        ),
        (described(**{**OURS, "weights": {}}), {}, "names no file"),
        (BOMB, {}, "aliases"),
        ("[" * 100_000, {}, "not readable"),
        ("a: [", {}, "not readable"),
        ("!!python/object/apply:os.getcwd []", {}, "not readable"),
        ("just text", {}, "describes no model"),
        (described(type="dataset"), {}, "describes no model"),
        (described(format_version="0.4.10"), {}, "update-format"),
        (described(format_version="0.9.1"), {}, "format 0.5, or a newer version of this program"),
    ],
)
def test_hostile_packages(about: Any, files: Any, message: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "p.zip", about, files)
    with pytest.raises(UserError, match=message) as error:
        applied_model(path)
    assert "\n" not in str(error.value)
    assert [each.name for each in tmp_path.iterdir()] == ["p.zip"]


def test_a_zip_bomb(tmp_path: Path) -> None:
    zeros = bytes(70 << 20)
    path = zipped(
        tmp_path / "p.zip", described(**OURS), {"weights.pt": zeros}, zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="would expand"):
        applied_model(path)
    path = zipped(tmp_path / "p.zip", "#" * (3 << 20), {}, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="would expand"):
        applied_model(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "p.zip", full())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a zip file"):
        applied_model(path)
    place = content.index(b"weights.pt") + 2000
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(UserError, match="damaged"):
        applied_model(path)
    with pytest.raises(UserError, match="no such package"):
        applied_model(tmp_path / "none.zip")
    other = zipped(tmp_path / "other.zip", "a: 1", {})
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(UserError, match=r"no package of the BioImage Model Zoo"):
        applied_model(other)
