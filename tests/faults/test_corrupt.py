"""Damaged files of the pipeline are found by their checksums and named, or skipped."""

from __future__ import annotations

import random
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.faults.contents import FOLD, different, tables
from tests.faults.stages import SEED, Lab
from tests.faults.tallies import Tally

pytestmark = pytest.mark.faults

EVERY_STEP = ["--checkpoint-seconds", "0.001"]


def truncate(path: Path, dice: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size)])


def flip(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(bytes(data))


def zero(path: Path, dice: random.Random) -> None:
    """Simulates a block that the disk has lost."""
    data = bytearray(path.read_bytes())
    start = dice.randrange(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    path.write_bytes(bytes(data))


def flip_tensor(path: Path, dice: random.Random) -> None:
    """Flips one bit in the content of the file, not in the archive's structure."""
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if "/data/" in m.filename and m.file_size > 64]
    member = dice.choice(members)
    data = bytearray(path.read_bytes())
    name = len(member.filename.encode())
    extra = int.from_bytes(data[member.header_offset + 28 : member.header_offset + 30], "little")
    place = member.header_offset + 30 + name + extra + dice.randrange(member.file_size)
    data[place] ^= 1 << dice.randrange(8)
    path.write_bytes(bytes(data))


DAMAGES = {"cut short": truncate, "a flipped bit": flip, "512 bytes of zeros": zero}


@pytest.fixture(scope="module")
def stopped(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was killed after some checkpoints."""
    output = lab.before("train", tmp_path_factory.mktemp("stopped") / "results")
    whole = lab.run("train", output, EVERY_STEP).operations
    lab.before("train", output)
    assert lab.run("train", output, EVERY_STEP, operation=int(whole * 0.7)).killed
    assert len(checkpoints(output)) >= 2
    return output


def checkpoints(output: Path) -> list[Path]:
    """From the newest to the oldest."""
    folder = next((output / "checkpoints/d/m/fold-0").iterdir())
    files = [folder / name for name in ("next.pt", "last.pt", "previous.pt")]
    return [file for file in files if file.exists()]


@pytest.mark.parametrize("every", [False, True], ids=["the newest", "all"])
@pytest.mark.parametrize("damage", [truncate, flip_tensor])
def test_a_checkpoint_is_damaged(
    lab: Lab, stopped: Path, tmp_path: Path, tally: Tally, damage, every: bool
) -> None:  # type: ignore[no-untyped-def]
    dice = random.Random(f"{SEED} {damage.__name__} {every}")
    for turn in range(4):
        output = tmp_path / f"results-{turn}"
        shutil.copytree(stopped, output)
        files = checkpoints(output)[: None if every else 1]
        for file in files:
            damage(file, dice)
        done = lab.run("train", output, EVERY_STEP)
        assert done.code == 0, done.said
        log = (output / "logs" / "train.log").read_text()
        for file in files:
            assert re.search(f"{file.name}: .*using the checkpoint before it", log), log
        resumed = re.search(r"resumed at step (\d+) of", log)
        assert (resumed is None) == every, log
        if turn == 0:
            lab.finish("predict", output)
        assert (output / FOLD / "model.pt").read_bytes() == (
            lab.unbroken / FOLD / "model.pt"
        ).read_bytes()
    tally(
        "a checkpoint is damaged",
        "the newest, or all, cut short or with a flipped bit",
        "logged; training continues from the checkpoint before, or from the start; final tables "
        "identical to those of an undisturbed run",
        4,
    )


def test_a_model_is_damaged(lab: Lab, tmp_path: Path, tally: Tally) -> None:
    dice = random.Random(f"{SEED} model")
    output = lab.before("predict", tmp_path / "results")
    model = output / FOLD / "model.pt"
    good = model.read_bytes()
    for damage in (truncate, truncate, flip_tensor, flip_tensor, flip_tensor):
        model.write_bytes(good)
        damage(model, dice)
        done = lab.run("predict", output)
        assert done.code == 2, done.said
        assert len(done.errors) == 1, done.said
        assert re.match(
            f"error: {model}: not a readable model file .*train it again", done.errors[0]
        )
        assert lab.is_sound("predict", output)
    model.unlink()
    lab.finish("train", output)
    tally(
        "a model file is damaged",
        "`model.pt` cut short or with a flipped bit",
        "one line that names the file; trained again (from the last checkpoint); final tables "
        "identical to those of an undisturbed run",
        5,
    )


# Store, its folder, the stage that made it, one that reads it, and the arrays of which that one
# reads every chunk.
SEGMENTATION = ("segmentation.zarr", FOLD, "stitch")
STORES = (
    ("prepared.zarr", "d", "prepare", "train", ("image", "instances")),
    ("tiles.zarr", FOLD, "predict", "stitch", ("",)),
    *((*SEGMENTATION, stage, ("labels/instances/0",)) for stage in
      ("evaluate", "details", "audit", "quality")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("store", "where", "maker", "stage", "arrays"), STORES, ids=[f"{s[0]}-{s[3]}" for s in STORES]
)
def test_a_chunk_is_damaged(  # type: ignore[no-untyped-def]
    lab: Lab, tmp_path: Path, tally: Tally, store, where, maker, stage, arrays
) -> None:
    dice = random.Random(f"{SEED} {store} {stage}")
    for how, damage in DAMAGES.items():
        output = lab.before(stage, tmp_path / how)
        folder = output / where / store
        files = [
            path
            for image in _read_by(stage, output, folder)
            for array in arrays
            for path in (folder / image / array).rglob("*")
            if path.is_file() and path.name != "zarr.json"
        ]
        chosen = dice.choice(sorted(files))
        before = chosen.read_bytes()
        while chosen.read_bytes() == before:  # zeros over zeros damage nothing
            damage(chosen, dice)
        done = lab.run(stage, output)
        assert done.code == 2, (how, chosen, done.said)
        assert len(done.errors) == 1, done.said
        assert done.errors[0].startswith(f"error: {chosen}: damaged"), (chosen, done.said)
        assert "Traceback" not in done.said
        assert lab.is_sound(stage, output)
        # Follow the advice in the message.
        advice = re.search(r"; remove (.+?)(?: and (.+?))? and run again", done.errors[0])
        assert advice, done.said
        for name in filter(None, advice.groups()):
            path = Path(name)
            assert path.exists()
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        lab.finish(maker, output)
        assert different(tables(output), lab.tables) == []
    tally(
        "a chunk of a store is damaged",
        f"a random chunk of `{store}`, read by `{stage}`, cut short, with a flipped bit, or with "
        "512 bytes of zeros",
        "found by its checksum: one line that names the file and what to remove; recomputed; "
        "final tables identical to those of an undisturbed run",
        len(DAMAGES),
    )


def _read_by(stage: str, output: Path, folder: Path) -> list[str]:
    """The images that a stage reads."""
    if stage == "stitch":
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    rows = [line.split(",") for line in (output / "d" / "splits.csv").read_text().splitlines()]
    names = dict(enumerate(rows[0]))
    found = [dict(zip(names.values(), row, strict=True)) for row in rows[1:]]
    part = "train" if stage == "train" else "test"
    return sorted(row["image"] for row in found if row["part"] == part)
