"""Checkpoints: complete or skipped, keyed, and one process at a time."""

from __future__ import annotations

import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from unet.errors import UserError
from unet.training.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef" * 4


def saved(folder: Path, *steps: int) -> Checkpoints:
    keeper = Checkpoints(folder, KEY)
    keeper.folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        keeper.save({"step": step, "weights": torch.full((1000,), float(step))})
    return keeper


def step_of(keeper: Checkpoints) -> int | None:
    state = keeper.load()
    if state is None:
        return None
    assert torch.equal(state["weights"], torch.full((1000,), float(state["step"])))
    return int(state["step"])


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    data[largest.header_offset + 64 + largest.file_size // 2] ^= 4
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_the_newest_is_loaded(tmp_path: Path) -> None:
    assert step_of(saved(tmp_path)) is None
    assert step_of(saved(tmp_path, 1)) == 1
    assert step_of(saved(tmp_path, 2, 3)) == 3


@pytest.mark.parametrize("damage", [truncate, flip_bit, empty, Path.unlink])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage, caplog) -> None:  # type: ignore[no-untyped-def]
    keeper = saved(tmp_path, 1, 2)
    damage(keeper.folder / "last.pt")
    with caplog.at_level(logging.WARNING):
        assert step_of(keeper) == 1
    if damage is not Path.unlink:
        assert "last.pt" in caplog.text
    # The next save must not replace the good checkpoint by the damaged one.
    keeper.save({"step": 3, "weights": torch.full((1000,), 3.0)})
    truncate(keeper.folder / "last.pt")
    assert step_of(keeper) == 1


def test_both_damaged_is_a_new_start(tmp_path: Path) -> None:
    keeper = saved(tmp_path, 1, 2)
    truncate(keeper.folder / "last.pt")
    truncate(keeper.folder / "previous.pt")
    assert keeper.load() is None


def test_another_key_is_ignored(tmp_path: Path) -> None:
    keeper = saved(tmp_path, 1)
    other = Checkpoints(tmp_path, "f" * 64)
    assert other.folder != keeper.folder
    assert other.load() is None
    # Also in the very same folder: the first 16 digits may agree.
    near = Checkpoints(tmp_path, KEY[:16] + "f" * 48)
    assert near.folder == keeper.folder
    assert near.load() is None


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    keeper = saved(tmp_path, 1)
    left = keeper.folder / ".last.pt.abc.tmp"
    left.write_bytes(b"half")
    keeper.save({"step": 2, "weights": torch.full((1000,), 2.0)})
    assert not left.exists()
    assert step_of(keeper) == 2


def test_one_process_at_a_time(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, KEY)
    code = (
        "import sys; from pathlib import Path; from unet.training.checkpoint import Checkpoints\n"
        f"with Checkpoints(Path({str(tmp_path)!r}), {KEY!r}).locked():\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process is training here"), keeper.locked():
            pass
        other.kill()
        other.wait()
    # The lock dies with its process, however it ended.
    with keeper.locked():
        pass
    with keeper.locked():
        pass


def test_killed_between_the_renames(tmp_path: Path) -> None:
    """The newest state is found under any of its names."""
    keeper = saved(tmp_path, 1, 2)
    saved(tmp_path / "other", 3).folder.joinpath("last.pt").rename(keeper.folder / "next.pt")
    assert step_of(keeper) == 3
    (keeper.folder / "last.pt").replace(keeper.folder / "previous.pt")
    assert step_of(keeper) == 3
    keeper.save({"step": 4, "weights": torch.full((1000,), 4.0)})
    assert sorted(path.name for path in keeper.folder.iterdir()) == ["last.pt", "previous.pt"]
    assert step_of(keeper) == 4


def test_a_save_that_fails_leaves_the_last_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = saved(tmp_path, 1, 2)
    before = {path.name: path.read_bytes() for path in keeper.folder.iterdir()}

    def full(value: object, handle: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        keeper.save({"step": 3, "weights": torch.zeros(3)})
    assert {path.name: path.read_bytes() for path in keeper.folder.iterdir()} == before


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    """torch's own file writing reports another error."""
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb") as handle:
        torch.save({"weights": torch.zeros(100_000)}, handle)


def test_the_same_state_is_the_same_file(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a", 1), saved(tmp_path / "b", 1)
    assert (first.folder / "last.pt").read_bytes() == (second.folder / "last.pt").read_bytes()
