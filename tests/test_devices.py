"""Leases of GPUs and the choice of device and precision; no GPU is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unet.errors import UserError
from unet.models import inference

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


def test_given_precision_is_taken_as_it_is() -> None:
    cpu = torch.device("cpu")
    assert inference.choose_precision("float32", cpu) == "float32"
    assert inference.choose_precision("bfloat16", cpu) == "bfloat16"
    expected = "bfloat16" if inference.gains_by_bfloat16(cpu) else "float32"
    assert inference.choose_precision("auto", cpu) == expected
