"""Generates a dataset of images with exact labels, for a first run and for tests."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/synthesize.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.stage import parser, run, settings_of
from unet.paths import Paths


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.config.data_settings import SynthesizeSettings
    from unet.data.synthetic import write_dataset
    from unet.files import remove, replacing, write_sentinel

    settings = settings_of(args, SynthesizeSettings)
    made_by = check_inputs(args, settings, [])
    section = settings.synthetic
    size = (section.size, section.size)
    with replacing(paths.raw(args.dataset)) as temporary:
        remove(temporary)  # it is an empty file
        stems = write_dataset(
            temporary, section.kind, settings.seed, section.images, size, section.pixel_size_um
        )
    write_sentinel(
        paths.raw_done(args.dataset),
        settings.version,
        {stem: {"kind": section.kind, "size": size} for stem in stems},
        made_by,
        seed=settings.seed,
        pixel_size_um=section.pixel_size_um,
    )


def main(argv: list[str] | None = None) -> int:
    return run(parser("synthesize", __doc__ or "").parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
