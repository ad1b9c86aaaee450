"""Predicts the held-out images of one fold, or of the ensemble of folds, tile by tile."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import allocator

if __name__ == "__main__":
    allocator.restart(allocator.KEPT)

from unet.cli.stage import parser, run, settings_of
from unet.config.stage_settings import PredictSettings
from unet.errors import UserError
from unet.paths import ENSEMBLE, Paths, fold_name, origin_of

if TYPE_CHECKING:
    from unet.prediction.tiles.predict_loop import Run
    from unet.prediction.tiles.prediction_job import PredictionData


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.files import read_json, write_sentinel
    from unet.models.gpu_meter import GpuMeter
    from unet.prediction.tiles.predict import gather, predict_fold
    from unet.prediction.tiles.prediction_job import PredictionResources, Share

    settings = settings_of(args, PredictSettings)
    where = (args.dataset, args.model, args.fold)
    folds = _members(settings, args.fold, args.dataset)
    done, tiles = paths.tiles_done(*where), paths.tiles(*where)
    shards = [paths.shard_done(*where, index) for index in range(args.shards)]
    inputs = [paths.model(args.dataset, args.model, fold) for fold in folds]
    inputs += [paths.prepared_done(args.dataset, args.model)]
    inputs += [] if origin_of(args.model) else [paths.splits(args.dataset)]
    inputs += shards if args.gather else []
    made_by = check_inputs(args, settings, inputs)
    if args.gather:
        found = [read_json(shard) for shard in shards]
        with _alone(args, tiles):
            images = gather(tiles, [shard["images"] for shard in found])
        write_sentinel(done, settings.version, images, made_by, head=found[0]["head"])
        return
    share = None if args.shard is None else Share(args.shard, args.shards)
    given, meter = (args.batch, args.memory_gb * 1e9, args.threads, args.gpus), GpuMeter()
    resources = PredictionResources(*given, meter)
    data = _data(args, paths, folds)
    # The data is loaded before locking: a stage that cannot start leaves no lock file.
    with _alone(args, tiles), _runner(args, data, paths, settings) as runner:
        images = predict_fold(data, settings, resources, share, runner)
    head = list(data.members[0].model.head)
    target = done if share is None else shards[share.index]
    write_sentinel(target, settings.version, images, made_by, head=head)
    job = (args.dataset, args.model, fold_name(args.fold))
    if share is None:
        meter.write(paths.gpu_use("predict", *job))
    else:
        meter.write(paths.gpu_use("predict_shard", *job, str(share.index)))


def _data(args: argparse.Namespace, paths: Paths, folds: Sequence[int]) -> PredictionData:
    """The networks of these folds, and the images to predict."""
    from unet.data.records import read_splits
    from unet.files import read_json
    from unet.prediction.tiles.ensemble import Member, held_out
    from unet.prediction.tiles.prediction_job import PredictionData

    prepared = read_json(paths.prepared_done(args.dataset, args.model))
    if origin_of(args.model) is None:
        parts, alone = held_out(read_splits(paths.splits(args.dataset)), folds)
    else:
        # The networks were trained on another dataset and have seen none of these images.
        parts, alone = dict.fromkeys(prepared["images"], "test"), {}
    members = [Member.load(paths.model(args.dataset, args.model, fold)) for fold in folds]
    store, tiles = (
        paths.prepared(args.dataset, args.model),
        paths.tiles(args.dataset, args.model, args.fold),
    )
    return PredictionData(members, store, prepared, parts, tiles, alone)


@contextmanager
def _alone(args: argparse.Namespace, tiles: Path) -> Iterator[None]:
    """Locks out all other processes, or those that do not share the fold with this one."""
    from unet.files import lock_of, locked

    with ExitStack() as stack:
        sharing = args.shard is not None
        stack.enter_context(locked(lock_of(tiles), "predicting this fold", shared=sharing))
        if sharing:
            own = tiles.with_suffix(f".shard-{args.shard}")
            stack.enter_context(locked(lock_of(own), f"predicting shard {args.shard}"))
        yield


@contextmanager
def _runner(
    args: argparse.Namespace, data: PredictionData, paths: Paths, settings: PredictSettings
) -> Iterator[Run | None]:
    """Runs the batches on a cluster if one is configured; None: in this process."""
    from unet.config.sections import ClusterSection

    section = ClusterSection.model_validate_json(args.cluster) if args.cluster else None
    if section is None:
        yield None
        return
    from unet.prediction.tiles.cluster import on_cluster

    folder = paths.checkpoints(args.dataset, args.model, args.fold) / "dask"
    with on_cluster(
        section,
        models=[member.path for member in data.members],
        alone=data.alone,
        prepared=data.store,
        device=settings.device,
        folder=folder if args.shard is None else folder / f"shard-{args.shard}",
    ) as run_batches:
        yield run_batches


def _members(settings: PredictSettings, fold: int, dataset: str) -> list[int]:
    """The folds whose networks predict."""
    if fold != ENSEMBLE:
        return [fold]
    if not settings.members:
        raise UserError(
            f"--fold ensemble: datasets.{dataset}.split has none; set both folds and test there"
        )
    return list(settings.members)


def _batch(text: str) -> int | str:
    return text if text == "auto" else int(text)


def main(argv: Sequence[str] | None = None) -> int:
    p = parser(
        "predict",
        "Applies a trained model to the test and validation images of a fold, or the models of "
        "all folds together to their common test images. Works in tiles whose cores together "
        "equal the prediction of the whole image. Writes tiles.zarr.",
        model=True,
        fold=True,
    )
    p.add_argument("--batch", type=_batch, default="auto", help="tiles per batch, or auto")
    p.add_argument("--memory-gb", type=float, default=4.0, help="memory to use, in GB")
    p.add_argument("--gpus", type=int, default=1, help="GPUs of this machine to use")
    p.add_argument("--shards", type=int, default=1, help="number of jobs that share the fold")
    part = p.add_mutually_exclusive_group()
    part.add_argument("--shard", type=int, help="number of this job, from 0")
    part.add_argument("--gather", action="store_true", help="join the tiles of all shards")
    p.add_argument("--cluster", help="JSON of the config's section predict.cluster")
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
