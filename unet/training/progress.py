"""How far a training is, and how it is told to end."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

Row = dict[str, float]


class Stopped(Exception):
    """The process was told to end; the state is saved."""


@dataclass
class Progress:
    """How far the training is; part of the checkpoint."""

    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_score: float = -math.inf
    best_step: int = 0
    history: list[Row] = field(default_factory=list)


@contextmanager
def stop_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGUSR1 (time limits, preemption) end the training after the current step."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def tell(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {s: signal.signal(s, tell) for s in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
