"""Chooses the model of a sweep by its validation score, for one fold of one dataset."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

# The package need not be installed: this file's parent folder is the project.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import provenance
from unet.cli.stage import parser, run, settings_of
from unet.config.choose_settings import ChooseSettings
from unet.errors import UserError
from unet.files import digest, write_json
from unet.paths import ENSEMBLE, Paths

log = logging.getLogger(__name__)


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.data.dataset_warnings import training_warnings, write_training_warnings
    from unet.training.choice import (
        Candidate,
        as_json,
        best_score,
        chosen,
        copy_training,
        kept_start,
        none_improved,
    )

    settings = settings_of(args, ChooseSettings)
    folds = settings.folds or (args.fold,)
    if args.fold not in folds:
        there = ", ".join(map(str, settings.folds))
        raise UserError(f"--fold: no fold {args.fold} in {args.dataset}; there are: {there}")
    members, where = settings.members, (args.dataset, args.model, args.fold)
    histories = [paths.history(args.dataset, m, k) for m in members for k in folds]
    models = [paths.model(args.dataset, m, args.fold) for m in members]
    made = check_inputs(args, settings, [*histories, *models])
    # The models that were not chosen made no results.
    made_by = {key: value for key, value in made.items() if key != "models"}
    candidates = [
        Candidate(
            m,
            settings.values[m],
            {k: best_score(paths.history(args.dataset, m, k)) for k in folds},
            tuple(k for k in folds if kept_start(paths.history(args.dataset, m, k))),
        )
        for m in members
    ]
    best = chosen(candidates)
    names = [path(*where).name for path in (paths.model, paths.history, paths.curves)]
    source = paths.fold(args.dataset, best.name, args.fold)
    copy_training(source, paths.fold(*where), names, ["plan.yaml", "start.json"])
    provenance.write_sidecar(paths.history(*where), made_by)
    # The console and the report show the warnings of models that people wrote.
    warned = training_warnings(paths, args.dataset, best.name, args.fold)
    said = [f"{best.name}, which was chosen: {line}" for line in warned]
    if remark := none_improved(candidates):
        log.warning("warning: %s", remark)
        said.append(f"sweep: {remark}")
    write_training_warnings(paths, *where, said)
    about = as_json(candidates, best)
    content = {"content": digest(about), **about, provenance.KEY: made_by}
    write_json(paths.choice(*where), content)
    log.info(
        "%s: chosen among %d models, with a validation score of %.4f",
        best.name, len(candidates), best.mean,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    p = parser(
        "choose",
        "Makes a model with a sweep from the one with the best validation score. Writes model.pt, "
        "history.csv and curves.png (copies), and choice.json with all scores.",
        model=True,
        fold=True,
    )
    args = p.parse_args(argv)
    if args.fold == ENSEMBLE:
        p.error("argument --fold: networks are chosen per fold; write a number")
    return run(args, run_stage)


if __name__ == "__main__":
    sys.exit(main())
