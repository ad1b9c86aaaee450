"""The text of the config that ``unet init`` writes: YAML with comments."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unet.cli.init_draft import DraftDataset, in_comment, scalar
from unet.config.anisotropy import fitted
from unet.config.geometry import footprint
from unet.config.presets import Architecture, architecture_of

# Share of the time for the steps of the training; the rest for the other stages.
FOR_STEPS = 0.6
# Fewer steps than this teach little: the patch is made smaller first, down to these sides.
USEFUL_STEPS, LEAST_STEPS, MOST_STEPS = 300, 100, 5000
SMALL_PATCH, NARROW = {2: 128, 3: 32}, 16
EPOCHS, MOST_EPOCH_STEPS = (10, 5, 2), 100
# Share of the images that validates in each epoch, and a forward pass as a share of a step.
VALIDATED, FORWARD = 0.2, 1 / 3
# Of the time for the steps, validation may take this much.
FOR_VALIDATION = 0.25
COLUMN = 27


@dataclass(frozen=True)
class Sized:
    """A training that fits the time.

    Attributes:
        patch: (Z) Y X.
        seconds: that the steps and validations take, estimated.
    """

    width: int
    patch: tuple[int, ...]
    batch: int
    epochs: int
    steps_per_epoch: int
    seconds: float


def architecture(draft: DraftDataset, width: int) -> Architecture:
    """The network that the config names."""
    depth = draft.value("depth")
    arch = architecture_of(preset(draft), dims=draft.dims, width=width, depth=depth)
    if not isinstance(arch, Architecture):
        raise ValueError("not a U-Net")
    sizes = [i.pixel_size_um for i in draft.survey.images if i.pixel_size_um is not None]
    return fitted(arch, next((s for s in sizes if len(s) == draft.dims), None))


def preset(draft: DraftDataset) -> str:
    """Volumes have few patches per step, for which batch normalisation is no good."""
    return "unet-bn" if draft.dims == 2 else "unet-res"


def sized(draft: DraftDataset, flops: float, seconds: float) -> Sized:
    """A training that takes about this time: with the proposed sizes if they leave enough steps;
    otherwise with a narrower network, then smaller patches, then fewer of them.

    Args:
        flops: of :func:`unet.training.auto.speed.measured_flops`.
        seconds: for this dataset, all stages together.
    """
    for width, patch, batch in _candidates(draft):
        found = _timed(draft, architecture(draft, width), patch, batch, flops, FOR_STEPS * seconds)
        if found.epochs * found.steps_per_epoch >= USEFUL_STEPS:
            break
    return found


def _candidates(draft: DraftDataset) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Width, patch and batch, the proposed ones first."""
    proposed: int = draft.value("width", NARROW)
    wanted = draft.value("patch", SMALL_PATCH[draft.dims])
    patch = (wanted,) * draft.dims if isinstance(wanted, int) else tuple(wanted)
    grids = [f.grid for f in footprint(architecture(draft, NARROW))]
    width = proposed
    for width in [w for w in (32, 24, NARROW) if w <= proposed]:
        yield width, patch, _batch(patch)
    objects = draft.survey.objects
    floor = max(SMALL_PATCH[draft.dims], 2 * objects.diameter[2] if objects is not None else 0)
    while max(patch) / 2 >= floor:
        patch = tuple(max(g, n // 2 // g * g) for n, g in zip(patch, grids, strict=True))
        yield width, patch, _batch(patch)
    batch = _batch(patch)
    while batch > (least := 4 if draft.dims == 2 else 2):
        batch = max(least, batch // 2)
        yield width, patch, batch


def _timed(
    draft: DraftDataset,
    arch: Architecture,
    patch: tuple[int, ...],
    batch: int,
    flops: float,
    budget: float,
) -> Sized:
    """The epochs and steps that these sizes leave time for; ``budget`` in seconds."""
    from unet.training.auto.proposals import spatial
    from unet.training.auto.speed import step_flop

    images = [image for image in draft.survey.images if image.status == "ok"]
    channels = next((image.shape[0] for image in images if image.shape), 1)
    step = step_flop(arch, channels, draft.outputs, patch, batch) / flops
    pixels = VALIDATED * sum(math.prod(spatial(image)) for image in images)
    validation = pixels / (batch * math.prod(patch)) * step * FORWARD
    epochs = next((n for n in EPOCHS if n * validation < FOR_VALIDATION * budget), EPOCHS[-1])
    steps = min(MOST_STEPS, max(LEAST_STEPS, (budget - epochs * validation) / step))
    epochs = max(epochs, math.ceil(steps / MOST_EPOCH_STEPS))
    each = max(1, round(steps / epochs))
    return Sized(arch.width, patch, batch, epochs, each, epochs * (each * step + validation))


def _batch(patch: Sequence[int]) -> int:
    """Patches per step: some 2^18 pixels, 2 to 8."""
    return max(2, min(8, (1 << 18) // math.prod(patch)))


# The text


def text_of(
    drafts: Sequence[DraftDataset], sizes: Sequence[Sized], output: str, minutes: float, speed: str
) -> str:
    """The config.

    Args:
        drafts: at least one; their models get names of their own if they differ.
        speed: what the time was estimated with, for a comment.
    """
    lines = ["# A first config, written by unet init. Lines with CHECK need your eyes.", "#"]
    for draft in drafts:
        lines += [f"# Seen in {in_comment(draft.root)}{_of(draft, drafts)}:"]
        lines += [part for line in draft.seen for part in _wrapped(line, "#   ")]
    lines += ["", f"output: {scalar(output)}", f"data_root: {scalar(str(drafts[0].root))}", ""]
    models = _model_names(drafts, sizes)
    lines += ["datasets:"]
    for draft, size in zip(drafts, sizes, strict=True):
        lines += _dataset(draft, models, size if len(drafts) > 1 else None)
    lines += ["", "models:"]
    done = set()
    for draft, size in zip(drafts, sizes, strict=True):
        if models[draft.name] not in done:
            done.add(models[draft.name])
            lines += _model(models[draft.name], draft, size)
    lines += ["", *_train(drafts, sizes, minutes, speed), "", *_stitch(drafts)]
    return "\n".join(lines) + "\n"


def _of(draft: DraftDataset, drafts: Sequence[DraftDataset]) -> str:
    return f", dataset {draft.name}" if len(drafts) > 1 else ""


def _commented(line: str, comment: str) -> str:
    return f"{line.ljust(COLUMN)} # {in_comment(comment)}" if comment else line


_MEANINGS = {
    "instances": "numbered objects, 0 is background",
    "semantic": "a class for each pixel",
    "binary": "one value for all objects: each connected piece is one",
    "stack": "each page is an image of its own",
}


def _dataset(draft: DraftDataset, models: Mapping[str, str], size: Sized | None) -> Iterable[str]:
    yield f"  {scalar(draft.name)}:"
    for key, value in draft.keys.items():
        for check in draft.checks.get(key, ()):
            end = "" if check.endswith("?") else "."
            yield from _wrapped(f"CHECK: {check}{end}", "    # ")
        comment = _MEANINGS.get(value, "") if isinstance(value, str) else ""
        if key == "task" and draft.keys.get("label_kind") == "binary":
            comment = ""
        if key == "split" and "run" in value:
            comment = f"one part of {value['folds']} is tested; without run, each part is, in turn"
        yield _commented(f"    {key}: {scalar(value)}", comment)
        for at, lines in draft.others.items():
            if _after(at, draft.keys) == key:
                yield from (f"    # {in_comment(line)}" for line in lines)
    if size is not None:
        yield f"    models: [{models[draft.name]}]"
        yield f"    train: {{patch: {scalar(_patch(size))}}}"
        if "min_size" in draft.proposals:
            yield f"    stitch: {{min_size: {draft.value('min_size')}}}"


def _after(key: str, keys: Mapping[str, Any]) -> str:
    """The key after whose line the lines that could stand instead are shown."""
    if key == "task":
        return next((name for name in ("classes", "label_kind") if name in keys), key)
    return "axes" if key == "layout" and "layout" not in keys else key


def _wrapped(text: str, start: str) -> list[str]:
    """Lines of a comment; further ones are indented."""
    return textwrap.wrap(
        in_comment(text),
        100,
        initial_indent=start,
        subsequent_indent=f"{start}  ",
        break_long_words=False,
    )


def _patch(size: Sized) -> int | list[int]:
    same = len(set(size.patch)) == 1 and size.patch[0] >= 8
    return size.patch[0] if same else list(size.patch)


def _model_names(drafts: Sequence[DraftDataset], sizes: Sequence[Sized]) -> dict[str, str]:
    """Dataset -> model; datasets share a model if the same layers suit them."""
    kinds: dict[str, str] = {}
    names = {}
    for draft, size in zip(drafts, sizes, strict=True):
        values = [draft.value(key) for key in ("dims", "depth", "head", "border_width", "grow_px")]
        kind = scalar([size.width, *values])
        names[draft.name] = kinds.setdefault(kind, f"unet-{len(kinds) + 1}" if kinds else "unet")
    return names


def _model(name: str, draft: DraftDataset, size: Sized) -> Iterable[str]:
    yield f"  {name}:"
    yield f"    preset: {preset(draft)}"
    for key in ("dims", "width", "depth", "head", "border_width"):
        if key not in draft.proposals:
            continue
        value, reason = draft.proposals[key].value, draft.proposals[key].reason
        if key == "width" and size.width < value:
            value, reason = size.width, f"for speed; for a long training {value}, since {reason}"
        yield _commented(f"    {key}: {scalar(value)}", reason)
    if "method" in draft.proposals:
        keys = [key for key in ("method", "grow_px") if key in draft.proposals]
        value = scalar({key: draft.value(key) for key in keys})
        yield _commented(f"    stitch: {value}", draft.proposals[keys[-1]].reason)


def _minutes(number: float) -> str:
    return f"{number:g} minute{'' if number == 1 else 's'}"


def _train(
    drafts: Sequence[DraftDataset], sizes: Sequence[Sized], minutes: float, speed: str
) -> Iterable[str]:
    size = sizes[0]
    training = sum(s.seconds for s in sizes) / 60
    if training > minutes:
        least = _minutes(max(1, round(training)))
        yield f"# The shortest training that is of use takes about {least} {speed},"
        yield f"# more than the {minutes:g} that you asked for."
    else:
        yield f"# Sized for a first result in about {_minutes(minutes)} {speed};"
        yield f"# the training alone takes about {max(1, round(training))}."
    yield "# For a better one, train longer: epochs: 50 and steps_per_epoch: 100, say."
    yield "train:"
    if len(drafts) == 1:
        found = drafts[0].proposals.get("patch")
        reason = found.reason if found else ""
        if found and _patch(size) != found.value:
            reason = f"for speed; for a long training {scalar(found.value)}"
        yield _commented(f"  patch: {scalar(_patch(size))}", reason)
    yield _commented(f"  batch: {min(s.batch for s in sizes)}", "patches per step")
    yield f"  epochs: {min(s.epochs for s in sizes)}"
    yield f"  steps_per_epoch: {min(s.steps_per_epoch for s in sizes)}"
    yield "  lr: 2.0e-3"
    yield _commented("  ema: 0.98", "a running average of the weights; 0.995 for long trainings")
    distance = [d.value("distance_px") for d in drafts if "distance_px" in d.proposals]
    if distance:
        yield _commented(f"  distance_px: {min(distance)}", "the radius of small objects")
    yield _commented("  augment:", "weak, for a short training; leave out for a long one")
    yield "    rotate_deg: 45"
    yield "    scale: 0.1"
    yield "    elastic_px: 2"
    yield "    geometric_probability: 0.2"
    yield "    intensity_probability: 0.2"


def _stitch(drafts: Sequence[DraftDataset]) -> Iterable[str]:
    yield "stitch:"
    yield _commented("  threshold: auto", "the validation images choose it")
    found = drafts[0].proposals.get("min_size")
    if found is not None and len(drafts) == 1:
        yield _commented(f"  min_size: {found.value}", found.reason)
