"""The section of the config for models that are given to others: packages of the BioImage Model
Zoo."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from unet.config.choices import Entry, OneOf
from unet.config.section_base import Count, Section, Shown

# What a package may hold besides the weights as PyTorch's tensors, which are always in it.
WEIGHTS_TABLE = {
    "torchscript": Entry(text="TorchScript, for programs with PyTorch alone"),
    "onnx": Entry(text="ONNX, for any image size"),
}
NAME_LETTERS = re.compile(r"[A-Za-z0-9_+\- ()]{5,128}")


class AuthorSection(Section):
    reruns: ClassVar[str] = "export"

    name: Annotated[str, Field(min_length=1)]
    """Full name."""
    affiliation: str | None = None
    """Institution."""
    orcid: Annotated[str | None, Field(pattern=r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$")] = None
    """ORCID iD, such as `0000-0001-2345-6789`."""
    github_user: str | None = None
    """Name on GitHub; the zoo wants that of one author."""


class CiteSection(Section):
    reruns: ClassVar[str] = "export"

    text: Annotated[str, Field(min_length=1)]
    """The citation, in words."""
    doi: Annotated[str | None, Field(pattern=r"^10\.\d{4,}.+$")] = None
    """DOI, such as `10.1000/xyz`."""
    url: Annotated[str | None, Field(pattern=r"^https?://")] = None
    """Address, if there is no DOI."""

    @model_validator(mode="after")
    def _found(self) -> CiteSection:
        if self.doi is None and self.url is None:
            raise ValueError("needs a doi or a url")
        return self


class ExportSection(Section):
    reruns: ClassVar[str] = "export"

    write: Annotated[bool, Shown(reruns="- (export runs if true)")] = False
    """Write each model as a package of the BioImage Model Zoo: docs/export.md. Needs `license` and
    `authors`."""
    fold: Annotated[Count | None, Shown("number of a fold", "the first that is trained")] = None
    """The fold whose network is in the package; a package holds one network."""
    weights: Annotated[
        tuple[Annotated[str, OneOf(WEIGHTS_TABLE)], ...],
        Shown("list of torchscript, onnx; [] for neither"),
    ] = ("torchscript", "onnx")
    """Formats besides PyTorch's, which is always in the package."""
    name: Annotated[str | None, Shown("text", "made of dataset and model")] = None
    """Title of the model: 5 to 128 letters, digits, spaces and `_+-()`."""
    description: Annotated[
        Annotated[str, Field(max_length=1024)] | None, Shown("text", "made of the training")
    ] = None
    """What the model does, in a sentence or two."""
    license: Annotated[str | None, Shown("SPDX identifier, such as CC-BY-4.0")] = None
    """Licence of the model."""
    authors: Annotated[tuple[AuthorSection, ...], Shown("list of mappings", "none")] = ()
    """Who made the model."""
    cite: Annotated[tuple[CiteSection, ...], Shown("list of mappings", "none")] = ()
    """What to cite, besides the paper of the network."""
    tags: Annotated[tuple[str, ...], Shown("list of words", "none")] = ()
    """Words to find the model by, besides those that follow from the training."""
    data_url: Annotated[
        Annotated[str, Field(pattern=r"^https?://")] | None, Shown("address", "none")
    ] = None
    """Where the training data can be found. With it, the package lists the scores in the zoo's
    form, too."""

    @model_validator(mode="after")
    def _fits(self) -> ExportSection:
        if self.name is not None and not NAME_LETTERS.fullmatch(self.name):
            raise ValueError(
                f"name: got {self.name!r}; write 5 to 128 letters, digits, spaces and _+-()"
            )
        return self

    def missing(self) -> list[str]:
        """The keys that a package needs and that are not given."""
        needed: dict[str, Any] = {"license": self.license, "authors": self.authors}
        return [key for key, value in needed.items() if not value]
