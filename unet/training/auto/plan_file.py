"""The plan of preset ``auto``, and its files: one for users, one for resumed trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unet.config.presets import PRESETS, Architecture, architecture_from
from unet.files import read_json, replacing, write_json

# Name of the model in the plan; users give it another name when they copy it.
PLANNED_NAME = "planned"


@dataclass(frozen=True)
class TrainingPlan:
    """The choices of preset ``auto``, with reasons.

    Attributes:
        preset: gives the values that ``write_plan`` leaves out.
        architecture: the layers.
        patch: input size per spatial axis.
        batch: patches per step.
        reasons: a line for each decision.
    """

    preset: str
    architecture: Architecture
    patch: tuple[int, ...]
    batch: int
    reasons: tuple[str, ...]

    @property
    def section(self) -> dict[str, Any]:
        """The plan as a section ``models.<name>`` of a config."""
        base = PRESETS[self.preset]
        layers = {
            field.name: getattr(self.architecture, field.name)
            for field in fields(self.architecture)
            if getattr(self.architecture, field.name) != getattr(base, field.name)
        }
        for key in ("kernels", "pools"):
            if key in layers:
                layers[key] = [list(level) for level in layers[key]]
        train = {"patch": list(self.patch), "batch": self.batch}
        # Always with the width, since users change it most often.
        width = {"width": self.architecture.width}
        return {"preset": self.preset, **width, **layers, "train": train}


def write_plan(path: Path, plan: TrainingPlan) -> None:
    """Writes the plan as a section of a config, with its reasons as comments; atomically."""
    import yaml

    lines = [
        "# Chosen by preset auto. To change something, copy this below models: in your config,",
        f"# give the model another name than {PLANNED_NAME}, and edit.",
        "#",
        *(f"# {reason}" for reason in plan.reasons),
    ]
    text = yaml.safe_dump(
        {"models": {PLANNED_NAME: plan.section}},
        sort_keys=False,
        default_flow_style=None,
        width=100,
    )
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n" + text, encoding="utf-8")


def keep_plan(path: Path, plan: TrainingPlan) -> None:
    """Writes the plan for :func:`kept_plan`."""
    write_json(path, asdict(plan))


def kept_plan(path: Path) -> TrainingPlan | None:
    """The plan that a training started with; None for a new training.

    A stopped training continues with its plan even if ``auto`` would now choose another: on another
    GPU, or with less free memory.
    """
    if not path.is_file():
        return None
    values: Mapping[str, Any] = read_json(path)
    arch = architecture_from(values["architecture"])
    if not isinstance(arch, Architecture):
        raise TypeError(f"{path}: not the plan of a U-Net")
    return TrainingPlan(
        preset=str(values["preset"]),
        architecture=arch,
        patch=tuple(int(n) for n in values["patch"]),
        batch=int(values["batch"]),
        reasons=tuple(values["reasons"]),
    )
