"""Makes docs/images/demo.png from the results of `make demo`: the middle of each dataset's median
test image, its truth, and what each model found, missed and added.
Run: python docs/picture.py [results]"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image, ImageDraw, ImageFont

from unet.config.load import load_file
from unet.config.run import Config
from unet.export.mark_colours import BOTH, FALSE, MISSED
from unet.paths import Paths
from unet.report import collect, overlays
from unet.report.score_tables import columns_for, read_metrics, read_report

SIDE, HEIGHT, GAP = 256, 128, 6
LEFT, LINE = 30, 30  # room for the names of the rows; height of a line of text
LEGEND = (
    ("found", BOTH),
    ("missed", MISSED),
    ("false", FALSE),
)


def panels(config: Config, paths: Paths, dataset: str, height: int = HEIGHT) -> list[Image.Image]:
    """Image, truth and the errors of each model, for the median image of the best model; the middle
    of each, ``height`` pixels high."""
    task, models = config.datasets[dataset].task, config.models_for(dataset)
    rows = read_report(paths.dataset_report_csv(dataset))
    score = columns_for(rows, task)[0]
    means = {r.model: r.mean for r in rows if (r.class_, r.metric) == (score.class_, score.metric)}
    best = max(means, key=lambda name: means[name])
    (pick,) = collect.picks(read_metrics(paths.metrics(dataset, best)), best, score, 1)
    uris: list[str] = []
    for model in models:
        view = collect.view(paths, dataset, model, task, pick)
        if view is None:
            raise SystemExit(f"{dataset}: its stores are missing; run make demo")
        image, truth, _, error = overlays.panels(view, task, SIDE)
        uris += [error.uri] if uris else [image.uri, truth.uri, error.uri]
    top = (SIDE - height) // 2
    return [
        Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
        .convert("RGB")
        .resize((SIDE, SIDE))
        .crop((0, top, SIDE, top + height))
        for uri in uris
    ]


def _sheet(headings: list[str], rows: dict[str, list[Image.Image]]) -> Image.Image:
    step_x, step_y = SIDE + GAP, HEIGHT + GAP
    width, height = LEFT + len(headings) * step_x - GAP, 2 * LINE + len(rows) * step_y - GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(18)
    for x, heading in enumerate(headings):
        middle = LEFT + x * step_x + SIDE // 2
        draw.text((middle, LINE // 2), heading, "black", font, anchor="mm")
    for y, (name, panels) in enumerate(rows.items()):
        label = Image.new("RGB", (HEIGHT, LEFT), "white")
        ImageDraw.Draw(label).text((HEIGHT // 2, LEFT // 2), name, "black", font, anchor="mm")
        sheet.paste(label.rotate(90, expand=True), (0, LINE + y * step_y))
        for x, panel in enumerate(panels):
            sheet.paste(panel, (LEFT + x * step_x, LINE + y * step_y))
    x, middle = LEFT + 2 * step_x, height - LINE // 2
    for text, colour in LEGEND:
        draw.rectangle((x, middle - 8, x + 16, middle + 8), fill=colour, outline="grey")
        draw.text((x + 24, middle), text, "black", font, anchor="lm")
        x += 24 + round(draw.textlength(text, font)) + 24
    return sheet


def main() -> None:
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
    config = load_file(Path(__file__).resolve().parent.parent / "config" / "config.yaml")
    names = sorted(config.datasets)
    # A column for each place in the lists of models: what stands there in any dataset.
    columns = zip(*(config.models_for(name) for name in names), strict=True)
    headings = ["image", "truth", *(", ".join(dict.fromkeys(column)) for column in columns)]
    sheet = _sheet(headings, {name: panels(config, Paths(results), name) for name in names})
    target = Path(__file__).resolve().parent / "images" / "demo.png"
    sheet.quantize(256, kmeans=2).save(target, optimize=True)
    print(f"wrote {target} ({target.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    main()
