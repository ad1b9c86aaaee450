"""Prepares a dataset's images for a model that was trained on another dataset: with that model's
normalisation, at its pixel size."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/prepare_applied.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import allocator

if __name__ == "__main__":
    allocator.restart(allocator.ONE_HEAP)

from unet.cli.stage import parser, run, settings_of
from unet.errors import UserError
from unet.paths import Paths, origin_of


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.config.data_settings import PrepareAppliedSettings
    from unet.data.prepare import prepare_stage
    from unet.models.model_file import load_model
    from unet.prediction.tiles.applied_models import target_of

    if origin_of(args.model) is None:
        raise UserError(f"--model: got {args.model}; write <model>@<dataset it was trained on>")
    settings = settings_of(args, PrepareAppliedSettings)
    files = [paths.model(args.dataset, args.model, fold) for fold in settings.networks or ()]
    made_by = check_inputs(args, settings, [paths.manifest(args.dataset), *files])
    normalize, target = target_of({path: load_model(path) for path in files})
    prepare_stage(
        paths.manifest(args.dataset),
        paths.inputs(args.dataset),
        paths.prepared(args.dataset, args.model),
        paths.prepared_done(args.dataset, args.model),
        settings.normalized_by(normalize),
        threads=args.threads,
        memory_bytes=int(args.memory_gb * 1e9),
        root=args.root,
        target=target,
        made_by=made_by,
        warnings=paths.warnings(args.dataset, f"prepare-{args.model}"),
    )


def main(argv: list[str] | None = None) -> int:
    p = parser("prepare_applied", __doc__ or "", model=True)
    p.add_argument(
        "--root", type=Path, help="folder of the raw files, if it has moved since the manifest"
    )
    p.add_argument("--memory-gb", type=float, default=4.0, help="memory for pixels, in GB")
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
