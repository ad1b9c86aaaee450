"""The section of the config for models that are given to others: packages of the BioImage Model
Zoo."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter, ValidationError, field_validator

from unet.config.choices import Entry, OneOf
from unet.config.section_base import Count, Section, Shown


@dataclass(frozen=True, kw_only=True)
class WeightsFormat(Entry):
    """A format of the weights."""

    packages: tuple[str, ...] = ()
    """Packages that writing it needs, by their names of import."""


# What a package may hold besides the weights as PyTorch's tensors, which are always in it.
WEIGHTS_TABLE = {
    "torchscript": WeightsFormat(text="TorchScript, for programs with PyTorch alone"),
    "onnx": WeightsFormat(text="ONNX, for any image size", packages=("onnx", "onnxscript")),
}
ORCID, CITED, ADDRESS = (
    r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$", r"^(10\.\d{4,}/|https?://)\S+$", r"^https?://",
)  # fmt: skip
# What to write, since nobody reads patterns.
PATTERN_WORDS = {
    ORCID: "write an ORCID iD, such as 0000-0001-2345-6789",
    CITED: "write a DOI, such as 10.1000/xyz, or an address that starts with https://",
    ADDRESS: "write an address that starts with https://",
}
NAME_LETTERS = re.compile(r"[A-Za-z0-9_+\- ()]{5,128}")
_HTTP = TypeAdapter(HttpUrl)


# What the format checks besides, when a package is written; that is too late to say it.
def _sound_orcid(value: str) -> str:
    """Checks the last digit, which follows from the others (ISO 7064, mod 11-2)."""
    total = 0
    for letter in value.replace("-", ""):
        total = (2 * total + (10 if letter == "X" else int(letter))) % 11
    if total != 1:
        raise ValueError(f"no such ORCID iD (a digit is wrong); copy it again (got {value!r})")
    return value


def _sound_address(value: str) -> str:
    if "://" in value:
        try:
            _HTTP.validate_python(value)
        except ValidationError:
            raise ValueError(
                f"not an address; write one such as https://example.org/data (got {value!r})"
            ) from None
    return value


class AuthorSection(Section):
    reruns: ClassVar[str] = "export"

    affiliation: Annotated[str | None, Shown("text", "none")] = None
    """Institution."""
    orcid: Annotated[
        Annotated[str, Field(pattern=ORCID), AfterValidator(_sound_orcid)] | None,
        Shown("ORCID iD, such as 0000-0001-2345-6789", "none"),
    ] = None
    """Identifies a researcher: https://orcid.org."""
    github_user: Annotated[str | None, Shown("text", "none")] = None
    """Name on GitHub; the zoo wants that of one author."""


class ExportSection(Section):
    reruns: ClassVar[str] = "export"

    write: bool = False
    """Write each model as a package of the BioImage Model Zoo: docs/export.md. Needs `license` and
    `authors`."""
    fold: Annotated[Count | None, Shown("number of a fold", "the first that is trained")] = None
    """The fold whose network is in the package; a package holds one network."""
    weights: Annotated[
        tuple[Annotated[str, OneOf(WEIGHTS_TABLE)], ...],
        Shown("list of torchscript, onnx; [] for neither"),
    ] = ("torchscript", "onnx")
    """Formats besides PyTorch's, which is always in the package."""
    name: Annotated[str | None, Shown("text", "from the dataset and the model")] = None
    """Title of the model: 5 to 128 letters, digits, spaces and `_+-()`."""
    description: Annotated[
        Annotated[str, Field(max_length=1024)] | None, Shown("text", "from the training")
    ] = None
    """What the model does, in a sentence or two."""
    license: Annotated[str | None, Shown("SPDX identifier, such as CC-BY-4.0", "none")] = None
    """Licence of the model."""
    authors: dict[str, AuthorSection] = {}
    """Who made the model: full names, each with what else is known, such as `{Ada Example: {}}`."""
    cite: Annotated[
        dict[str, Annotated[str, Field(pattern=CITED), AfterValidator(_sound_address)]],
        Shown("DOI or address of each citation", "empty"),
    ] = {}
    """What to cite, besides the paper of the network, such as `{Example et al. 2026: 10.1000/xyz}`.
    """
    tags: Annotated[tuple[str, ...], Shown("list of words", "none")] = ()
    """Words to find the model by, besides those that follow from the training."""
    data_url: Annotated[
        Annotated[str, Field(pattern=ADDRESS), AfterValidator(_sound_address)] | None,
        Shown("address", "none"),
    ] = None
    """Where the training data can be found. With it, the package lists the scores in the zoo's
    form, too."""

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and not NAME_LETTERS.fullmatch(value):
            raise ValueError(f"got {value!r}; write 5 to 128 letters, digits, spaces and _+-()")
        return value

    @field_validator("authors")
    @classmethod
    def _names(cls, value: dict[str, AuthorSection]) -> dict[str, AuthorSection]:
        for name in value:
            if not name.strip():
                raise ValueError(f"got {name!r}; write a full name, such as Ada Example")
            if "/" in name or "\\" in name:
                raise ValueError(f"got {name!r}; write each name without slashes")
        return value

    def missing(self) -> list[str]:
        """The keys that a package needs and that are not given."""
        needed: dict[str, Any] = {"license": self.license, "authors": self.authors}
        return [key for key, value in needed.items() if not value]


def packages_for(weights: Sequence[str]) -> list[str]:
    """What writing a package with these formats needs."""
    return ["bioimageio.spec", *(name for key in weights for name in WEIGHTS_TABLE[key].packages)]
