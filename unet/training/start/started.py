"""Puts trained weights into the network of a training, and tells what became of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from unet.config.sections import TrainSection
from unet.errors import UserError
from unet.models.model_file import ModelFile
from unet.models.network import Network
from unet.models.norms import BatchNorm, SampleNorm
from unet.training.progress import TrainingProgress
from unet.training.start.fitted_weights import TakenLayers, output_layers, take_weights
from unet.training.start.start_differences import StartSide, differences

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Started:
    """A network with the weights of a start.

    Attributes:
        layers: what was taken.
        kept: modules that stay in evaluation mode: normalisation that uses the statistics of the
            start, and levels whose weights stay.
        renewed: normalisation whose statistics are estimated from the new images alone.
        warnings: how the start differs from this training.
        random_outputs: whether the layer that gives the outputs is new.
    """

    layers: TakenLayers
    kept: tuple[nn.Module, ...] = ()
    renewed: tuple[nn.Module, ...] = ()
    warnings: tuple[str, ...] = ()
    random_outputs: bool = False

    def keep(self) -> None:
        """To call after ``network.train()``."""
        for module in self.kept:
            module.eval()

    def renew(self) -> None:
        """Forgets the statistics of the start, once the start itself was validated."""
        for module in self.renewed:
            if isinstance(module, BatchNorm):
                module.reset_running_stats()
            elif isinstance(module, SampleNorm):
                module.running_mean.zero_()
                module.running_var.fill_(1)


def side_of(model: ModelFile) -> StartSide:
    """What of a model file can be compared."""
    return StartSide(
        model.architecture, model.task, model.head, model.in_channels, model.pixel_size_um,
        model.normalize,
    )  # fmt: skip


def put_weights(
    start: ModelFile, network: Network, own: StartSide, section: TrainSection
) -> Started:
    """Copies the weights that fit into the network, and freezes what stays; logs what differs.

    Args:
        own: this training, to be compared with the start.

    Raises:
        UserError: nothing fits, or a level that should stay does not come from the start.
    """
    lines = tuple(f"start: {line}" for line in differences(side_of(start), own))
    for line in lines:
        log.warning("warning: %s", line)
    layers = take_weights(start, network, own.head or ())
    for what, names in (("adapted", layers.adapted), ("new", layers.new)):
        if names:
            log.info("start: layers that are %s: %s", what, ", ".join(names))
    if layers.left_out:
        log.info("start: its layers that are not used: %s", ", ".join(layers.left_out))
    log.info("start: %d layers have its weights", len(layers.taken))
    frozen = _frozen(network, section.freeze, layers)
    for module in frozen:
        module.requires_grad_(False)
    stay = [child for module in frozen for child in module.modules()]
    modules = dict(network.named_modules())
    norms = [
        modules[name]
        for name in layers.taken
        if isinstance(modules[name], (BatchNorm, SampleNorm)) and modules[name] not in stay
    ]
    kept = (*frozen, *(norms if section.norm_statistics == "keep" else ()))
    renewed = tuple(norms if section.norm_statistics == "reset" else ())
    random = not output_layers(network).isdisjoint(layers.new)
    return Started(layers, kept, renewed, lines, random)


def _frozen(network: Network, levels: int, layers: TakenLayers) -> list[nn.Module]:
    """The modules of the first levels of the contracting path."""
    most = len(network.levels)
    if levels > most:
        raise UserError(
            f"train.freeze: {levels} levels, but the contracting path has {most}; write at most "
            f"{most}"
        )
    stay = network.levels[:levels]
    for level, modules in enumerate(stay):
        within = tuple(f"{module}." for module in modules)
        new = [name for name in layers.new if f"{name}.".startswith(within)]
        if new:
            raise UserError(
                f"train.freeze: {new[0]} does not come from the start, so random weights would "
                f"stay; write {level}"
            )
    return [network.get_submodule(module) for modules in stay for module in modules]


def account(start: ModelFile, started: Started, progress: TrainingProgress) -> dict[str, Any]:
    """The content of ``start.json``: layers, scores of the start and of the result, warnings. Those
    about the scores are logged.

    Args:
        progress: of the training; the first row of its history is the start, unless the start's
            last layer is random.
    """
    rows, untrained = progress.history, progress.untrained_score
    first = math.nan if untrained is None else untrained
    if rows and rows[0]["epoch"] == 0:
        first, rows = rows[0]["val_score"], rows[1:]
    later = [row["val_score"] for row in rows if not math.isnan(row["val_score"])]
    worse = worse_than_start(first, rows, started.random_outputs)
    for line in worse:
        log.warning("warning: %s", line)
    return {
        "layers": started.layers.to_json(),
        "trained_on": {
            "task": start.task,
            "classes": list(start.class_names),
            "channels": start.in_channels,
            "pixel_size_um": start.pixel_size_um and list(start.pixel_size_um),
        },
        "validation_score": {
            "start": None if math.isnan(first) else first,
            "best": max(later, default=None),
            "last": later[-1] if later else None,
        },
        # So that the report does not take the start's scores for those of a trained network.
        **({"random_outputs": True} if started.random_outputs else {}),
        "warnings": [*started.warnings, *worse],
    }


def worse_than_start(
    start: float, rows: Sequence[Mapping[str, float]], random_outputs: bool = False
) -> list[str]:
    """A warning if the training did not improve on its start, or ended below it.

    Args:
        start: its validation score.
        rows: the later epochs.
        random_outputs: whether the start's last layer is random.
    """
    later = [row for row in rows if not math.isnan(row["val_score"])]
    if math.isnan(start) or not later:
        return []
    best, last = max(later, key=lambda row: row["val_score"]), later[-1]
    if random_outputs:
        if best["val_score"] > start:
            return []
        return [
            f"training did not improve on a random last layer: validation score {start:.3f} before "
            f"the first step, at most {best['val_score']:.3f} after it; write more train.epochs, "
            "or a larger train.lr"
        ]
    advice = "write a smaller train.lr, or train.freeze; docs/finetuning.md says more"
    if best["val_score"] <= start:
        return [
            f"training did not improve on its start: validation score {start:.3f} before the first "
            f"step, at most {best['val_score']:.3f} after it; model.pt has the start's weights; "
            f"{advice}"
        ]
    if last["val_score"] < start:
        return [
            f"training ended worse than it began: validation score {start:.3f} before the first "
            f"step, {last['val_score']:.3f} at the end; the weights of epoch {best['epoch']:.0f} "
            f"({best['val_score']:.3f}) are kept; {advice}"
        ]
    return []
