"""Full and read-only disks: one error line, no incomplete output, and the next run continues."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.stages import STAGES, Ended, Lab
from tests.faults.tallies import Tally

pytestmark = pytest.mark.faults

# Free space, as a share of what a stage writes.
SHARES = (0.0, 0.4, 0.8)
NOBODY = 65534


class Disk:
    """A small separate disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, room: int) -> None:
        """Leaves ``room`` bytes free."""
        self.empty()
        free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
        with self._filler.open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, free - room)

    def empty(self) -> None:
        """Makes space."""
        self._filler.unlink(missing_ok=True)

    def writable(self, yes: bool) -> None:
        """Mounts it read-write or read-only."""
        mode = "remount,rw" if yes else "remount,ro"
        subprocess.run(["mount", "-o", mode, str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def one_line(done: Ended, *reasons: str) -> None:
    """Checks that the stage failed and said why in one line."""
    assert done.code == 2, done.said
    assert len(done.errors) == 1, done.said
    assert any(reason in done.errors[0] for reason in reasons), done.said
    assert "Traceback" not in done.said
    assert "Logging error" not in done.said


@pytest.mark.parametrize("stage", STAGES)
def test_the_disk_is_full(lab: Lab, disk: Disk, tally: Tally, stage: str) -> None:
    output, failed = lab.before(stage, disk.folder / "results"), 0
    for share in SHARES:
        disk.fill(int(share * lab.sizes[stage]))
        done = lab.run(stage, output)
        if done.code != 0 or share == 0:
            # Predict knows how much it needs, and says so before it starts.
            one_line(done, "No space left on device", "are free; make room")
            failed += 1
        assert lab.is_sound(stage, output)
        disk.empty()
    lab.finish(stage, output)
    tally(
        "the disk is full",
        f"`{stage}` on a small tmpfs with room for nothing or a part of what it writes",
        "one line; no incomplete output; continues once there is space again; identical results",
        failed,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_the_output_may_not_be_written(lab: Lab, disk: Disk, tally: Tally, stage: str) -> None:
    output = lab.before(stage, disk.folder / "results")
    disk.writable(False)
    try:
        one_line(lab.run(stage, output), "Read-only file system")
    finally:
        disk.writable(True)
    assert lab.run(stage, output).code == 0
    assert lab.is_sound(stage, output)
    tally(
        "the output is read-only",
        "each stage on a disk that is mounted read-only",
        "one line; the stage runs once the disk is writable",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a stage as another user")
@pytest.mark.parametrize("stage", STAGES)
def test_the_output_is_another_users(lab: Lab, tally: Tally, stage: str) -> None:
    output = lab.before(stage, lab.folder / "another")
    (output / "logs").mkdir()
    one_line(lab.run(stage, output, user=NOBODY), "Permission denied")
    assert lab.is_sound(stage, output)
    shutil.rmtree(output)
    tally(
        "the output is another user's",
        "each stage run by a user without permissions in the output folder",
        "one line",
    )
