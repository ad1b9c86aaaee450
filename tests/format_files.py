"""What the tests of every file format share: a folder with good and bad files, as a user has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.data.test_manifest import manifest_settings
from unet.cli.main import main
from unet.data.manifest import RawSource, build_manifest
from unet.data.records import ImageRecord
from unet.errors import UserError
from unet.io.images import open_image


def pixels(opened: Any) -> np.ndarray:
    """All pixels of a lazy image, checked against what its header says."""
    result = opened.array.compute(scheduler="synchronous")
    assert result.shape == opened.shape
    assert result.dtype == opened.dtype
    return result


def manifest_of(folder: Path, layout: str = "folders", **settings: Any) -> dict[str, ImageRecord]:
    """The manifest of a folder of images without labels."""
    source = RawSource(folder.parent, folder.name, layout=layout, required=False)
    wanted = manifest_settings(task="instances", layout=layout, **settings)
    return {record.id: record for record in build_manifest(source, wanted, threads=1)}


def check_bad_files(
    root: Path,
    suffix: str,
    write: Callable[[Path, int], Any],
    capsys: pytest.CaptureFixture[str],
    *,
    keep: tuple[float, ...],
    survey: bool = True,
) -> None:
    """Files that are cut short, overwritten or of another kind are one line each, and the good ones
    beside them are read all the same, by the manifest and by ``unet check``.

    Args:
        root: a folder for them that does not exist yet.
        write: writes a file with one image; the number tells images apart.
        keep: shares of a good file that are left in the bad ones.
        survey: whether ``unet check`` looks at them, too, which takes some seconds.
    """
    images, labels = root / "images", root / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for number in range(3):
        path = images / f"good{number}{suffix}"
        write(path, number)
        label = np.zeros(open_image(path).shape[1:], np.uint8)
        label[..., 5 : 20 + number, 5:20] = 1
        axes = {"axes": "ZYX"[-label.ndim :]}
        tifffile.imwrite(
            labels / f"good{number}.tif", label, photometric="minisblack", metadata=axes
        )
    content = path.read_bytes()
    bad = {f"cut{n}": content[: int(share * len(content))] for n, share in enumerate(keep)}
    bad |= {"empty": b"", "text": b"<html>404</html>" * 50, "head": content[:40] + bytes(4000)}
    for name, data in bad.items():
        path = images / f"{name}{suffix}"
        path.write_bytes(data)
        with pytest.raises(UserError) as error:
            pixels(open_image(path))
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)
    records = manifest_of(images)
    assert {key for key, record in records.items() if record.status != "ok"} == set(bad)
    if not survey:
        return
    capsys.readouterr()
    assert main(["check", str(root), "--output", str(root / "checked")]) in (0, 1)
    told = capsys.readouterr()
    assert "3 usable" in told.out
    assert "Traceback" not in told.out + told.err


def check_random_damage(path: Path, read: Callable[[Path], Any], tries: int = 40) -> None:
    """Flipped bytes give pixels or one line, and never another error."""
    rng = np.random.default_rng(0)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(tries):
        broken = content.copy()
        at = rng.integers(0, min(len(broken), 4000), 8)
        broken[at] = rng.integers(0, 256, len(at))
        path.write_bytes(broken.tobytes())
        told = _told(path, read)
        assert told is None or "\n" not in told


def _told(path: Path, read: Callable[[Path], Any]) -> str | None:
    try:
        read(path)
    except UserError as error:
        return str(error)
    return None
