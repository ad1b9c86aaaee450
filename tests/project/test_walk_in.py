"""The way in, as a newcomer walks it: the wheel in an empty environment, then command by command.

`UNET_WHEEL` is the path of the wheel that `make build` made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
WHEEL = os.environ.get("UNET_WHEEL", "")
pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(not WHEEL, reason="UNET_WHEEL names no wheel of a `make build`"),
]

IN_PYTHON = """
import sys
import numpy as np
import unet

model = unet.load_model(sys.argv[1])
for path in sys.argv[3:]:
    image = unet.read_image(path)
    found = model.predict(image, axes=image.axes, pixel_size_um=image.pixel_size_um)
    np.save(sys.argv[2] + "/" + path.rpartition("/")[2] + ".npy", found.labels)
"""


def cells(seed: int, side: int = 128, number: int = 12) -> tuple[NDArray[np.uint16], ...]:
    """A noisy image [Y, X] of bright discs, and the discs numbered from 1."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.uint16)
    y, x = np.indices(labels.shape)
    for _ in range(400):
        centre, radius = rng.integers(8, side - 8, 2), rng.integers(5, 9)
        away = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
        if labels.max() < number and not labels[away <= (radius + 1) ** 2].any():
            labels[away <= radius**2] = labels.max() + 1
    image = 500 + 3000.0 * (labels > 0) + rng.normal(0, 200, labels.shape)
    return image.clip(0, 65535).astype(np.uint16), labels


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel and what its metadata asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    torch = next(
        line for line in (ROOT / "requirements.lock").read_text().splitlines()
        if line.startswith("torch==")
    )  # fmt: skip
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--constraint", ROOT / "requirements.lock"]
    subprocess.run([*pip, torch, ROOT / WHEEL], check=True)
    return folder


def test_from_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    """`unet init`, `check`, `run`, `predict`, `evaluate`; then the same masks in Python."""
    for part, seeds in {"data": range(8), "new": range(100, 103)}.items():
        for kind in ("images", "labels"):
            (tmp_path / part / kind).mkdir(parents=True)
        for seed in seeds:
            image, labels = cells(seed)
            tifffile.imwrite(tmp_path / part / "images" / f"c{seed}.tif", image)
            tifffile.imwrite(tmp_path / part / "labels" / f"c{seed}.tif", labels)
    # Nothing of the clone or of the environment that runs the tests may help.
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def call(*words: object) -> str:
        done = subprocess.run(
            [str(environment / "bin" / str(words[0])), *map(str, words[1:])],
            cwd=tmp_path, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    call("unet", "init", "data", "--minutes", "0.3", "--output", "results")
    assert "8" in call("unet", "check", "data.yaml")
    (page,) = (tmp_path / "results").glob("*/check.html")
    dataset = page.parent.name
    call("unet", "run", "data.yaml")
    assert (tmp_path / "results" / "report.html").is_file()
    (model,) = {path.parent.parent for path in (page.parent).glob("*/fold-*/model.pt")}
    call("unet", "predict", model, "new/images", "-o", "segmented")
    assert (tmp_path / "segmented" / "index.html").is_file()
    table = call("unet", "evaluate", "segmented/masks", "new/labels", "-o", "scores")
    assert "AP" in table
    assert (tmp_path / "scores" / "report.csv").is_file()
    masks = sorted((tmp_path / "segmented" / "masks").glob("*.tif"))
    assert len(masks) == 3
    assert any(tifffile.imread(path).any() for path in masks), "nothing was found"
    script = tmp_path / "three_lines.py"
    script.write_text(IN_PYTHON)
    images = sorted((tmp_path / "new" / "images").glob("*.tif"))
    call("python", script, model, tmp_path, *images)
    for path in masks:
        found = np.load(tmp_path / f"{path.name}.npy")
        np.testing.assert_array_equal(found, tifffile.imread(path))
    assert dataset
