"""Thousands of mutated files through the readers: never a hang, a stack trace, a crash, or memory
beyond a bound. UNET_FAULT_SEED chooses other mutants, UNET_FUZZ_TIMES makes more of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.faults import fuzzing
from tests.faults.stages import SEED
from tests.faults.tallies import Tally
from tests.workflow.test_bad_inputs import SETTINGS, good, label, stage, write
from unet.data.records import read_manifest
from unet.errors import UserError
from unet.io.images import open_image
from unet.paths import Paths

PROGRAM = Path(fuzzing.__file__)
TIMES = float(os.environ.get("UNET_FUZZ_TIMES", "1"))
# Mutants of each kind, and what the mutants are of.
COUNTS = {"tiff": 1200, "png": 1200, "zarr": 500, "config": 1500, "model": 600}
WHAT = {
    "tiff": "12 kinds of TIFF",
    "png": "6 kinds of PNG",
    "zarr": "OME-Zarr 0.4 and 0.5: metadata and chunks",
    "config": "a config: its text and its values",
    "model": "`model.pt`: its bytes, and its content with correct checksums",
}
# Limits for a slow, busy machine; a mutant usually takes some hundredths of a second.
SECONDS_EACH, SECONDS = 1.0, 120
PROCESSES = 2


def fuzz(kind: str, seed: int, count: int, folder: Path, processes: int = 1) -> dict[str, int]:
    """The outcomes of ``count`` mutants. A failure fails the test and names the mutant."""
    parts = []
    share = -(-count // processes)
    for part in range(processes):
        (folder / str(part)).mkdir()
        words = [kind, seed, share, folder / str(part), part * share]
        said = (folder / f"{part}.txt").open("w+")
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *map(str, words)], stdout=said, stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        parts.append((process, said))
    outcomes = {"read": 0, "refused": 0}
    try:
        for process, said in parts:
            try:
                code = process.wait(SECONDS + SECONDS_EACH * share)
            except subprocess.TimeoutExpired:
                code = None
            said.seek(0)
            lines = said.read().splitlines()
            at = next((line for line in reversed(lines) if line.isdecimal()), "none")
            assert code == 0, f"mutant {kind} {at} of seed {seed}: exit code {code} {lines[-5:]}"
            found = json.loads(lines[-1])
            assert not found["bad"], f"seed {seed}: {found['count']}: {found['bad']}"
            for name, number in found["outcomes"].items():
                outcomes[name] += number
    finally:
        for process, said in parts:
            process.kill()
            process.wait()
            said.close()
    return outcomes


@pytest.mark.faults
@pytest.mark.parametrize("kind", COUNTS)
def test_mutants(tmp_path: Path, tally: Tally, kind: str) -> None:
    count = int(COUNTS[kind] * TIMES)
    outcomes = fuzz(kind, SEED, count, tmp_path, PROCESSES)
    assert sum(outcomes.values()) >= count
    # Otherwise all mutants were alike, or nothing was read at all.
    assert min(outcomes.values()) >= count // 100, outcomes
    tally(
        "a file is fuzzed",
        f"random changes of {WHAT[kind]}",
        "read, or refused in one line; no hang, no crash, no stack trace, at most 1.5 GB of memory",
        sum(outcomes.values()),
    )


def test_some_mutants(tmp_path: Path) -> None:
    """A few in the fast tests."""
    assert sum(fuzz("config", 1, 40, tmp_path).values()) == 40


@pytest.mark.faults
def test_mutants_through_the_stages(tmp_path: Path, tally: Tally) -> None:
    """All in one folder, as users may have them: readable files are prepared, the others are set
    aside."""
    import random

    number = 150
    good(tmp_path)
    seeds = {".tif": fuzzing.tiffs()[:1] + fuzzing.tiffs()[1:3], ".png": fuzzing.pngs()[:1]}
    for index in range(number):
        dice = random.Random(f"{SEED} {index}")
        suffix = dice.choice(list(seeds))
        data = fuzzing.mutated(dice.choice(seeds[suffix]), dice)
        (tmp_path / "i" / f"mutant{index:03d}{suffix}").write_bytes(data)
        write(tmp_path / "l" / f"mutant{index:03d}.tif", label((48, 40)))
    done = stage(
        "manifest", Paths(tmp_path / "out"), SETTINGS,
        "--root", str(tmp_path), "--images", "i", "--labels", "l",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    records = read_manifest(done.paths.manifest("d"))
    assert len(records) == number + 3
    bad = [record for record in records if record.status != "ok"]
    assert number // 4 < len(bad) <= number
    assert all(r.reason and "\n" not in r.reason and len(r.reason) < 500 for r in bad)
    made = stage("prepare", done.paths, PREPARE)
    assert made.code == 0, made.stderr
    images = json.loads(done.paths.prepared_done("d").read_text())["images"]
    assert len(images) == len(records) - len(bad)
    tally(
        "a file is fuzzed",
        "mutated TIFF and PNG files among good ones, through the stages manifest and prepare",
        "files that decode to the last pixel are prepared, the others are set aside with a reason",
        number,
    )


PREPARE: dict[str, Any] = {
    "version": 1, "task": "semantic", "ignore": None, "axes": None, "channels": None,
    "classes": [["background", 0], ["cell", 255]],
    "prepare": {
        "normalize": {"method": "percentile", "low": 1.0, "high": 99.8, "scope": "image"},
        "tile": 64, "shard": 4,
    },
}  # fmt: skip


# Headers that lie, one by one.


@pytest.mark.faults
def test_a_million_squared(tmp_path: Path, tally: Tally) -> None:
    """Headers of 10^6 x 10^6 pixels, of every compression, in tiles and strips."""
    import struct

    count = 0
    for compression in (None, "zlib", "lzw", "zstd", "packbits", "lzma"):
        for tile in (None, (16, 16)):
            path = tmp_path / f"{count}.tif"
            pixels = np.arange(48 * 64, dtype=np.uint32).reshape(48, 64)
            tifffile.imwrite(path, pixels, compression=compression, tile=tile, metadata=None)
            change_tags(path, {"ImageWidth": 10**6, "ImageLength": 10**6})
            with pytest.raises(
                UserError, match=r"header claims 1000000 x 1000000 pixels|cut short"
            ):
                open_image(path)
            count += 1
    from PIL import Image

    for bits in ("1", "L", "RGB", "P"):
        path = tmp_path / f"{bits}.png"
        Image.new(bits, (64, 48)).save(path)
        raw = bytearray(path.read_bytes())
        raw[16:24] = struct.pack(">II", 10**6, 10**6)
        raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
        path.write_bytes(raw)
        with pytest.raises(UserError, match="header claims 1000000 x 1000000 pixels"):
            open_image(path)
        count += 1
    for chunk in (8, 10**6):
        path = zarr_image(tmp_path / f"{chunk}.zarr", (10**6, 10**6), (chunk, chunk))
        with pytest.raises(UserError, match=r"1000000 x 1000000 pixels"):
            open_image(path)
        count += 1
    tally(
        "a header claims 10^6 x 10^6 pixels",
        "TIFF of six compressions in strips and tiles, four kinds of PNG, OME-Zarr",
        "refused in one line because of the header; nothing is allocated",
        count,
    )


def change_tags(path: Path, values: dict[str, int]) -> None:
    """Writes other numbers into a TIFF's header."""
    import struct

    with tifffile.TiffFile(path) as file:
        tags = [(file.pages[0].tags[name], value) for name, value in values.items()]  # type: ignore[union-attr]
        entries = [(tag.offset, tag.valueoffset, value) for tag, value in tags]
    raw = bytearray(path.read_bytes())
    for offset, place, value in entries:
        raw[offset + 2 : offset + 4] = struct.pack("<H", 4)  # as a LONG
        raw[place : place + 4] = struct.pack("<I", value)
    path.write_bytes(raw)


