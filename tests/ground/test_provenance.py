"""Records of what made an output: written with it, read without torch."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.models.test_model_file import model as a_model
from unet import __version__, provenance
from unet.errors import UserError
from unet.files import file_sha256, write_sentinel
from unet.models.model_file import save_model
from unet.versions import STAGES

SETTINGS = {"version": 3, "stitch": {"threshold": 0.5}, "classes": ("a", "b")}
PLAIN = {**SETTINGS, "classes": ["a", "b"]}


def test_a_sentinel_says_what_made_it(tmp_path: Path) -> None:
    without, done = tmp_path / "without.json", tmp_path / "segmentation.json"
    write_sentinel(without, 3, {"x": {"key": "k"}}, head=["a"])
    made = provenance.made_by("stitch", SETTINGS, provenance.inputs_of(tmp_path, [without]))
    write_sentinel(done, 3, {"x": {"key": "k"}}, made_by=made, head=["a"])
    found = provenance.read_made_by(done)
    assert found == {
        "software": "unet-pipeline",
        "version": __version__,
        "stage": "stitch",
        "settings": PLAIN,
        "inputs": {"without.json": json.loads(without.read_text())["content"]},
    }
    # The content id is the same with and without the record.
    assert provenance.content_id(done) == provenance.content_id(without)
    assert provenance.read_made_by(without) is None


def test_a_table_has_a_sidecar(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    table.write_text("image,value\n", encoding="utf-8")
    assert provenance.read_made_by(table) is None
    provenance.write_sidecar(table, provenance.made_by("evaluate", SETTINGS, {"a/b.json": "1"}))
    told = json.loads((tmp_path / "metrics.csv-metadata.json").read_text(encoding="utf-8"))
    assert (told["@context"], told["url"]) == ("http://www.w3.org/ns/csvw", "metrics.csv")
    found = provenance.read_made_by(table)
    assert found is not None
    assert (found["settings"], found["inputs"]) == (PLAIN, {"a/b.json": "1"})
    assert provenance.content_id(table) == file_sha256(table)


@pytest.mark.parametrize(
    ("name", "stage"),
    [("raw.json", "synthesize"), ("manifest.csv", "manifest"), ("splits.csv", "splits"),
     ("prepared.json", "prepare"), ("model.pt", "train"), ("history.csv", "train"),
     ("tiles.json", "predict"), ("tiles.shard-0.json", "predict"),
     ("tiles.shard-12.json", "predict"), ("segmentation.json", "stitch"),
     ("metrics.csv", "evaluate"), ("matches.csv", "details"),
     ("confusion.csv", "details"), ("thresholds.csv", "details"), ("quality.csv", "quality"),
     ("report.csv", "report")],
)  # fmt: skip
def test_the_stage_of_what_is_missing_is_named(tmp_path: Path, name: str, stage: str) -> None:
    assert stage in STAGES
    with pytest.raises(UserError, match=f"{name}: missing; run the {stage} stage first"):
        provenance.content_id(tmp_path / name)


@pytest.mark.parametrize("output", ["out", "compared", "compared/compared"])
def test_masks_of_other_tools_are_known_by_their_folder(tmp_path: Path, output: str) -> None:
    """Below the output folder, whatever it is called."""
    base, name = tmp_path / output, "metrics.csv"
    for path, stage in (
        (base / "d" / "compared" / "tool" / name, "compare"),
        (base / "d" / "compared" / "tool" / "fold-0" / "segmentation.json", "compare"),
        (base / "d" / "manifest.csv", "manifest"),
        (base / "d" / "splits.csv", "splits"),
        (base / "d" / "m" / name, "evaluate"),
        (base / "d" / "m" / "fold-0" / "tiles.json", "predict"),
    ):
        with pytest.raises(UserError, match=f"missing; run the {stage} stage first"):
            provenance.inputs_of(base, [path])


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"made_by": 3}', '{"made_by": {}}'])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tiles.json"
    assert provenance.read_made_by(path) is None
    path.write_text(text, encoding="utf-8")
    assert provenance.read_made_by(path) is None


def test_a_model_tells_its_settings(tmp_path: Path) -> None:
    path, other = tmp_path / "model.pt", tmp_path / "other.pt"
    model = a_model()
    save_model(path, model)
    assert provenance.read_made_by(path) == {"stage": "train", "settings": model.settings}
    # A different tensor gives another id; the file's name and time do not matter.
    other.write_bytes(path.read_bytes())
    assert provenance.content_id(other) == provenance.content_id(path)
    next(iter(model.weights.values())).flatten()[0] += 1
    save_model(other, model)
    assert provenance.content_id(other) != provenance.content_id(path)


def test_results_name_their_models_at_any_distance(tmp_path: Path) -> None:
    weights = tmp_path / "m" / "fold-0" / "model.pt"
    weights.parent.mkdir(parents=True)
    save_model(weights, a_model())
    prepared, tiles, segmented = (tmp_path / f"{n}.json" for n in ("prepared", "tiles", "seg"))
    write_sentinel(prepared, 1, {}, provenance.made_by_job(tmp_path, "prepare", {}, []))
    write_sentinel(
        tiles, 1, {}, provenance.made_by_job(tmp_path, "predict", {}, [weights, prepared])
    )
    write_sentinel(
        segmented, 1, {}, provenance.made_by_job(tmp_path, "stitch", {}, [tiles, prepared])
    )
    made = provenance.made_by_job(tmp_path, "evaluate", {}, [segmented])
    assert made["models"] == {"m/fold-0/model.pt": provenance.content_id(weights)}
    assert "models" not in (provenance.read_made_by(prepared) or {})


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('run')",)


@pytest.mark.parametrize("value", [_Harmful(), {"settings": _Harmful()}, {}, [1], b"x"])
def test_nothing_in_a_model_is_run(tmp_path: Path, value: object) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value))
    assert provenance.read_made_by(path) is None
    path.write_bytes(pickle.dumps(value))
    assert provenance.read_made_by(path) is None


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, unet.provenance\n"
        "heavy = {'torch', 'dask', 'pandas', 'zarr'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
