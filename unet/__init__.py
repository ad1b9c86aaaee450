"""U-Net for microscopy: the package behind the workflow in `workflow/`.

In: a config (`unet.config`), raw images and labels (`unet.io`, `unet.data`).
Out: trained models, seamless segmentations, tables of objects and scores, reports.

In Python, `load_model`, `read_image`, `read_report` and `evaluate` are all you need (`api/`,
docs/python.md). `import unet` alone is quick: they are loaded when they are first used.

The folders follow the data: config, io, data, export, models, training, prediction, evaluation,
planning, report, api, cli. Each imports only from those before it. Start with the script of a stage
(`scripts/train.py` and so on): it names the one function of the package that does the work.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unet.api import (
        ArgumentError,
        Image,
        Model,
        Segmentation,
        UserError,
        evaluate,
        load_model,
        read_image,
        read_report,
    )

__version__ = "0.2.0"  # x-release-please-version

__all__ = [
    "ArgumentError",
    "Image",
    "Model",
    "Segmentation",
    "UserError",
    "__version__",
    "evaluate",
    "load_model",
    "read_image",
    "read_report",
]


def __getattr__(name: str) -> object:
    """Loads the API when one of its names is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'unet' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module("unet.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
