"""What a run was made with: changed keys of the config, and hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unet.config.load import load
from unet.config.shown_config import as_yaml, changed_keys
from unet.paths import Paths
from unet.provenance import made_by, write_sidecar
from unet.report.run_record import dataset_record, run_record

RAW = {
    "seed": 3,
    "datasets": {
        "cells": {"task": "instances", "images": "i", "labels": "l", "split": {"test": 0.4}}
    },
    "models": {"small": {"preset": "unet-bn", "width": 4}},
    "train": {"epochs": 2},
}


def test_keys_that_differ_have_their_default_beside_them() -> None:
    found = {key: (value, default) for key, value, default in changed_keys(load(RAW))}
    assert found["seed"] == ("3", "0")
    assert found["models.small.width"] == ("4", "the preset's")
    assert found["models.small.preset"] == ("unet-bn", "given")
    assert found["datasets.cells.split.test"][0] == "0.4"
    assert "train.epochs" in found
    assert "train.lr" not in found
    # A config at its defaults differs only in what must be given.
    plain = load({"datasets": RAW["datasets"], "models": {"m": {"preset": "unet-bn"}}})
    assert {key.split(".")[0] for key, _, _ in changed_keys(plain)} == {"datasets", "models"}


def test_records_have_the_hashes_of_config_inputs_and_models(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert run_record(paths).changed == run_record(paths).hashes == ()
    text = as_yaml(load(RAW))
    paths.config.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    record = run_record(paths)
    assert record.hashes == (("config", "config.yaml", digest),)
    # Written out with all keys, the config still differs in the same ones.
    assert record.changed == tuple(changed_keys(load(RAW)))
    made = {**made_by("evaluate", {}, {"cells/prepared.json": "ab"}), "models": {"m.pt": "cd"}}
    paths.metrics("cells", "small").parent.mkdir(parents=True)
    write_sidecar(paths.metrics("cells", "small"), made)
    assert dataset_record(paths, "cells", ["small", "gone"]).hashes == (
        ("config", "config.yaml", digest),
        ("input", "cells/prepared.json", "ab"),
        ("model", "m.pt", "cd"),
    )


def test_a_config_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.config.write_text("datasets: {x: <script>}\n")
    record = run_record(paths)
    assert record.changed == ()
    assert len(record.hashes) == 1
