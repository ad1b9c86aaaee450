"""What jobs record about their GPUs, with a fake GPU: the stages compute on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.prediction.test_predict import data_of as prediction_data
from tests.prediction.test_predict import model
from tests.trainings import data_of, outputs_of, settings_of
from unet.config.sections import PredictSection
from unet.config.stage_settings import PredictSettings
from unet.models.gpu_meter import GpuMeter
from unet.prediction.tiles.ensemble import Member
from unet.prediction.tiles.predict import predict_fold
from unet.prediction.tiles.predict_loop import run_here
from unet.prediction.tiles.prediction_job import PredictionResources
from unet.training.train import train_fold
from unet.training.training_job import TrainingResources

CUDA = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A GPU whose peak is 1.5 GiB, 2 GiB for the second one; returns those that were reset."""
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(
        torch.cuda, "max_memory_allocated", lambda d: (2 if d.index == 1 else 1.5) * 2**30
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A fake GPU")
    return reset


class AnyDevice(GpuMeter):
    """Takes any device for a GPU."""

    def begin(self, devices: Any) -> None:
        super().begin([CUDA for _ in devices])


def written(meter: GpuMeter, path: Path) -> Any:
    meter.write(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def test_times_add_up_and_the_largest_peak_counts(tmp_path: Path, gpu: Any) -> None:
    meter = GpuMeter()
    devices = [torch.device("cuda", 0), torch.device("cuda", 1)]
    meter.begin(devices)
    meter.add(10, 7.5)
    meter.add(2, 2.5)  # clocks are read at different moments
    path = tmp_path / "benchmarks/train/d.gpu.json"
    assert written(meter, path) == {
        "name": "A fake GPU", "gpus": 2, "seconds": 12, "busy_seconds": 9.5, "memory_mib": 2048,
    }  # fmt: skip
    assert gpu == devices


def test_a_job_without_a_gpu_removes_the_record_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "d.gpu.json"
    meter = GpuMeter()
    meter.begin([torch.device("cpu")])
    meter.add(10, 7.5)
    assert written(meter, path) is None
    path.write_text("{}")
    assert written(meter, path) is None


def test_a_job_that_computed_nothing_has_no_record(tmp_path: Path, gpu: Any) -> None:
    meter = GpuMeter()
    meter.begin([CUDA])
    meter.add(0.1, 0)
    assert written(meter, tmp_path / "x.gpu.json") is None


def test_training_is_measured(make_store: Any, tmp_path: Path, gpu: Any) -> None:
    paths, sentinel = make_store([(40, 40)] * 3)
    meter = AnyDevice()
    args = (data_of(paths, sentinel), settings_of(), 0, outputs_of(paths))
    train_fold(*args, TrainingResources(threads=1, meter=meter))
    found = written(meter, tmp_path / "a.gpu.json")
    assert 0 < found["busy_seconds"] <= found["seconds"]
    assert found["memory_mib"] == 1536
    assert gpu == [CUDA]
    # Restored, not trained.
    meter = AnyDevice()
    train_fold(*args, TrainingResources(threads=1, meter=meter))
    assert written(meter, tmp_path / "a.gpu.json") is None


def test_prediction_is_measured_unless_it_runs_elsewhere(
    make_store: Any, tmp_path: Path, gpu: Any
) -> None:
    store = make_store([(48, 56)] * 4)

    def record(key: str, **options: Any) -> Any:
        meter = AnyDevice()
        predict_fold(
            prediction_data(store, [Member(Path("m.pt"), model(), key)], {"c": "val", "d": "test"}),
            PredictSettings.made(predict=PredictSection(tile=40), device="cpu"),
            PredictionResources(1, 1e9, 1, meter=meter),
            **options,
        )
        return written(meter, tmp_path / "a.gpu.json")

    found = record("one")
    assert 0 < found["busy_seconds"] <= found["seconds"]
    assert record("one") is None  # all tiles were there
    assert record("two", run=run_here) is None
