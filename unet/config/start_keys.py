"""Keys of the ``train`` section for a training that starts from trained weights. Torch-free."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from unet.config.section_base import Count, Section, Shown
from unet.errors import did_you_mean
from unet.paths import NAME, Origin

# Formats of files to start from, by suffix. A new one also needs a line in `READERS` of
# `unet.models.read_model`.
START_FORMATS = {".pt": "model.pt", ".zip": "package of the BioImage Model Zoo (.zip)"}
_KERAS = "make a model.pt of it: python scripts/import_keras.py (docs/models.md)"
# Formats that cannot be read, and what to do instead.
_OTHER_FORMATS = {
    ".onnx": "the layers of an .onnx have no names of ours; start from the model.pt or the package "
    "that it was made of",
    ".keras": _KERAS,
    ".h5": _KERAS,
}
# In place of a path in settings: what a training depends on is the file's content.
START_FILE = "file.pt"
# The learning rate is multiplied by this unless the user writes one. nnU-Net trains at 1e-2 and is
# fine-tuned at 1e-3, after a warm-up (arXiv:2504.06741).
START_LR = 0.1


def origin_in_run(text: str | None) -> Origin | None:
    """The model of the run that ``from`` names; None for a file, or without a start."""
    dataset, slash, model = (text or "").partition("/")
    if slash and NAME.fullmatch(dataset) and NAME.fullmatch(model):
        return Origin(model, dataset)
    return None


def is_start_file(text: str | None) -> bool:
    """Whether ``from`` names a file."""
    return text is not None and origin_in_run(text) is None


def _start(text: str) -> str:
    suffix = PurePath(text).suffix
    if origin_in_run(text) is None and suffix not in START_FORMATS:
        known = " or ".join(START_FORMATS.values())
        raise ValueError(
            f"must be <dataset>/<model> of this run, or the path of a {known} (got {text!r})"
            f"{_instead(text, suffix)}"
        )
    return text


def _instead(text: str, suffix: str) -> str:
    """The end of a message about a file of another format: what to write instead."""
    if suffix.lower() in START_FORMATS:
        return f"; did you mean {suffix.lower()}? Rename the file if it has this name"
    if suffix in _OTHER_FORMATS:
        return f"; {_OTHER_FORMATS[suffix]}"
    if not suffix:
        return f"; for a folder, write the file in it: {text}/model.pt" if "/" in text else ""
    return did_you_mean(suffix, START_FORMATS)


# `from` is a keyword of Python, so it cannot be a name in the body of a class.
if TYPE_CHECKING:

    class _From(Section):
        pass

else:
    _From = create_model(
        "_From",
        __base__=Section,
        __module__=__name__,
        **{
            "from": (
                Annotated[str, AfterValidator(_start), Shown("`<dataset>/<model>`, or a path")]
                | None,
                Field(
                    default=None,
                    description="Start from trained weights: the path of a model.pt or of a "
                    "package of the BioImage Model Zoo (.zip), from data_root, or "
                    "<dataset>/<model> of this run, whose training then comes first. Layers "
                    "that do not fit get random weights: docs/finetuning.md.",
                ),
            )
        },
    )


class StartKeys(_From):
    freeze: Count = 0
    """With from: number of levels of the contracting path, from the finest, whose weights and
    normalisation stay as they are."""
    norm_statistics: Literal["continue", "keep", "reset"] = "continue"
    """With from: the running statistics of normalisation. continue: they move on from those of the
    start. keep: they stay, and training normalises by them. reset: they are estimated from the new
    images alone."""
    show_start: Annotated[bool, Shown(reruns="train of the added model")] = True
    """With from: score the start itself, not trained further, on the same test images, as the
    model `<name>-start`."""

    @property
    def start(self) -> str | None:
        """The value of ``from``."""
        value: Any = getattr(self, "from")
        return None if value is None else str(value)
