"""Lists a dataset's images and labels, reads each file once, and leaves out unusable ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/manifest.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.stage import parser, run, settings_of
from unet.paths import Paths


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet import provenance
    from unet.cli.stage_inputs import check_inputs
    from unet.config.data_settings import ManifestSettings
    from unet.data.manifest import RawSource, fingerprint, list_files, manifest_stage

    settings = settings_of(args, ManifestSettings)
    generated = args.root.resolve() == paths.raw(args.dataset).resolve()
    made = [paths.raw_done(args.dataset)] if generated else []
    made += [paths.download_done(args.dataset)] if args.downloaded else []
    made_by = check_inputs(args, settings, made)
    where = (args.root, args.images, args.labels)
    source = RawSource(*where, settings.layout, settings.labelled, settings.required)
    if not settings.fingerprint:
        there = fingerprint(list_files(source), source.root, None)
        settings = settings.model_copy(update={"fingerprint": there})
    if not made:
        # The workflow has no fingerprint of files that a stage makes, so none is recorded for them.
        made_by["settings"] = settings.to_json()
    manifest_stage(
        source,
        settings,
        manifest=paths.manifest(args.dataset),
        inputs=paths.inputs(args.dataset),
        threads=args.threads,
        warnings=paths.warnings(args.dataset, "manifest"),
    )
    provenance.write_sidecar(paths.manifest(args.dataset), made_by)


def main(argv: list[str] | None = None) -> int:
    p = parser("manifest", __doc__ or "")
    p.add_argument("--root", type=Path, default=Path(), help="folder that paths are relative to")
    p.add_argument("--images", required=True, help="folder, glob or sheet (.csv) of the images")
    p.add_argument("--labels", help="folder or glob of the labels (or what the layout needs)")
    p.add_argument(
        "--downloaded", action="store_true", help="the files were made by scripts/download.py"
    )
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
