"""Reads mutated files, in a process with a memory limit.

Run as a program: ``python tests/faults/fuzzing.py KIND SEED COUNT FOLDER``. It prints the number of
each file before reading it, so that the caller knows where it hung or crashed. The last line is a
summary as JSON. All randomness comes from the seed.
"""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from unet.errors import UserError

# Memory limit, in addition to what the loaded libraries use.
MEMORY = 3 << 29
INTERESTING = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)

Dice = random.Random
Try = Callable[[Path], None]


def mutated(data: bytes, dice: Dice) -> bytes:
    """A copy with one to eight changes: bits, bytes, risky numbers, cuts, repeats."""
    found = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        if not found:
            break
        # Changes in headers are the most effective.
        end = len(found) if dice.random() < 0.5 else min(len(found), 400)
        at = dice.randrange(end)
        kind = dice.randrange(7)
        if kind == 0:
            found[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            found[at] = dice.randrange(256)
        elif kind == 2:
            form = dice.choice(("<H", ">H", "<I", ">I"))
            number = dice.choice(INTERESTING) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
            found[at : at + struct.calcsize(form)] = struct.pack(form, number)
        elif kind == 3:
            del found[at : at + dice.randrange(1, 64)]
        elif kind == 4:
            found[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 64)))
        elif kind == 5:
            found[at : at + 32] = found[dice.randrange(len(found)) :][:32]
        else:
            del found[at:]
    return bytes(found)


# Images: read as an image and as a label, and decoded to the last pixel.


def look_at(path: Path) -> None:
    """Reads a file like the manifest stage does, and nothing more."""
    from unet.data.inspection import Expected, blocks_of, inspect
    from unet.io.images import open_label, page_count

    asked: list[Callable[[], Any]] = [
        lambda: [None for _ in blocks_of(open_label(path).array)],
        lambda: inspect(path, path, 0, Expected("instances")),
        lambda: page_count(path),
    ]
    for ask in asked[:1] if path.is_dir() else asked:
        with suppress(UserError):
            ask()
    # The decisive call: it must work for a file that is not broken.
    inspect(path, None, None, Expected("semantic"))


def tiffs() -> list[bytes]:
    import tifffile

    dice = np.random.default_rng(0)
    grey = dice.integers(0, 4000, (48, 40), np.uint16)
    found = []
    kinds: list[tuple[np.ndarray, dict[str, Any]]] = [
        (grey, {}),
        (grey, {"compression": "zlib"}),
        (grey.astype(np.uint8), {"compression": "lzw", "predictor": 2}),
        (grey.astype(np.float32), {"tile": (16, 16), "compression": "zstd"}),
        (dice.integers(0, 255, (48, 40, 3), np.uint8), {"photometric": "rgb"}),
        (
            dice.integers(0, 255, (4, 48, 40), np.uint8),
            {"compression": "packbits", "metadata": {"axes": "CYX"}},
        ),
        (grey > 2000, {"rowsperstrip": 5}),
        (grey[:30], {"imagej": True, "resolution": (2, 2), "metadata": {"unit": "um"}}),
        (grey.astype(np.uint8), {"bigtiff": True, "byteorder": ">"}),
        (
            dice.integers(0, 255, (3, 48, 40), np.uint8),
            {
                "ome": True,
                "metadata": {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "nm"},
            },
        ),
        (grey[:32, :32].astype(np.uint8), {"compression": "jpeg", "tile": (16, 16)}),
        (
            grey.astype(np.uint8),
            {"photometric": "palette", "colormap": dice.integers(0, 2**16, (3, 256), np.uint16)},
        ),
    ]
    for data, options in kinds:
        file = io.BytesIO()
        tifffile.imwrite(file, data, **{"photometric": "minisblack", **options})
        found.append(file.getvalue())
    return found


def pngs() -> list[bytes]:
    from PIL import Image

    dice = np.random.default_rng(0)
    byte = dice.integers(0, 255, (48, 40), np.uint8)
    palette = Image.fromarray(byte % 4).convert("P")
    found = []
    for image, options in (
        (Image.fromarray(byte), {}),
        (Image.fromarray(byte.astype(np.uint16) * 200), {}),
        (Image.fromarray(dice.integers(0, 255, (48, 40, 3), np.uint8)), {}),
        (Image.fromarray(np.dstack([byte, byte, byte, 0 * byte + 255])), {}),
        (Image.fromarray(byte > 100), {}),
        (palette, {}),
    ):
        file = io.BytesIO()
        image.save(file, "PNG", **options)
        found.append(file.getvalue())
    return found


