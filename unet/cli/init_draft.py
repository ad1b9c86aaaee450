"""What ``unet init`` decides for each dataset in a folder: keys of the config, with reasons."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from unet.config.load import load
from unet.errors import UserError, how_many, one_line

if TYPE_CHECKING:
    from unet.data.raw_files import RawPair
    from unet.data.survey.facts import DatasetSurvey
    from unet.data.survey.file_meaning import FileMeaning
    from unet.data.survey.label_meaning import Kind, Meaning
    from unet.data.survey.recognise import Place
    from unet.training.auto.proposals import Proposal

# Images (or groups of them) from which on a fifth is tested.
ENOUGH, LEAST = 5, 3
# Pages of a stack in a group, so that neighbours stay together; and groups that this must leave.
PAGES_TOGETHER, LEAST_GROUPS = 10, 5
# Images of which pixels are measured.
SAMPLED = 12
EACH_ALONE = {"group": "(.+)"}


@dataclass(frozen=True)
class DraftDataset:
    """A dataset of the config to write.

    Attributes:
        name, root: its name, and the folder that its paths start from.
        keys: of the section ``datasets.<name>``.
        seen: what was seen, a line each.
        checks: what a person should confirm: key of ``keys`` -> lines.
        others: lines that could stand instead: key of ``keys`` -> lines.
        dims: spatial axes.
        proposals: by the last part of their keys.
        survey: the facts.
    """

    name: str
    root: Path
    keys: Mapping[str, Any]
    seen: tuple[str, ...]
    checks: Mapping[str, Sequence[str]]
    others: Mapping[str, Sequence[str]]
    dims: int
    survey: DatasetSurvey
    proposals: Mapping[str, Proposal] = field(default_factory=dict)

    @property
    def task(self) -> str:
        return str(self.keys["task"])

    @property
    def outputs(self) -> int:
        """Number of classes of the network, near enough for an estimate of time."""
        return len(self.keys.get("classes", ())) or 3

    def value(self, key: str, default: Any = None) -> Any:
        """The proposed value for a key."""
        return self.proposals[key].value if key in self.proposals else default


def scalar(value: Any) -> str:
    """A value in one line of YAML, whatever characters its texts have."""
    text = yaml.dump(value, Dumper=_OneLine, default_flow_style=True, width=10**9, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


class _OneLine(yaml.SafeDumper):
    """Writes texts with line breaks or control characters in double quotes, with escapes."""


def _text_of(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = not text or text.isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_OneLine.add_representer(str, _text_of)


def in_comment(text: object) -> str:
    """A text, which may hold any file name, for one line of a comment: line breaks become spaces,
    other characters that YAML or UTF-8 cannot hold become escapes."""
    line = one_line(text)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def drafts_of(folder: Path) -> list[DraftDataset]:
    """Looks at a folder.

    Raises:
        UserError: nothing to train on, or files that cannot be read.
    """
    from unet.data.survey.recognise import recognise

    return [_draft(name, place) for name, place in recognise(folder).items()]


def _draft(name: str, place: Place) -> DraftDataset:
    from unet.data.survey.file_meaning import meaning_of_files
    from unet.data.survey.label_meaning import meaning_of
    from unet.training.auto.proposals import proposals

    pairs = place.pairs()
    files = meaning_of_files(pairs, stack=place.layout == "stack")
    labels = meaning_of(pairs, "ZYX" if files.stack else files.axes, stack=files.stack)
    keys: dict[str, Any] = {"images": place.images}
    if place.labels is not None:
        keys["labels"] = place.labels
    layout = "stack" if files.stack else place.layout
    if layout != "folders":
        keys["layout"] = layout
    if files.axes:
        keys["axes"] = files.axes
    keys |= _task(labels)
    split, split_check = _split(name, files, pairs)
    keys |= {"split": split} | dict(place.keys)
    checks = {"layout" if files.stack else "axes": list(files.checks), "task": list(labels.checks)}
    if "split" not in place.keys:
        checks["split"] = split_check
    others = {
        "labels": [f"{line}   # {why}" for line, why in place.others],
        "layout": _other_axes(files),
        "task": _other_task(labels),
    }
    seen = (*place.seen, *files.seen, *labels.seen)
    survey = _survey(name, keys, place, files)
    seen += (_pixel_size(survey), *_measured(survey))
    draft = DraftDataset(name, place.root, keys, seen, checks, others, files.dims, survey)
    found = {p.key.rpartition(".")[2]: p for p in proposals(survey)}
    return replace(draft, proposals=found)


def _pixel_size(survey: DatasetSurvey) -> str:
    known = Counter(i.pixel_size_um for i in survey.images if i.pixel_size_um is not None)
    if not known:
        return "pixel size: not in the files; if you know it, write pixel_size_um"
    size, number = known.most_common(1)[0]
    text = " x ".join(f"{n:.4g}" for n in size)
    return f"pixel size: {text} um, from {number} of {how_many(len(survey.images), 'image')}"


def _measured(survey: DatasetSurvey) -> list[str]:
    usable = sum(image.status == "ok" for image in survey.images)
    if survey.measured == usable:
        return []
    return [f"objects measured in {survey.measured} of {usable} images; unet check measures more"]


def _task(labels: Meaning) -> dict[str, Any]:
    return _keys_of(labels.kind, labels) | (
        {} if labels.ignore is None else {"ignore": labels.ignore}
    )


def _keys_of(kind: Kind, labels: Meaning) -> dict[str, Any]:
    if kind == "semantic":
        return {"task": "semantic", "classes": dict(labels.classes)}
    binary = {"label_kind": "binary"} if kind == "binary" else {}
    return {"task": "instances", **binary}


def _other_task(labels: Meaning) -> list[str]:
    """The lines for the other reading of the labels."""
    found = []
    if labels.kind == "semantic" and len(labels.classes) == 2:
        swapped = dict(reversed(list(labels.classes.items())))
        found.append(f"classes: {scalar(swapped)}   # the other way round")
    if labels.alternative is not None:
        keys = _keys_of(labels.alternative, labels)
        lines = [f"{key}: {scalar(value)}" for key, value in keys.items()]
        reason = "numbered objects" if labels.alternative == "instances" else {
            "binary": "each piece is an object", "semantic": "areas, no single objects",
        }[labels.alternative]  # fmt: skip
        found += [f"{lines[0]}   # {reason}; instead of the lines above", *lines[1:]]
    return found


def _other_axes(files: FileMeaning) -> list[str]:
    if not files.alternative:
        return []
    if files.stack:
        return [f"{files.alternative}   # for volumes: instead of layout, with dims: 3 below"]
    return [f"{files.alternative}   # to make each plane an image of its own"]


def _split(
    name: str, files: FileMeaning, pairs: Sequence[RawPair]
) -> tuple[dict[str, Any], list[str]]:
    """The split, and what to know about it.

    Raises:
        UserError: too few images to split.
    """
    number, extra, checks = files.images, dict[str, Any](), list[str]()
    if number < LEAST:
        raise UserError(
            f"{name}: {how_many(number, 'labelled image')}; at least {LEAST} are "
            "needed, one each to train, validate and test: label more, or cut each image and its "
            "label into parts of the same names"
        )
    groups = len({pair.group for pair in pairs if pair.group and pair.label is not None})
    if files.stack:
        groups = math.ceil(number / PAGES_TOGETHER)
        if groups >= LEAST_GROUPS and len(pairs) == 1:
            extra = {"group": r"-p(\d+)\d"}
            checks.append("ten neighbouring pages stay in one part, since they look alike")
            number = groups
        else:
            checks.append(
                "if neighbouring pages look alike, the test scores are too good: tested pages lie "
                "beside trained ones"
            )
    elif 0 < groups < LEAST:
        extra = dict(EACH_ALONE)
        checks.append(
            f"only {how_many(groups, 'group')} (sequences, wells), so the images are "
            "split one by one: images of a group look alike, and the test scores are too good"
        )
    elif groups:
        number = groups
    if number >= ENOUGH:
        return {"folds": 5, "run": [0], **extra}, checks
    checks.append(
        f"only {number} to split: one is tested, one validates; the scores say little about others"
    )
    return {"folds": number, "run": [0], **extra}, checks


def _survey(name: str, keys: Mapping[str, Any], place: Place, files: FileMeaning) -> DatasetSurvey:
    """The facts and findings, as ``unet check`` would give them for this config."""
    from unet.data.survey.survey import survey_dataset

    raw = {
        "data_root": str(place.root),
        "datasets": {name: dict(keys)},
        "models": {"unet": {"preset": "unet-bn", "dims": files.dims}},
    }
    layout = str(keys.get("layout", "folders"))
    source = replace(place, layout=layout).source
    threads = min(8, os.cpu_count() or 1)
    return survey_dataset(load(raw), name, source, threads=threads, sampled=SAMPLED)
