"""A finished training is not repeated, whatever else was deleted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainings import train
from unet.paths import Paths
from unet.training.finished import Finished
from unet.training.trainer import Trainer


class Trains(Exception):
    """A training has begun."""


@pytest.fixture
def trained(make_store, monkeypatch: pytest.MonkeyPatch) -> tuple[Paths, dict[str, Any]]:  # type: ignore[no-untyped-def]
    """A finished training of which only ``.trained`` remains, and a trainer that raises."""
    paths, sentinel = make_store()
    train(paths, sentinel)

    def refused(self: Trainer) -> None:
        raise Trains

    monkeypatch.setattr(Trainer, "run", refused)
    shutil.rmtree(paths.output / "checkpoints")
    return paths, sentinel


def files(paths: Paths) -> tuple[Path, Path]:
    return paths.model("d", "m", 0), paths.history("d", "m", 0)


def kept(paths: Paths, name: str) -> Path:
    return paths.fold("d", "m", 0) / ".trained" / name


def test_it_is_found_again(trained: tuple[Paths, dict[str, Any]]) -> None:
    paths, sentinel = trained
    before = [path.read_bytes() for path in files(paths)]
    # No space is taken.
    assert files(paths)[0].samefile(kept(paths, "model.pt"))
    for path in files(paths):
        os.utime(path, (0, 0))
        path.unlink()
    for _ in range(2):  # Also beside its outputs.
        train(paths, sentinel)
        assert [path.read_bytes() for path in files(paths)] == before
        assert min(path.stat().st_mtime for path in files(paths)) > 0
    assert not [*paths.output.rglob("*.tmp")]


@pytest.mark.parametrize("part", ["a", "c"])
def test_other_images_are_another_training(
    trained: tuple[Paths, dict[str, Any]], part: str
) -> None:
    paths, sentinel = trained
    sentinel["images"][part]["key"] = "another"
    with pytest.raises(Trains):
        train(paths, sentinel)


def test_other_settings_are_another_training(trained: tuple[Paths, dict[str, Any]]) -> None:
    with pytest.raises(Trains):
        train(*trained, seed=1)


def damaged(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.truncate(path.stat().st_size // 2)


def missing(path: Path) -> None:
    path.unlink()


def of_another_kind(path: Path) -> None:
    path.write_text(json.dumps([1]), encoding="utf-8")


@pytest.mark.parametrize("change", [damaged, missing, of_another_kind])
@pytest.mark.parametrize("name", ["model.pt", "history.csv", "trained.json"])
def test_what_is_not_as_it_was_is_not_used(
    trained: tuple[Paths, dict[str, Any]], name: str, change: Callable[[Path], None]
) -> None:
    paths, sentinel = trained
    change(kept(paths, name))
    with pytest.raises(Trains):
        train(paths, sentinel)


def test_a_model_that_was_written_over_is_not_taken_for_it(
    trained: tuple[Paths, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Its second name is a hard link to the same file."""
    paths, sentinel = trained
    files(paths)[0].write_bytes(b"another")
    with pytest.raises(Trains):
        train(paths, sentinel)
    assert ".trained: damaged or changed; not used" in caplog.text


def test_without_second_names_it_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refused)
    outputs = (tmp_path / "model.pt", tmp_path / "history.csv")
    for path in outputs:
        path.write_text(path.name, encoding="utf-8")
    Finished(outputs, "k").keep()
    for path in outputs:
        path.unlink()
    assert not Finished(outputs, "other").is_kept()
    found = Finished(outputs, "k")
    assert found.is_kept()
    found.restore()
    assert [path.read_text(encoding="utf-8") for path in outputs] == [p.name for p in outputs]