def with_sums(data: bytes) -> bytes:
    """A PNG with corrected chunk checksums, so that decoders read on."""
    import zlib

    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out + data[at:])


class Images:
    """Mutants of whole image files."""

    def __init__(self, folder: Path, suffix: str, seeds: list[bytes]) -> None:
        self.path, self.seeds = folder / f"mutant{suffix}", seeds
        for seed in seeds:
            self.path.write_bytes(seed)
            look_at(self.path)

    def __call__(self, dice: Dice) -> Path:
        data = mutated(dice.choice(self.seeds), dice)
        if self.path.suffix == ".png" and dice.random() < 0.7:
            data = with_sums(data)
        self.path.write_bytes(data)
        return self.path


# Unexpected values for JSON, YAML and pickles.
JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e308, float("inf"), float("nan"), 2**31, 2**63,
    10**30, -(10**30), "", "x", "/", "..", "../../x", "/etc/passwd", "\x00", "\n", "a" * 5000, "é",
    "$(touch x)", "{x}", "[red]", "%s", "auto", "*", "**/*", "[", "<f4", "|O", [], {}, [[]], [None],
    [0], [-1], [10**12], [0, 0], [1, 2, 3, 4, 5, 6], {"": 1}, {"name": "pickle"}, {"id": "pickle"},
    {"x": {"y": {"z": []}}}, ["a", "a"], [1e400], [{}], "2024-99-99", [10**6, 10**6],
]  # fmt: skip