def zarr_image(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], **more: Any) -> Path:
    """An OME-Zarr 0.4 with only metadata."""
    (path / "0").mkdir(parents=True)
    axes = [{"name": name, "type": "space"} for name in "yx"]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}
    scales = [{"version": "0.4", "axes": axes, "datasets": [level]}]
    array = {
        "zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": "|u1", "fill_value": 0,
        "compressor": {"id": "zlib", "level": 1}, "filters": None, "order": "C", **more,
    }  # fmt: skip
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text(json.dumps({"multiscales": scales}))
    (path / "0" / ".zarray").write_text(json.dumps(array))
    return path


@pytest.mark.parametrize(
    ("shape", "chunks", "says"),
    [
        ((64, 64), (0, 64), "chunks of 0 x 64 pixels"),
        ((60_000, 60_000), (60_000, 60_000), "chunks of 60000 x 60000 pixels"),
        ((30_000, 30_000), (512, 512), "more than its files can hold"),
        ((1, 2**40), (1, 2**20), "1 x 1099511627776 pixels"),
    ],
)
def test_zarr_claims(
    tmp_path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], says: str
) -> None:
    """A chunk without pixels caused an endless loop in the reader."""
    with pytest.raises(UserError, match=says):
        open_image(zarr_image(tmp_path / "a.zarr", shape, chunks))


def test_zarr_chunks_that_are_not_there(tmp_path: Path) -> None:
    """A sparse array is valid: parts that were not written are zero."""
    path = zarr_image(tmp_path / "a.zarr", (64, 64), (32, 32))
    (path / "0" / "0.1").write_bytes(zlib.compress(bytes([7]) * 32 * 32))
    found = open_image(path).array.compute(scheduler="synchronous")
    assert found.shape == (1, 64, 64)
    assert np.unique(found[0, :32, 32:]) == [7]
    assert found.sum() == 7 * 32 * 32


BOMB = "\n".join(
    ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    + [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 12)]
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "more than 100000 values"),
        ("x: &a [*a]", "deeper than 50 levels"),
        ("x: " + "[" * 300 + "]" * 300, "deeper than 50 levels"),
        ("x: " + "[" * 5000 + "]" * 5000, "not valid YAML"),
        ("x: " + "9" * 5000, "not valid YAML"),
        ("x: 2024-99-99", "not valid YAML"),
        ("x: !!timestamp abc", "not valid YAML"),
        ("datasets: " + "a" * 100_000, r"got 'aaaa.*\.\.\.\)"),
        ("output: -x", "does not start with '-'"),
        ("output: '{dataset}'", "braces"),
        ('output: "a\\nb"', "braces"),
    ],
)
def test_configs_that_are_traps(tmp_path: Path, text: str, says: str) -> None:
    from unet.config.load import load_file

    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says) as error:
        load_file(path)
    assert max(map(len, str(error.value).splitlines())) < 1000
