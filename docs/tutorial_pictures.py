"""Makes the pictures of docs/tutorial.md from a folder in which its commands were run.

python docs/tutorial_pictures.py FOLDER     # needs Chromium, or UNET_CHROMIUM that names it
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import tifffile
from matplotlib import colormaps
from numpy.typing import NDArray
from picture import panels
from PIL import Image

from unet.config.load import load_file
from unet.paths import Paths

IMAGES = ROOT / "docs" / "images"
DATASET = "my-nuclei"


def save(picture: Image.Image, name: str) -> None:
    path = IMAGES / name
    picture.convert("RGB").quantize(128, kmeans=1).save(path, optimize=True)
    print(f"wrote {path} ({path.stat().st_size // 1024} KiB)")


def side_by_side(pictures: list[Image.Image], gap: int = 8) -> Image.Image:
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + gap
    return sheet


def data(folder: Path) -> None:
    """The first image, and its label with a colour per object."""
    stem = f"{DATASET.removeprefix('my-')}_000.tif"
    image = tifffile.imread(folder / DATASET / "images" / stem).astype(float)
    labels = tifffile.imread(folder / DATASET / "labels" / stem)
    low, high = np.percentile(image, (1, 99.8))
    grey = (255 * ((image - low) / (high - low)).clip(0, 1)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(labels.max()) % 20
    colours: NDArray[np.float64] = colormaps["tab20"](np.r_[0, order])[:, :3]
    colours[0] = 0
    drawn = (255 * colours[labels]).astype(np.uint8)
    big = [Image.fromarray(a).resize((384, 384), Image.Resampling.NEAREST) for a in (grey, drawn)]
    save(side_by_side([picture.convert("RGB") for picture in big]), "tutorial_data.png")


def screenshot(page: Path, name: str, height: int = 800) -> None:
    """The first screen of a page."""
    browser = shutil.which(os.environ.get("UNET_CHROMIUM", "chromium"))
    if browser is None:
        raise SystemExit("no Chromium; install it, or name it in UNET_CHROMIUM")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        words = [
            "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
            f"--window-size=1100,{height}", f"--screenshot={shot}", page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run([browser, *words], check=True, capture_output=True, timeout=120)
        save(Image.open(shot), name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the commands of the page were run")
    folder: Path = parser.parse_args().folder
    config = load_file(folder / "my.yaml")
    paths = Paths(folder / config.output)
    data(folder)
    screenshot(paths.check_html(DATASET), "tutorial_check.png", 960)
    screenshot(paths.dataset_report_html(DATASET), "tutorial_report.png", 900)
    shown = panels(config, paths, DATASET, height=256)
    save(side_by_side(shown), "tutorial_errors.png")
    overview = Image.open(folder / "segmented" / "overview.png").convert("RGB")
    overview.thumbnail((760, 760), Image.Resampling.LANCZOS)
    save(overview, "tutorial_new.png")


if __name__ == "__main__":
    main()
