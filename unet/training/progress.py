"""How far a training is, and how it is told to end."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

Row = dict[str, float]


class Stopped(Exception):
    """The process was told to end; the state is saved."""


@dataclass
class TrainingProgress:
    """How far the training is; part of the checkpoint."""

    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_score: float = -math.inf
    best_step: int = 0
    history: list[Row] = field(default_factory=list)


@dataclass
class Pace:
    """How fast this process trains: the time left after a resume counts no other one's speed.

    Attributes:
        step, seconds: how far the training was, and for how long it had run, when this began.
    """

    step: int = 0
    seconds: float = 0.0

    def left(self, progress: TrainingProgress, total: int) -> float:
        """Seconds until step ``total``."""
        done = max(1, progress.step - self.step)
        return (progress.seconds - self.seconds) / done * max(0, total - progress.step)


# A second Ctrl-C this many seconds after the first one ends the process without waiting for the
# step. Launchers pass on at once what the terminal has sent to the process already.
IMPATIENT = 1.0


@contextmanager
def stop_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM, SIGUSR1 (time limits, preemption) and SIGINT (Ctrl-C) end the training after the
    current step; Ctrl-C once more ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = math.inf

    def tell(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if number == signal.SIGINT and now - first > IMPATIENT:
            raise KeyboardInterrupt("interrupted twice; the last checkpoint holds")
        first = min(first, now)
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, tell) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
