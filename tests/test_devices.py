"""Leases of GPUs and the choice of device and precision; no GPU is needed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainings import trainer
from unet.errors import UserError
from unet.models import engines, inference
from unet.models.build import build
from unet.models.presets import architecture_of
from unet.training.trainer import _sameness

ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys, time
from pathlib import Path
from unet.models.inference import lease_gpu
print(lease_gpu(2, Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def test_two_processes_get_two_gpus_and_a_killed_one_gives_its_back(tmp_path: Path) -> None:
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        held = {job: int(job.stdout.readline() if job.stdout else "") for job in jobs}
        assert sorted(held.values()) == [0, 1]
        jobs[0].kill()
        jobs[0].wait()
        # Waits until the kernel has released the lock; the other one stays taken.
        assert inference.lease_gpu(2, tmp_path, poll_seconds=0.01) == held[jobs[0]]
    finally:
        for job in jobs:
            job.kill()
            job.wait()
            if job.stdout:
                job.stdout.close()
        inference._leases.pop().close()


def test_cuda_without_a_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no usable GPU; write auto"):
        inference.choose_device("cuda")
    assert inference.choose_device("auto") == torch.device("cpu")


def test_several_gpus_are_leased_unless_a_scheduler_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(inference, "lease_gpu", lambda count: count - 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert inference.choose_device("auto") == torch.device("cuda", 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert inference.choose_device("auto") == torch.device("cuda")


def four_gpus(monkeypatch: pytest.MonkeyPatch, capability: int = 8) -> list[int]:
    """A machine that has them; the list is of those made current."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    return current


def test_processes_that_train_together_use_the_gpu_that_they_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = four_gpus(monkeypatch)
    monkeypatch.setattr(inference, "lease_gpu", lambda count: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # Another job has the first GPU: the lease says which one, for tensors and for nccl.
    assert inference.choose_device("auto", local_rank=0) == torch.device("cuda", 3)
    assert current == [3]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert inference.choose_device("cuda", local_rank=1) == torch.device("cuda", 1)
    assert current == [3, 1]
    assert inference.choose_device("cpu", local_rank=1) == torch.device("cpu")


def test_more_processes_than_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    four_gpus(monkeypatch)
    inference.check_gpus("auto", 4)
    inference.check_gpus("cpu", 8)
    with pytest.raises(UserError, match="8 are asked for, this job sees 4; write 4"):
        inference.check_gpus("auto", 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    inference.check_gpus("auto", 8)


def tf32_settings() -> list[bool]:
    return [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]


def test_float32_is_no_tf32_and_the_settings_come_back() -> None:
    before = tf32_settings()
    with engines.tf32(False):
        assert tf32_settings() == [False, False]
        with engines.tf32(False):
            pass
        assert tf32_settings() == [False, False]
    assert tf32_settings() == before
    with engines.tf32(True):
        assert tf32_settings() == [True, True]
    assert tf32_settings() == before


def test_no_thread_takes_the_setting_from_another() -> None:
    before, here, leave = tf32_settings(), threading.Event(), threading.Event()

    def other() -> None:
        with engines.tf32(False):
            here.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    here.wait(30)
    with engines.tf32(False):
        pass
    assert tf32_settings() == [False, False]
    leave.set()
    thread.join()
    assert tf32_settings() == before


@pytest.mark.parametrize("tta", [False, True])
def test_networks_compute_without_tf32(monkeypatch: pytest.MonkeyPatch, tta: bool) -> None:
    seen: list[list[bool]] = []
    network = build(1, 2, architecture_of("unet-bn", width=2, depth=1), 0)
    network.register_forward_hook(lambda *_: seen.append(tf32_settings()))
    predictor = inference.Predictor([network], torch.device("cpu"), "float32", tta)
    predictor(np.zeros((1, 1, 32, 32), np.float32))
    assert seen == [[False, False]] * (8 if tta else 1)


def test_training_computes_both_passes_without_tf32(tmp_path: Path) -> None:
    seen: list[list[bool]] = []
    training = trainer(tmp_path, epochs=1)
    training.network.register_forward_hook(lambda *_: seen.append(tf32_settings()))
    for weights in training.network.parameters():
        weights.register_hook(lambda g: seen.append(tf32_settings()))
    training.run()
    assert len(seen) > 8
    assert set(map(tuple, seen)) == {(False, False)}


def test_tf32_needs_a_device_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="tf32 needs a GPU of compute capability"):
        inference.choose_precision("tf32", torch.device("cpu"))
    four_gpus(monkeypatch)
    assert inference.choose_precision("tf32", torch.device("cuda")) == "tf32"
    four_gpus(monkeypatch, capability=7)
    with pytest.raises(UserError, match="write float32 or auto"):
        inference.choose_precision("tf32", torch.device("cuda"))


def test_given_precision_is_taken_as_it_is() -> None:
    cpu = torch.device("cpu")
    assert inference.choose_precision("float32", cpu) == "float32"
    assert inference.choose_precision("bfloat16", cpu) == "bfloat16"
    expected = "bfloat16" if inference.gains_by_bfloat16(cpu) else "float32"
    assert inference.choose_precision("auto", cpu) == expected


def test_how_near_two_trainings_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log promises of a training that goes on with activations computed twice."""
    assert _sameness(torch.device("cpu")) == "the same"
    assert "but for rounding" in _sameness(torch.device("cuda"))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert _sameness(torch.device("cuda")) == "the same"