def places(value: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """(container, key) of every value within a structure."""
    found = [] if found is None else found
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    else:
        keys = list(range(len(value))) if isinstance(value, list) else []
    for key in keys:
        found.append((value, key))
        places(value[key], found)
    return found


def spoilt(value: Any, dice: Dice) -> Any:
    """A copy of a structure of JSON with some values replaced, dropped, doubled or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(dice.choice((1, 1, 2, 4))):
        there = places(value)
        if not there:
            return dice.choice(JUNK)
        parent, key = dice.choice(there)
        kind = dice.randrange(6)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[dice.choice(("x", "", "é", key.upper(), "a b", "\n"))] = parent.pop(key)
        elif kind == 2:
            other, at = dice.choice(there)
            parent[key] = json.loads(json.dumps(other[at])) if at in keys_of(other) else None
        elif kind == 3 and isinstance(parent[key], int | float) and parent[key] is not True:
            parent[key] = parent[key] * dice.choice((-1, 0, 0.5, 1000, 10**9))
        else:
            parent[key] = dice.choice(JUNK)
    return value


def keys_of(value: Any) -> Any:
    return value if isinstance(value, dict) else range(len(value))


class Zarrs:
    """Mutants of OME-Zarr images of both versions: their metadata, as text and as a structure, and
    sometimes a chunk."""

    def __init__(self, folder: Path) -> None:
        import zarr

        self.folder = folder
        pixels = np.random.default_rng(0).integers(0, 255, (2, 24, 20), np.uint8)
        axes = [{"name": n, "type": "channel" if n == "c" else "space"} for n in "cyx"]
        scale = [{"type": "scale", "scale": [1, 0.5, 0.5]}]
        scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
        self.seeds = []
        for version in (2, 3):
            path = folder / f"seed{version}.zarr"
            group = zarr.open_group(path, mode="w", zarr_format=version)
            more = {"shards": (2, 16, 20)} if version == 3 else {}
            array = group.create_array(
                "0", shape=pixels.shape, dtype="u1", chunks=(1, 8, 10), **more
            )
            array[...] = pixels
            ome = {"multiscales": scales, "omero": {"channels": [{"label": "a"}, {"label": "b"}]}}
            group.attrs.update(ome if version == 2 else {"ome": {"version": "0.5", **ome}})
            look_at(path)
            self.seeds.append(path)

    def __call__(self, dice: Dice) -> Path:
        path = self.folder / "mutant.zarr"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(dice.choice(self.seeds), path)
        files = sorted(p for p in path.rglob("*") if p.is_file())
        metadata = [p for p in files if p.suffix == ".json" or p.name.startswith(".z")]
        kind = dice.randrange(8)
        if kind == 0:
            chosen = dice.choice([p for p in files if p not in metadata])
            chosen.write_bytes(mutated(chosen.read_bytes(), dice))
        elif kind == 1:
            dice.choice(files).unlink()
        elif kind == 2:
            chosen = dice.choice(metadata)
            chosen.write_bytes(mutated(chosen.read_bytes(), dice))
        else:
            chosen = dice.choice(metadata)
            value = spoilt(json.loads(chosen.read_text()), dice)
            chosen.write_text(json.dumps(value))
        return path


# Configs.

CONFIG: dict[str, Any] = {
    "output": "results", "data_root": "raw", "seed": 1, "strict": False, "device": "auto",
    "memory_gb": 4,
    "datasets": {
        "a": {
            "images": "i/*.tif", "labels": "l/*.tif", "layout": "folders", "task": "semantic",
            "classes": {"background": 0, "cell": 255}, "ignore": 7, "axes": "CYX",
            "pixel_size_um": [0.5, 0.5], "channels": [0, "b"],
            "split": {"folds": 3, "test": 0.2, "val": 0.2, "run": [0, 1], "group": "(p\\d)"},
            "models": ["m"], "prepare": {"normalize": {"low": 2.0}}, "train": {"lr": 0.1},
            "evaluate": {"metrics": ["pixel", "boundary"]},
        },
        "b": {"synthetic": {"kind": "nuclei", "images": 6, "size": 128}, "task": "instances"},
        "c": {"images": "i", "predict_with": ["b/n"]},
    },
    "models": {
        "m": {"preset": "unet-bn", "width": 8, "depth": 2, "kernels": [[3, 3]] * 3},
        "n": {"preset": "unet2015", "head": "border", "train": {"patch": [188, 188]}},
        "o": {"preset": "auto"},
    },
    "prepare": {"normalize": {"method": "percentile", "low": 1, "high": 99.8}, "tile": 256},
    "train": {"patch": 128, "loss": "ce-dice", "augment": {"flip": True, "gamma": 0.3}},
    "predict": {"tile": 256, "batch": 2, "overlap": 0.5},
    "stitch": {"threshold": "auto", "min_size": 4},
    "evaluate": {"metrics": ["pixel"]},
    "report": {"bootstrap": 100, "confidence": 0.95},
}  # fmt: skip
# YAML that mutations of JSON do not produce.
SNIPPETS = (
    "? [a]\n: 1", "x: !unknown 1",
    "x: !!python/object/apply:os.system ['touch x']", "x: !!python/name:os.system",
    "x: &a [*a]", "x: !!binary AAAA", "x: !!set {a, b}", "x: 2024-99-99", "x: 1:99:99",
    "x: !!timestamp x", "x: !!int abc", "x: !!float abc", "x: " + "9" * 5000, "x: " + "[" * 900,
    "<<: *x", "<<: 1", "<<: [{output: a}]", "\tx: 1", "x: 'a", "- 1", "--- 1\n--- 2", "x: *nothing",
    "&a x: 1", "%YAML 9.9", "1: 2", "null: 1", "true: 1", "1.5: x", "!!binary aa: 1",
    "output: ''", "datasets: !!omap [a: 1]", "seed: 0x1F", "seed: 1_000", "output: 2024-01-01",
    "x: !!null a", "x: 0o9", "x: .nan", "seed: .inf", "memory_gb: .nan", "models: {? x : 1}",
)  # fmt: skip


class Configs:
    """Mutants of a config, as text and as a structure."""

    def __init__(self, folder: Path) -> None:
        import yaml

        self.path = folder / "mutant.yaml"
        self.text = yaml.safe_dump(CONFIG, sort_keys=False)

    def __call__(self, dice: Dice) -> Path:
        import yaml

        kind = dice.randrange(4)
        if kind == 0:
            data = mutated(self.text.encode(), dice)
        elif kind == 1:
            lines = self.text.splitlines()
            at = dice.randrange(len(lines))
            depth = len(lines[at]) - len(lines[at].lstrip())
            lines.insert(at, " " * dice.choice((0, depth)) + dice.choice(SNIPPETS))
            data = "\n".join(lines).encode()
        else:
            data = yaml.safe_dump(spoilt(CONFIG, dice), sort_keys=False).encode()
        self.path.write_bytes(data)
        return self.path


def plan(path: Path) -> None:
    """Computes all settings from a config, like the workflow does before any job."""
    from unet.config.load import load_file
    from unet.planning.jobs import Run

    config = load_file(path)
    run = Run(config)
    for dataset in config.datasets:
        if config.datasets[dataset].synthetic is not None:
            run.settings("synthesize", dataset)
        for stage in ("splits", "prepare", "evaluate", "report"):
            run.settings(stage, dataset)
        for model in config.models_for(dataset):
            run.networks(dataset, model)
            for stage in ("predict", "stitch", *(() if "@" in model else ("train",))):
                run.settings(stage, dataset, model)
    run.settings_all()


# Model files.


class Models:
    """Mutants of a model file: of its bytes, and of its content with correct checksums."""

    def __init__(self, folder: Path) -> None:
        import torch

        from unet.config.presets import architecture_of
        from unet.models.build import build
        from unet.models.model_file import ModelFile, save_model

        self.path = folder / "mutant.pt"
        arch = architecture_of("unet-bn", width=2, depth=1)
        model = ModelFile(
            arch, 1, ("background", "cell"), ("background", "cell"), (0, 255), "semantic",
            {"method": "percentile", "low": 1.0, "high": 99.8, "scope": "image"}, (0.5, 0.5),
            {"train": {}}, {"torch": "2"}, 0.5, 10, build(1, 2, arch).state_dict(),
        )  # fmt: skip
        save_model(folder / "seed.pt", model)
        self.data = (folder / "seed.pt").read_bytes()
        self.value = torch.load(folder / "seed.pt", weights_only=True)

    def __call__(self, dice: Dice) -> Path:
        import torch

        kind = dice.randrange(4)
        if kind == 0:
            self.path.write_bytes(mutated(self.data, dice))
        elif kind == 1:
            with (
                zipfile.ZipFile(io.BytesIO(self.data)) as seed,
                zipfile.ZipFile(self.path, "w") as archive,
            ):
                chosen = dice.choice(seed.namelist() + [n for n in seed.namelist() if "pkl" in n])
                for name in seed.namelist():
                    data = seed.read(name)
                    archive.writestr(name, mutated(data, dice) if name == chosen else data)
        else:
            value = dict(self.value)
            name = dice.choice(list(value))
            if name == "architecture" or (name != "weights" and dice.random() < 0.3):
                value[name] = spoilt([value[name]], dice)
            elif name == "weights" and dice.random() < 0.8:
                value[name] = dict(value[name])
                layer = dice.choice(list(value[name]))
                value[name][layer] = dice.choice(
                    [torch.zeros(1).expand(2**40), torch.zeros(3), None, 1, torch.zeros(0, 2**40)]
                )
            elif dice.random() < 0.2:
                del value[name]
            else:
                value[name] = dice.choice(JUNK)
            torch.save(value, self.path)
        return self.path


def use_model(path: Path) -> None:
    """Reads a model file and makes its network."""
    from unet.models.model_file import load_model

    load_model(path).network()


def makers(kind: str, folder: Path) -> tuple[Callable[[Dice], Path], Try]:
    if kind == "tiff":
        return Images(folder, ".tif", tiffs()), look_at
    if kind == "png":
        return Images(folder, ".png", pngs()), look_at
    if kind == "zarr":
        return Zarrs(folder), look_at
    if kind == "config":
        return Configs(folder), plan
    if kind == "model":
        return Models(folder), use_model
    raise ValueError(kind)


def limit(more: int) -> None:
    """No more memory than what is in use and so much."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(kind: str, seed: int, count: int, folder: Path, first: int = 0) -> None:
    import warnings

    warnings.simplefilter("ignore")
    make, attempt = makers(kind, folder)
    limit(MEMORY)
    outcomes: Counter[str] = Counter()
    bad = []
    for number in range(first, first + count):
        print(number, flush=True)
        # A seed for each: one can be made again without those before it.
        path = make(random.Random(f"{seed} {kind} {number}"))
        try:
            attempt(path)
            outcomes["read"] += 1
        except UserError as error:
            outcomes["refused"] += 1
            text = str(error)
            long = max(map(len, text.split("\n"))) > 2000
            lines = kind != "config" and "\n" in text
            if not text or long or lines or "allocate" in text:
                bad.append((number, f"a message of {len(text)} characters: {text[:300]!r}"))
        except BaseException as error:
            import traceback

            where = traceback.extract_tb(error.__traceback__)
            ours = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "/unet/" in f.filename]
            bad.append((number, f"{type(error).__name__}: {str(error)[:300]} at {ours[-3:]}"))
    print(json.dumps({"outcomes": outcomes, "bad": bad[:20], "count": len(bad)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]),
         int(sys.argv[5]) if len(sys.argv) > 5 else 0)  # fmt: skip
