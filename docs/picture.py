"""Makes docs/images/demo.png from the results of `make demo`: the median test image of each dataset
by its best model, as image, truth, prediction and error. Run: python docs/picture.py [results]"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image

from unet.config.load import load_file
from unet.paths import Paths
from unet.report import collect, overlays
from unet.report.score_tables import columns_for, read_metrics, read_report

SIDE, GAP = 256, 6


def _row(paths: Paths, dataset: str, task: str) -> list[Image.Image]:
    rows = read_report(paths.dataset_report_csv(dataset))
    score = columns_for(rows, task)[0]
    means = {r.model: r.mean for r in rows if (r.class_, r.metric) == (score.class_, score.metric)}
    model = max(means, key=lambda name: means[name])
    (pick,) = collect.picks(read_metrics(paths.metrics(dataset, model)), model, score, 1)
    view = collect.view(paths, dataset, model, task, pick)
    if view is None:
        raise SystemExit(f"{dataset}: its stores are gone; run make demo")
    pictures = []
    for panel in overlays.panels(view, task, SIDE):
        data = base64.b64decode(panel.uri.split(",", 1)[1])
        pictures.append(Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE)))
    return pictures


def main() -> None:
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
    config = load_file(Path(__file__).resolve().parent.parent / "config" / "config.yaml")
    rows = [_row(Paths(results), name, d.task) for name, d in sorted(config.datasets.items())]
    step = SIDE + GAP
    sheet = Image.new("RGB", (4 * step - GAP, len(rows) * step - GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * step, y * step))
    target = Path(__file__).resolve().parent / "images" / "demo.png"
    sheet.quantize(128).save(target, optimize=True)
    print(f"wrote {target} ({target.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    main()
