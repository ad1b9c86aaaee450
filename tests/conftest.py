"""Shared by all tests: one thread for torch, so that results and times do not depend on what else
runs, and hypothesis without a deadline (a loaded machine is not a failure)."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Before torch is imported; jobs that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

settings.register_profile("unet", deadline=None)
settings.load_profile("unet")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Stages set the number of threads for their process; here they share one."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)
