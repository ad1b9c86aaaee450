"""``unet init``: looks at a folder of images and labels, and writes a config that runs."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unet.cli.stage import run
from unet.errors import UserError, one_line
from unet.files import replacing
from unet.paths import Paths

if TYPE_CHECKING:
    from unet.cli.init_draft import DraftDataset

log = logging.getLogger("unet")

MINUTES = 5.0
# Findings of the survey that are printed; the others are for ``unet check``.
SHOWN = 5


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet init``."""
    p.description = (
        "Looks at a folder of images and labels and writes a config that runs as it is. What was "
        "seen stands in it as comments; what you should confirm is marked CHECK. The training is "
        "sized for a first result in a few minutes on this machine."
    )
    p.epilog = (
        "examples:\n"
        "  unet init ~/nuclei                       writes nuclei.yaml\n"
        "  unet init ~/nuclei -o my.yaml --force    replaces my.yaml\n"
        "  unet init ~/nuclei --minutes 30          a longer training\n"
    )
    p.add_argument("folder", type=Path, help="the folder that holds images and labels")
    p.add_argument(
        "-o", "--config", type=Path, metavar="FILE",
        help="the config to write (default: <name of the folder>.yaml here)",
    )  # fmt: skip
    p.add_argument(
        "--output", metavar="FOLDER",
        help="the run's output folder, for the config (default: results-<name of the folder>)",
    )  # fmt: skip
    p.add_argument("--minutes", type=_positive, default=MINUTES, help="time until the first result")
    p.add_argument("--force", action="store_true", help="replace the config if it exists")
    p.set_defaults(log=None)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 10_000:
        raise argparse.ArgumentTypeError(f"got {text}; write minutes above 0, such as 5")
    return value


def config_text(
    folder: Path, output: str | None = None, *, minutes: float = MINUTES, flops: float | None = None
) -> str:
    """The config for a folder.

    Args:
        folder: with images and labels, in any of the forms of
            :mod:`unet.data.survey.recognise`.
        output: the run's output folder; None: ``results-<name of the folder>``.
        minutes: time until the first result.
        flops: speed of this machine; None: it is measured.

    Raises:
        UserError: nothing to train on, or files that cannot be read.
    """
    from unet.cli.init_draft import drafts_of

    return _text(drafts_of(folder), _name(folder), output, minutes, flops)


def _name(folder: Path) -> str:
    from unet.data.survey.recognise import dataset_name

    return dataset_name(folder.resolve().name)


def _text(
    drafts: Sequence[DraftDataset], name: str, output: str | None, minutes: float,
    flops: float | None = None,
) -> str:  # fmt: skip
    import torch

    from unet.cli.init_text import sized, text_of

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if flops is None:
        from unet.training.auto.speed import measured_flops

        flops = measured_flops(device)
    each = 60 * minutes / len(drafts)
    sizes = [sized(draft, flops, each) for draft in drafts]
    speed = f"on this machine's {'GPU' if device == 'cuda' else 'CPU'}"
    text = text_of(drafts, sizes, output or f"results-{name}", minutes, speed)
    _check_loads(text, drafts)
    return text


def _check_loads(text: str, drafts: Sequence[DraftDataset]) -> None:
    """Checks that the text is a config, with the folder and the keys that were meant: no name of a
    file may break it.

    Raises:
        UserError: it is not.
    """
    import yaml

    from unet.config.load import load

    root = drafts[0].root
    try:
        raw = yaml.safe_load(text)
        load(raw)
    except (yaml.YAMLError, UserError) as error:
        raise UserError(
            f"{one_line(root)}: the config made for it cannot be loaded ({one_line(error, 300)}); "
            "rename files and folders with unusual characters, or write a config by hand"
        ) from error
    named = {draft.name: dict(draft.keys) for draft in drafts}
    read = {
        name: {key: value for key, value in section.items() if key in named.get(name, ())}
        for name, section in raw["datasets"].items()
    }
    if raw["data_root"] != str(root) or read != named:
        raise UserError(
            f"{one_line(root)}: the config made for it would name other files; rename files and "
            "folders with unusual characters, or write a config by hand"
        )


def command(args: argparse.Namespace) -> int:
    """Writes the config, and says what was seen and what to do next."""
    args.output, output = Path(), args.output

    def write(args: argparse.Namespace, paths: Paths) -> None:
        _write(args, output)

    return run(args, write)


def _write(args: argparse.Namespace, output: str | None) -> None:
    from unet.cli.init_draft import drafts_of

    name = _name(args.folder)
    path: Path = args.config or Path(f"{name}.yaml")
    if path.exists() and not args.force:
        raise UserError(f"{path}: exists already; write --force to replace it, or -o another.yaml")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"{path}: not the name of a config; write -o my.yaml")
    drafts = drafts_of(args.folder)
    text = _text(drafts, name, output, args.minutes)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    for draft in drafts:
        _say(draft)
    stops = sum(f.level == "stop" for draft in drafts for f in draft.survey.findings)
    if stops:
        what = "the finding" if stops == 1 else f"the {stops} findings"
        log.info("wrote %s; mend %s of level stop first, then:", path, what)
        log.info("  unet check %s", path)
        return
    log.info("wrote %s; next:", path)
    log.info("  unet check %s", path)
    log.info("  unet run %s", path)


def _say(draft: DraftDataset) -> None:
    log.info("%s:", draft.name)
    for line in draft.seen:
        log.info("  %s", line)
    for check in (line for lines in draft.checks.values() for line in lines):
        log.info("  CHECK: %s", check)
    # The worst come first.
    found = [f for f in draft.survey.findings if f.level != "note"]
    for finding in found[:SHOWN]:
        log.info("  %s: %s", finding.level, finding.text)
    if len(found) > SHOWN:
        log.info("  and %d more: unet check shows them", len(found) - SHOWN)
