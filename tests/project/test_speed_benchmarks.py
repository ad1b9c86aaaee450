"""Benchmarks of stages and of training steps: what is computed from their times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import before, host_step, memory, stages


class Run:
    """A run on a number of images, of which two are not tested."""

    def __init__(self, images: int) -> None:
        self.number = images

    def images(self, stage: str) -> int:
        return self.number - 2 if stage == "evaluate" else self.number


def test_a_job_and_an_image_by_hand() -> None:
    """1.5 s and 0.25 s per image; 1 s and 0.5 s per tested image."""
    few: Any = Run(4)
    many: Any = Run(10)
    times = [{"prepare": 2.5, "evaluate grow": 2.0}, {"prepare": 4.0, "evaluate grow": 5.0}]
    assert stages.per_image(few, many, times) == {
        "prepare": {"each": 0.25, "once": 1.5},
        "evaluate grow": {"each": 0.5, "once": 1.0},
    }


def test_the_table_of_stages_by_hand() -> None:
    now: Any = {
        "prepare": {"each": 0.5, "once": 20.0, "rounds": [0.4, 0.5, 0.6]},
        "audit": {"each": 2.0, "once": 1.0, "rounds": [1.7, 2.0, 2.1]},
    }
    result: Any = {"size": 1000, "network": 0.25, "stages": {"now": now}}
    assert stages.table(result).splitlines()[2:] == [
        "| prepare | 0.50 | 2.0 | 9 min |",
        "| audit | 2.00 | 0.5 | 33 min |",
        "| the network alone | 0.25 | 4.0 | 4 min |",
    ]
    result["stages"]["before"] = {
        "prepare": {"each": 1.5, "once": 20.0, "rounds": [1.4, 1.5, 1.6]},
        "audit": {"each": 1.0, "once": 1.0, "rounds": [0.9, 1.0, 1.8]},
    }
    assert stages.table(result).splitlines()[2:] == [
        "| prepare | 0.50 | 2.0 | 9 min | 1.50 | 3.00 |",
        "| audit | 2.00 | 0.5 | 33 min | 1.00 | ~ |",
        "| the network alone | 0.25 | 4.0 | 4 min |  |  |",
    ]


def test_the_table_of_steps_by_hand() -> None:
    rows = [
        {"batch": 4, "device, ms": None, "code": "now", "cutting, ms": 1.5, "copies": 1},
        {"batch": 4, "device, ms": 8.0, "code": "now", "step, ms": 9.25, "asking, ms": 7.0},
    ]
    assert host_step.table({"rows": rows}).splitlines() == [
        "| code | batch | cutting, ms | copies | step, ms, device 8 ms | asking, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| now | 4 | 1.5 | 1 | 9.25 | 7 |",
    ]


def test_the_masks_and_scores_are_compared(tmp_path: Path) -> None:
    found = []
    for name, value in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        run = stages.Workflow(tmp_path, tmp_path / name, 4, 64, 4, ["grow"])
        masks = run.paths.masks(stages.DATASET, "grow", 0)
        masks.mkdir(parents=True)
        (masks / "x.tif").write_bytes(value)
        for path in (
            run.paths.metrics(stages.DATASET, "grow"),
            run.paths.objects(stages.DATASET, "grow", 0),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"same")
        found.append(run.content())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("way", host_step.WAYS[1:])
def test_a_step_on_a_clock(way: str) -> None:
    """The device takes 40 ms: a step takes as long, whatever the thread that asks for it does."""
    found = host_step.child(host_step.ROOT, way, 2, 40.0)
    assert found["step, ms"] > 39
    assert found["asking, ms"] > 0
    assert 0 < found["augmentation, ms"] < found["asking, ms"]
    cut = host_step.child(host_step.ROOT, way, 2, None)
    assert cut["copies"] == 1
    # Two patches of 256 px, in float32 with a target of a byte each; or their places.
    pixels = 2 * 256 * 256
    assert (cut["MB copied"] > 5e-6 * pixels) == (way == "now")


def test_the_ratios_to_older_code_by_hand() -> None:
    """Less is better: 3 s before and 2 s now are 1.5 times as fast."""
    figures = {"train, default, s/image": {"before": [1.0, 3.0, 9.0], "now": [1.5, 2.0, 2.5]}}
    assert before.table({"figures": figures}).splitlines()[2:] == [
        "| train, default, s/image | 3 | 2 | 1.50 |"
    ]
    assert before.of_training({"cases": {"ours, default": {"images per second": 4.0}}}) == {
        "train, default, s/image": 0.25
    }


def test_codes_run_in_turn_and_begin_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure that only one of the codes has is left out."""
    seen = []

    def run(name: str, tree: Path, work: Path) -> dict[str, float]:
        seen.append(tree.name)
        return {"a": float(len(seen)), f"only {tree.name}": 1.0}

    monkeypatch.setattr(before, "run", run)
    trees = {"before": Path("old"), "now": Path("new")}
    assert before.measured(["train"], trees, 2, tmp_path) == {
        "a": {"before": [1.0, 4.0], "now": [2.0, 3.0]}
    }
    assert seen == ["old", "new", "new", "old"]


@pytest.mark.workflow
def test_the_benchmark_of_memory_runs(tmp_path: Path) -> None:
    """The stages accept the model that it makes."""
    out = tmp_path / "memory.json"
    sizes = ["--sides", "256", "--width", "2", "--depth", "1"]
    assert memory.main([*sizes, "--work", str(tmp_path / "work"), "--out", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))["sides"]["256"]
    assert set(found) == {"predict", "stitch", "evaluate", "objects"}
    assert found["objects"]["count"] > 0
