"""Writes ``unet/config/stage_keys.json``: the keys of each stage's settings with their defaults, as
they were when the stage's version was made (see :mod:`unet.config.stage_keys`). ``make
stage-hashes`` calls it.

Keys that were added since then are listed too, so that their defaults are checked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from unet.config import sections
from unet.config.data_settings import DATA_KEYS
from unet.config.presets import Architecture, WindowArchitecture
from unet.config.resnet import ResNetArchitecture
from unet.config.run import Config
from unet.config.section_base import sections_of
from unet.config.stage_keys import REQUIRED, TABLE, defaults
from unet.config.stage_settings import SETTINGS
from unet.versions import STAGES

# stage -> the classes whose keys are in its settings, with the keys (None: all).
CLASSES: dict[str, dict[type, tuple[str, ...] | None]] = {
    "synthesize": {sections.SyntheticSection: None, Config: ("seed",)},
    "manifest": {sections.DatasetSection: DATA_KEYS["manifest"], Config: ("strict",)},
    "splits": {sections.SplitSection: None, Config: ("seed",)},
    "prepare": {
        sections.PrepareSection: None,
        sections.NormalizeSection: None,
        sections.DatasetSection: (*DATA_KEYS["prepare"], "classes"),
    },
    "train": {
        sections.TrainSection: None,
        sections.AugmentSection: None,
        Architecture: None,
        WindowArchitecture: None,
        ResNetArchitecture: None,
        sections.ModelSection: ("anisotropic", "head", "border_width"),
        Config: ("seed", "device", "memory_gb"),
    },
    "predict": {
        sections.PredictSection: None,
        sections.SkipSection: None,
        sections.ClusterSection: None,
        Config: ("device",),
    },
    "report": {sections.ReportSection: None, Config: ("seed",)},
}
CLASSES["prepare_applied"] = CLASSES["prepare"]
# For any other stage: the sections in its settings.
for _stage in SETTINGS.keys() - CLASSES.keys():
    CLASSES[_stage] = {
        kind: None
        for field in SETTINGS[_stage].model_fields.values()
        for kind in sections_of(field.annotation)
    }
# Written for a key without a default, and for a section (its keys are listed separately).
NONE, SECTION = "(required)", "(a section)"

Keys = dict[str, dict[str, Any]]


def now(stage: str) -> Keys:
    """class -> key -> default, in the current code."""
    found: Keys = {}
    for kind, only in CLASSES[stage].items():
        found[kind.__name__] = {
            name: _shown(default)
            for name, default in defaults(kind)
            if only is None or name in only
        }
    return found


def _shown(default: Any) -> Any:
    if default is REQUIRED:
        return NONE
    return SECTION if isinstance(default, BaseModel) else json.loads(json.dumps(default))


def changed(stage: str, entry: Mapping[str, Any], found: Keys) -> list[str]:
    """Changes that are not allowed while the stage has the version of the entry."""
    lines = []
    for kept in (entry["keys"], entry["later"]):
        for kind, keys in kept.items():
            for name, default in keys.items():
                there = found.get(kind, {})
                if name not in there and kept is entry["later"]:
                    continue
                new = there.get(name, "gone")
                if new != default:
                    lines.append(f"{kind}.{name} of stage {stage}: was {default!r}, is {new!r}")
    return lines


def updated(stage: str, entry: Mapping[str, Any] | None, found: Keys) -> dict[str, Any]:
    """The entry of a stage: a new one if its version was raised, otherwise with added keys."""
    if entry is None or entry["version"] != STAGES[stage]:
        return {"version": STAGES[stage], "keys": found, "later": {}}
    later = {
        kind: added
        for kind, keys in found.items()
        if (added := {n: v for n, v in keys.items() if n not in entry["keys"].get(kind, {})})
    }
    return {**entry, "later": later}


def main() -> int:
    stored = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    written, lines = {}, []
    for stage, version in STAGES.items():
        entry, found = stored.get(stage), now(stage)
        if entry is not None and entry["version"] == version:
            lines += changed(stage, entry, found)
        written[stage] = updated(stage, entry, found)
    if lines:
        print(*lines, HINT, sep="\n", file=sys.stderr)
        return 1
    TABLE.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return 0


HINT = (
    "a key at its default is not written, so results with the old default would count as up to "
    "date: raise the stage's version in unet/versions.py, then run `make stage-hashes`"
)

if __name__ == "__main__":
    sys.exit(main())
