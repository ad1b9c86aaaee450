"""Leases of GPUs and the choice of device and precision; needs no GPU."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import pytest
import torch

from tests.trainings import trainer
from unet.config.presets import architecture_of
from unet.errors import UserError
from unet.models import devices, engines
from unet.models.build import build
from unet.models.inference import Predictor
from unet.training.less_memory import reproducibility

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from unet.models.devices import lease_gpus
print(*lease_gpus(2, int(sys.argv[2]), Path(sys.argv[1]), 0.01), flush=True)
time.sleep(float(sys.argv[3]))
"""


@contextmanager
def holders(folder: Path, *wanted: int, seconds: float = 60) -> Iterator[list[Popen[str]]]:
    """Processes that each lease this many of two GPUs, print them and keep them."""
    words = [[str(folder), str(number), str(seconds)] for number in wanted]
    jobs = [
        Popen([sys.executable, "-c", HOLD, *w], cwd=ROOT, stdout=PIPE, text=True) for w in words
    ]
    try:
        yield jobs
    finally:
        for job in jobs:
            job.kill()
            job.wait()
            if job.stdout:
                job.stdout.close()
        while devices._leases:
            devices._leases.pop().close()


def line(job: Popen[str]) -> str:
    return job.stdout.readline().strip() if job.stdout else ""


def test_two_processes_get_two_gpus_and_a_killed_one_gives_its_back(tmp_path: Path) -> None:
    with holders(tmp_path, 1, 1) as jobs:
        held = {job: int(line(job)) for job in jobs}
        assert sorted(held.values()) == [0, 1]
        jobs[0].kill()
        jobs[0].wait()
        # Waits until the kernel has released the lock; the other one stays taken.
        assert devices.lease_gpus(2, folder=tmp_path, poll_seconds=0.01) == [held[jobs[0]]]


def test_two_jobs_of_two_gpus_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """The GPUs become free one after the other, so that each job could take one."""
    first, second = (ExitStack() for _ in range(2))
    with first, second:
        assert devices._take(tmp_path, "0", first)
        assert devices._take(tmp_path, "1", second)
        with holders(tmp_path, 2, 2, seconds=0.2) as jobs:
            time.sleep(0.5)
            first.close()
            time.sleep(0.5)
            second.close()
            assert [line(job) for job in jobs] == ["0 1", "0 1"]
            assert [job.wait(60) for job in jobs] == [0, 0]


def test_a_job_of_one_gpu_does_not_overtake_one_of_two(tmp_path: Path) -> None:
    with holders(tmp_path, 1) as one:
        assert line(one[0]) == "0"
        with holders(tmp_path, 2) as two:
            while _takes(tmp_path, "turn"):
                time.sleep(0.01)
            with holders(tmp_path, 1) as last:
                one[0].kill()
                assert line(two[0]) == "0 1"
                two[0].kill()
                assert line(last[0]) == "0"


def _takes(folder: Path, name: str) -> bool:
    with ExitStack() as held:
        return devices._take(folder, name, held)


LAUNCH = """
import os, sys, torch
from pathlib import Path
from unet.models import devices
from unet.training import launch
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 3
launch.launch(Path(sys.argv[1]), ["a", "--log", "b"], "auto", 2)
"""
TOLD = """
import os, sys
words = [os.environ["LOCAL_RANK"], os.environ["CUDA_VISIBLE_DEVICES"], *sys.argv[1:]]
# At once: the other process writes into the same pipe.
os.write(1, (" ".join(words) + chr(10)).encode())
sys.stdin.readline()
"""


def test_gpus_of_processes_that_train_together_are_taken_before_they_start(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(TOLD)
    env = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    env |= {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with ExitStack() as other:
        assert devices._take(tmp_path, "1", other)  # another job's
        with Popen(
            [sys.executable, "-c", LAUNCH, str(script)],
            cwd=ROOT, env=env, stdin=PIPE, stdout=PIPE, text=True,
        ) as job:  # fmt: skip
            assert sorted([line(job), line(job)]) == ["0 0,2 a --log b", "1 0,2 a --log b"]
            # While they run, the launcher keeps the GPUs, but not the lock for leasing.
            assert [_takes(tmp_path, name) for name in ("0", "2", "turn")] == [False, False, True]
            job.communicate("\n\n", timeout=60)
            assert job.returncode == 0
        assert [_takes(tmp_path, name) for name in ("0", "2")] == [True, True]


def test_cuda_without_a_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no usable GPU; write auto"):
        devices.choose_device("cuda")
    assert devices.choose_device("auto") == torch.device("cpu")


def test_several_gpus_are_leased_unless_a_scheduler_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(devices, "lease_gpus", lambda count: [count - 1])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.choose_device("auto") == torch.device("cuda", 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert devices.choose_device("auto") == torch.device("cuda")


def four_gpus(monkeypatch: pytest.MonkeyPatch, capability: int = 8) -> list[int]:
    """A machine with GPUs; returns the list of GPUs that were made current."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    return current


def test_processes_that_train_together_use_the_gpu_that_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = four_gpus(monkeypatch)
    # The launcher leased them; the processes lease none.
    monkeypatch.delattr(devices, "lease_gpus")
    for chosen in (None, "0,2"):
        if chosen is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert devices.choose_device("cuda", local_rank=1) == torch.device("cuda", 1)
    assert current == [1, 1]
    assert devices.choose_device("cpu", local_rank=1) == torch.device("cpu")


def test_gpus_of_a_job_are_leased_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    four_gpus(monkeypatch)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(devices, "lease_gpus", lambda *a: asked.append(a) or [1, 3])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.lease_together("auto", 2) == "1,3"
    assert devices.choose_devices("auto", 2) == [torch.device("cuda", i) for i in (1, 3)]
    assert asked == [(4, 2), (4, 2)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert devices.lease_together("auto", 2) is None
    assert devices.choose_devices("auto", 2) == [torch.device("cuda", i) for i in (0, 1)]
    assert len(asked) == 2


def test_more_processes_than_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    four_gpus(monkeypatch)
    assert devices.lease_together("cpu", 8) is None
    with pytest.raises(UserError, match=r"train.gpus: 8 requested, this job sees 4; write 4"):
        devices.lease_together("auto", 8)
    with pytest.raises(UserError, match=r"predict.gpus: 8 requested, this job sees 4"):
        devices.choose_devices("auto", 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.lease_together("auto", 8) is None


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
    predictor = Predictor([network], torch.device("cpu"), "float32", tta)
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
        devices.choose_precision("tf32", torch.device("cpu"))
    four_gpus(monkeypatch)
    assert devices.choose_precision("tf32", torch.device("cuda")) == "tf32"
    four_gpus(monkeypatch, capability=7)
    with pytest.raises(UserError, match="write float32 or auto"):
        devices.choose_precision("tf32", torch.device("cuda"))


def test_given_precision_is_taken_as_it_is() -> None:
    cpu = torch.device("cpu")
    assert devices.choose_precision("float32", cpu) == "float32"
    assert devices.choose_precision("bfloat16", cpu) == "bfloat16"
    expected = "bfloat16" if devices.gains_by_bfloat16(cpu) else "float32"
    assert devices.choose_precision("auto", cpu) == expected


def test_how_much_two_trainings_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log says about the weights if activations are computed twice."""
    assert reproducibility(torch.device("cpu")) == "the same"
    assert "except for rounding" in reproducibility(torch.device("cuda"))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert reproducibility(torch.device("cuda")) == "the same"
