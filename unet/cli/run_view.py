"""Shows a run on the console: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TextIO

from unet.cli.run_progress import RunningJob

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# Most running jobs that are shown.
_SHOWN = 6
# Seconds until plain lines say how far the jobs are, and between two such lines.
FIRST_SECONDS, NEXT_SECONDS = 30.0, 60.0
# Columns that stay free on the right: a terminal writes ^C there when its user presses Ctrl-C. In a
# full line it would go to the next one, and the line above could not be cleared any more.
_FREE = 2
# A terminal with fewer columns has no bars for single jobs.
_NARROW = 70


def clock(seconds: float) -> str:
    """Seconds as ``0:07``, ``12:30`` or ``2:03:10``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class View(Protocol):
    """Shows a run."""

    def plan(self, total: int) -> None:
        """The number of jobs is known."""

    def finished(self, job: RunningJob, done: int) -> None:
        """A job has ended well; ``done`` jobs have."""

    def say(self, text: str) -> None:
        """A message of one or more lines."""

    def tick(self, jobs: Mapping[int, RunningJob], done: int) -> None:
        """The running jobs, several times per second."""

    def close(self) -> None:
        """The end; nothing but messages is left on a terminal."""


class PlainView:
    """A line per finished job, and now and then one per running job."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self._title, self._stream, self._total = title, stream, 0
        self._next = time.monotonic() + FIRST_SECONDS

    def plan(self, total: int) -> None:
        self._total = total
        self.say(f"{self._title}: {total} job{'' if total == 1 else 's'}")

    def finished(self, job: RunningJob, done: int) -> None:
        self.say(f"[{done}/{self._total}] {job.name}: done in {clock(job.seconds)}")

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def tick(self, jobs: Mapping[int, RunningJob], done: int) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + NEXT_SECONDS
        for job in list(jobs.values())[:_SHOWN]:
            step = job.step.text if job.step else "running"
            self.say(f"[{done}/{self._total}] {job.name}: {step}, {clock(job.seconds)} so far")

    def close(self) -> None:
        pass


class MessageView(PlainView):
    """Messages only, for what takes few seconds."""

    def plan(self, total: int) -> None:
        self._total = total

    def finished(self, job: RunningJob, done: int) -> None:
        pass


class BarView:
    """A bar for the run, and a line per running job, at the bottom of a terminal."""

    def __init__(self, title: str, console: Console) -> None:
        from rich.live import Live

        self._title, self._console, self._total = title, console, 0
        self._jobs: Mapping[int, RunningJob] = {}
        self._done, self._started = 0, time.monotonic()
        self._live = Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def plan(self, total: int) -> None:
        self._total = total

    def finished(self, job: RunningJob, done: int) -> None:
        self.say(f"[{done}/{self._total}] {job.name}: done in {clock(job.seconds)}")

    def say(self, text: str) -> None:
        # Not print(): rich would wrap long paths.
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def tick(self, jobs: Mapping[int, RunningJob], done: int) -> None:
        self._jobs, self._done = dict(jobs), done

    def close(self) -> None:
        self._jobs = {}
        self._live.stop()

    def render(self) -> RenderableType:
        """What is shown now: bar, running jobs."""
        from rich.console import Group
        from rich.constrain import Constrain
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        jobs = list(self._jobs.values())
        elapsed = clock(time.monotonic() - self._started)
        width = max(1, self._console.width - _FREE)
        if not self._total:
            return Constrain(Group(f"{self._title}: planning  {elapsed}"), width)
        # Half-done jobs count, so that the bar also moves during a long training.
        begun = self._done + sum(job.step.share for job in jobs if job.step)
        narrow = width < _NARROW - _FREE
        head = Table.grid(padding=(0, 1))
        for _ in range(3):
            head.add_column(no_wrap=True)
        size = max(8, min(40, width - len(self._title) - 32))
        text = f"{self._done} of {self._total} jobs"
        head.add_row(
            self._title, ProgressBar(self._total, begun, width=size), f"{text}  {elapsed}"
        )  # fmt: skip
        table = Table.grid(padding=(0, 1), expand=True)
        # The name is more important than the rest of the line.
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=width // 2)
        if not narrow:
            table.add_column(no_wrap=True, width=12)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for job in jobs[:_SHOWN]:
            bar = [] if narrow else [ProgressBar(1.0, job.step.share if job.step else 0, width=12)]
            step = f"{job.step.text}  " if job.step else ""
            table.add_row(f"  {job.name}", *bar, f"{step}{clock(job.seconds)}")
        more = len(jobs) - _SHOWN
        return Constrain(Group(head, table, *([f"  and {more} more"] if more > 0 else [])), width)


def new_view(title: str) -> View:
    """The view that fits standard error: a terminal that moves its cursor, or anything else."""
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True, force_terminal=True)
        if not console.is_dumb_terminal:
            return BarView(title, console)
    return PlainView(title, sys.stderr)
