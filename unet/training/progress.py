"""The progress of a training, and the signals that stop it."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from unet.errors import time_left

Row = dict[str, float]


class Stopped(Exception):
    """A signal stopped the training; its state is saved."""


@dataclass
class TrainingProgress:
    """The progress of a training; part of the checkpoint.

    Attributes:
        untrained_score: validation score of a start whose last layer is random; it is no epoch.
    """

    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_score: float = -math.inf
    best_step: int = 0
    history: list[Row] = field(default_factory=list)
    untrained_score: float | None = None


@dataclass
class Pace:
    """The speed of this process. After a resume, earlier processes do not count.

    Attributes:
        step, seconds: the training's step and its running time when this process started.
    """

    step: int = 0
    seconds: float = 0.0

    def left(self, progress: TrainingProgress, total: int) -> float:
        """Seconds until step ``total``."""
        done = max(1, progress.step - self.step)
        return (progress.seconds - self.seconds) / done * max(0, total - progress.step)

    def time_left(self, progress: TrainingProgress, total: int) -> str:
        """The time until step ``total``, as text."""
        return time_left(self.left(progress, total))


# A second Ctrl-C ends the process at once if it comes at least this many seconds after the first.
# An earlier one may be a copy: the terminal sends it to all processes, and launchers pass it on.
SECOND_INTERRUPT_SECONDS = 1.0


@contextmanager
def stop_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM, SIGUSR1 (time limits, preemption) and SIGINT (Ctrl-C) stop the training after the
    current step; a second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = math.inf

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if number == signal.SIGINT and now - first > SECOND_INTERRUPT_SECONDS:
            raise KeyboardInterrupt("at once; the last checkpoint is kept")
        first = min(first, now)
        stop.set()

    names = ("SIGTERM", "SIGUSR1", "SIGINT")  # Windows has no SIGUSR1
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
