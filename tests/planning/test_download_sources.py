"""How planning sees the files of a public dataset: before the download, after it, edited, gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from scripts import manifest
from unet.config.load import load
from unet.errors import UserError
from unet.files import remove, write_json, write_sentinel
from unet.paths import Paths
from unet.planning.image_sizes import Images
from unet.planning.sources import Sources

NAME = "isbi2012"


def config(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    data = {
        "download": NAME, "images": "images", "labels": "labels", "task": "instances", **keys,
    }  # fmt: skip
    return {
        "output": str(tmp_path / "out"), "data_root": str(tmp_path / "data"),
        "datasets": {"d": data}, "models": {"m": {"preset": "unet-bn"}},
    }  # fmt: skip


def sources(tmp_path: Path, **keys: Any) -> Sources:
    made = load(config(tmp_path, **keys))
    return Sources(made, Paths(Path(made.output)))


def write(tmp_path: Path) -> Path:
    """What the stage download leaves."""
    folder = tmp_path / "data" / NAME
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        for kind, top in (("images", 250), ("labels", 9)):
            path = folder / kind / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, rng.integers(0, top, (64, 64), np.uint8))
    write_json(tmp_path / "data" / f"{NAME}.download.json", {"files": {}})
    write_sentinel(Paths(tmp_path / "out").download_done("d"), 1, {})
    return folder


def read(tmp_path: Path, fingerprint: str) -> None:
    """Runs the stage manifest as the workflow does."""
    from unet.config.data_settings import ManifestSettings
    from unet.files import canonical

    folder = tmp_path / "data" / NAME
    settings = ManifestSettings.of(load(config(tmp_path)), "d")
    settings = settings.model_copy(update={"fingerprint": fingerprint})
    words = ["--output", str(tmp_path / "out"), "--dataset", "d", "--root", str(folder)]
    words += ["--images", "images", "--labels", "labels", "--downloaded"]
    assert manifest.main([*words, "--settings", canonical(settings.to_json())]) == 0


def test_before_the_download_nothing_is_searched(tmp_path: Path) -> None:
    found = sources(tmp_path)
    found.check()
    assert found.fingerprint("d") == ""
    assert not found.is_there("d")
    assert found.images("d") == Images()
    assert found.of("d").root == tmp_path / "data" / NAME
    assert found.made_by_stage("d") == [tmp_path / "out" / "d" / "download.json"]


def test_after_it_a_wrong_path_shows_at_once(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match=r"datasets\.d: images: .*none"):
        sources(tmp_path, images="none").check()


def test_the_second_run_sees_what_the_first_saw(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert sources(tmp_path).fingerprint("d") == ""
    read(tmp_path, "")
    assert sources(tmp_path).fingerprint("d") == ""
    # An edited file is noticed; once the manifest is made again, it is what is expected.
    tifffile.imwrite(folder / "labels" / "a.tif", np.full((64, 64), 3, np.uint8))
    edited = sources(tmp_path).fingerprint("d")
    assert edited
    read(tmp_path, edited)
    assert sources(tmp_path).fingerprint("d") == edited


def test_files_that_are_gone(tmp_path: Path) -> None:
    remove(write(tmp_path))
    with pytest.raises(UserError) as error:
        sources(tmp_path).check()
    assert "d.download: " in str(error.value)
    assert f"`unet download {NAME} {tmp_path / 'data'}` brings it back" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
