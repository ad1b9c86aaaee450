"""Locks, unfinished files, logs on a full disk: the parts that restarts depend on."""

from __future__ import annotations

import argparse
import errno
import fcntl
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from unet import files
from unet.cli import stage
from unet.errors import UserError
from unet.files import lock_of, locked, read_json, replacing
from unet.prediction.tiles.finished_tiles import UnfinishedTiles

ROOT = Path(__file__).resolve().parents[2]


def other(path: Path, shared: bool) -> subprocess.CompletedProcess[str]:
    """Another process that wants the lock."""
    code = (
        "from pathlib import Path; from unet.files import locked\n"
        f"with locked(Path({str(path)!r}), 'busy', shared={shared}): print('held')"
    )
    words = [sys.executable, "-c", code]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_one_process_or_several_that_share(tmp_path: Path) -> None:
    path = lock_of(tmp_path / "d" / "tiles.zarr")
    assert path == tmp_path / "d" / ".tiles.zarr.lock"
    with locked(path, "predicting"):
        done = other(path, shared=True)
        assert done.returncode == 1
        assert f"{tmp_path / 'd'}: another process is busy; wait for it or stop it" in done.stderr
    with locked(path, "predicting", shared=True):
        assert other(path, shared=True).stdout == "held\n"
        assert other(path, shared=False).returncode == 1
    assert other(path, shared=False).stdout == "held\n"


def test_no_lock_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, "here"):
        assert path.exists()
        with pytest.raises(UserError), locked(path, "there"):
            raise AssertionError("held twice")
        assert path.exists()
    assert not path.exists()
    # Of several that share it, the last one removes it.
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(locked(path, "here", shared=True))
        second.enter_context(locked(path, "there", shared=True))
        first.close()
        assert path.exists()
        assert other(path, shared=False).returncode == 1
    assert not path.exists()
    # A lock file that is already deleted, with its folder, is no error.
    with locked(tmp_path / "work" / "lock", "here"):
        shutil.rmtree(tmp_path / "work")


