"""Models that follow from others of the config: the shares of a learning curve, the combinations of
a sweep, and the models that show a start. What these have in common. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unet.config.run import Config
from unet.config.sections import ModelSection
from unet.paths import NAME

# Names of models are part of paths.
LONGEST = 64


def without_models(config: Config, made: Mapping[str, str]) -> Config:
    """The config without the models that follow from others.

    Args:
        made: such a model -> the one that it follows from. Where a dataset lists it alone, it stays
            in the list.
    """
    if not made:
        return config
    models = {name: section for name, section in config.models.items() if name not in made}
    datasets = {}
    for name, data in config.datasets.items():
        listed = data.models or ()
        kept = tuple(m for m in listed if made.get(m) not in listed)
        update = {} if data.models is None else {"models": kept}
        datasets[name] = data.model_copy(update=update)
    return config.model_copy(update={"models": models, "datasets": datasets})


def said_once(lines: Sequence[str], made: Mapping[str, str]) -> list[str]:
    """The messages without those that say the same of a model and of one that follows from it.

    Args:
        made: as for :func:`without_models`.
    """
    found = list(lines)
    for name, base in made.items():
        found = [
            line for line in found if name not in line or line.replace(name, base) not in lines
        ]
    return found


def name_mistake(
    config: Config, base: str, name: str, made: ModelSection, instead: str = ""
) -> str:
    """What is wrong with the name of a model that follows from ``base``, or "".

    Args:
        instead: what to write if another model has the name; by default: rename or drop it.
    """
    there = config.models.get(name)
    if len(name) > LONGEST:
        return f"the name {name!r} is longer than {LONGEST} characters; rename {base}"
    if not NAME.fullmatch(name):
        return f"the name {name!r} is not allowed; write numbers or plain words"
    if there is not None and there != made:
        what = f"makes a model {name}, but models.{name} is another one"
        return f"{what}; {instead or f'rename or drop models.{name}'}"
    return ""