def test_a_lock_file_that_is_removed_between_opening_and_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "lock", fcntl.flock
    stolen: list[int] = []

    def late(handle: int, kind: int) -> None:
        if not stolen:
            # In between, its holder ends, and a third process creates a new file.
            stolen.append(handle)
            path.unlink()
            path.touch()
        real(handle, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(path, "here"):
        monkeypatch.setattr(fcntl, "flock", real)
        # The lock is on the file that all others see.
        assert other(path, shared=True).returncode == 1
    assert stolen
    assert not path.exists()


HOLDS = """
import sys
import threading
import time
from pathlib import Path
from unet.errors import UserError
from unet.files import locked
lock, inside = Path(sys.argv[1]), Path(sys.argv[2])
held = 0
while held < int(sys.argv[3]):
    try:
        with locked(lock, "counting"):
            inside.mkdir()  # fails where another one is inside
            inside.rmdir()
            held += 1
    except UserError:
        time.sleep(0.0001)
print(held)
"""


def test_processes_that_come_and_go_are_never_two_at_once(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDS, str(tmp_path / "lock"), str(tmp_path / "in"), "300"]
    running = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        out, error = process.communicate()
        assert process.returncode == 0, error
        assert int(out) == 300
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(handle: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with locked(tmp_path / "lock", "here"):
        pass
    assert "cannot be locked (No locks available)" in caplog.text


def test_damaged_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prepared.json"
    for text in (b'{"a": 1', b"", b"\xff\xfe"):
        path.write_bytes(text)
        with pytest.raises(UserError, match=r"prepared.json: damaged .*remove it") as error:
            read_json(path)
        assert "\n" not in str(error.value)


def test_a_number_that_was_cut_is_not_continued(tmp_path: Path) -> None:
    """A killed process, or a full disk, can leave a part of a line."""
    partial = UnfinishedTiles(tmp_path, "a", "key", "0")
    done = partial.path / ".done"
    done.mkdir(parents=True)
    (done / "0").write_text("3\n1")
    assert partial.done() == {3: False}
    UnfinishedTiles(tmp_path, "a", "key", "0").mark([(2, False), (4, True)])
    assert partial.done() == {3: False, 2: False, 4: True}
    (done / "0").write_text("1")
    again = UnfinishedTiles(tmp_path, "a", "key", "0")
    again.mark([(5, False)])
    again.mark([(6, False)])
    assert (done / "0").read_text() == "5\n6\n"


def test_threads_that_mark_at_once_lose_no_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill the first mark repairs the file; another thread's line must survive that."""
    partial = UnfinishedTiles(tmp_path, "a", "key", "0")
    done = partial.path / ".done"
    done.mkdir(parents=True)
    (done / "0").write_text("3\n")
    read, both, order = Path.read_bytes, threading.Barrier(2), itertools.count()

    def slow(path: Path) -> bytes:
        found = read(path)
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.5)  # until both threads have read, if nothing holds one of them up
        time.sleep(0.3 * next(order))
        return found

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(Path, "read_bytes", slow)
        list(pool.map(lambda tile: partial.mark([(tile, False)]), (1, 2)))
    assert set(partial.done()) == {1, 2, 3}


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before:
            with suppress(OSError):
                handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def arguments(tmp_path: Path, log: Path) -> argparse.Namespace:
    return argparse.Namespace(log=log, output=tmp_path)


@pytest.mark.usefixtures("fresh_logging")
def test_a_log_on_a_full_disk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def work(args: object, paths: object) -> None:
        logging.getLogger("unet").info("a line")
        raise RuntimeError("broken")

    assert stage.run(arguments(tmp_path, Path("/dev/full")), work) == 1
    said = capfd.readouterr().err
    assert said == "a line\nerror: RuntimeError: broken (internal error)\n"


@pytest.mark.usefixtures("fresh_logging")
def test_a_log_that_cannot_be_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    log = tmp_path / "file" / "x.log"
    assert stage.run(arguments(tmp_path, log), lambda args, paths: None) == 2
    assert capfd.readouterr().err.splitlines() in (
        [f"error: {log}: Not a directory"],
        [f"error: {log}: File exists"],
    )


# What a killed process leaves.

WRITES = """
import sys, time
from pathlib import Path
from unet.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    time.sleep(600)
"""


def writer(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that is still writing, and its temporary file, with an old time."""
    words = [sys.executable, "-c", WRITES, str(path)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    temporary = Path(process.stdout.readline().strip())
    process.stdout.close()
    os.utime(temporary, (time.time() - 2 * files._LEFT_SECONDS,) * 2)
    return process, temporary


def test_what_a_killed_process_was_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_swept", set())
    (live, kept), (dead, left) = writer(tmp_path / "a.csv"), writer(tmp_path / "b.csv")
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        young = tmp_path / ".c.csv.x.tmp"
        young.touch()
        folder = tmp_path / ".d.zarr.x.tmp"
        folder.mkdir()
        os.utime(folder, (0, 0))
        with replacing(tmp_path / "c.csv") as temporary:
            temporary.write_text("whole")
        assert not left.exists()
        assert kept.read_text() == "half"
        assert young.exists()
        assert folder.exists()
        assert (tmp_path / "c.csv").read_text() == "whole"
    finally:
        live.kill()
        live.wait()


def test_a_folder_is_searched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_swept", set())
    for index in range(2):
        with replacing(tmp_path / "x") as temporary:
            temporary.write_text("x")
        old = tmp_path / f".y{index}.tmp"
        old.touch()
        os.utime(old, (0, 0))
    assert old.exists()


def test_files_without_locks_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(handle: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_swept", set())
    monkeypatch.setattr(fcntl, "flock", refused)
    old = tmp_path / ".y.tmp"
    old.touch()
    os.utime(old, (0, 0))
    with replacing(tmp_path / "x") as temporary:
        temporary.write_text("x")
    assert old.exists()
    assert (tmp_path / "x").read_text() == "x"
