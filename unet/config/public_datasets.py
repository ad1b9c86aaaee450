"""The public datasets that can be downloaded: ``public_datasets.yaml``, as typed values.

Light: a run without ``download`` never reads the file. To add a set, write an entry there; its
example config and its row in ``docs/datasets.md`` are made from it (``make config-docs``).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from unet.errors import UserError, did_you_mean

TABLE = Path(__file__).with_suffix(".yaml")
# Names of datasets in a config allow no `+`.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RemoteFile(_Entry):
    """A file of a public dataset.

    Attributes:
        url: its address; "" if it must be fetched by hand.
        name: its name on disk; by default the last part of the address.
        sha256, md5: its hash, if somebody published it.
        mb: its size in MB (10^6 bytes), if known.
        into: the folder to unpack it into; "" for the dataset's own.
        changing: made anew for each download, so that its hash says nothing.
    """

    url: str = ""
    name: str = ""
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    md5: str = Field("", pattern=r"^([0-9a-f]{32})?$")
    mb: float | None = None
    into: str = ""
    changing: bool = False

    @property
    def filename(self) -> str:
        return self.name or PurePosixPath(unquote(urlsplit(self.url).path)).name

    @property
    def known(self) -> tuple[str, str] | None:
        """The kind of its hash and the hash; None if nobody published one."""
        if self.sha256:
            return "sha256", self.sha256
        return ("md5", self.md5) if self.md5 else None


class WrittenSheet(_Entry):
    """How the sheet of a set is written whose files no layout matches. Nothing is converted.

    Attributes:
        image: regular expression for the paths of images below the dataset's folder (with ``/``).
        label: its label, from the image's folder; ``\\1`` is the expression's first group. An image
            whose label does not exist is left out.
        part: the group that names its part.
        parts: that name -> train, val or test, where they differ.
        lists: part -> glob of a text file that lists the names of its images, one a line.
        group: the images that must stay together.
        objects: regular expression for files with one object each, which are first moved into a
            folder ``objects/<first group>`` per image.
    """

    image: str
    label: str
    part: str = ""
    parts: dict[str, str] = {}
    lists: dict[str, str] = {}
    group: str = ""
    objects: str = ""


class PublicSet(_Entry):
    """A public dataset.

    Attributes:
        shows: what the images show, for people.
        dims: 2 for planes, 3 for volumes.
        licence, cite, page: as the owners say it.
        published_split: how papers split it, and what the config does.
        note: what else to know.
        tried: whether it was ever downloaded and run.
        by_hand: how to fetch the files, if no program can.
        convert: how labels are converted that cannot be read as they are
            (:data:`unet.data.download.CONVERSIONS`).
        dataset: the keys of a config that reads it; paths are relative to its folder.
    """

    shows: str
    dims: Literal[2, 3]
    licence: str
    cite: str
    page: str
    published_split: str
    note: str = ""
    tried: str = "not yet"
    by_hand: str = ""
    files: tuple[RemoteFile, ...] = Field(min_length=1)
    convert: str = ""
    sheet: WrittenSheet | None = None
    dataset: dict[str, Any]

    @model_validator(mode="after")
    def _fetchable(self) -> Self:
        if not self.by_hand and not all(file.url for file in self.files):
            raise ValueError("a file without url needs by_hand")
        if not all(file.filename for file in self.files):
            raise ValueError("a file needs a name")
        return self

    @property
    def mb(self) -> float | None:
        """Its size in MB; None if that of a file is not known."""
        sizes = [file.mb for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


@cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return found


def public_names() -> tuple[str, ...]:
    """The names of all sets, in the order of the table."""
    return tuple(name for name in _table() if not name.startswith("_"))


@cache
def public_set(name: str) -> PublicSet:
    """The set with this name.

    Raises:
        UserError: there is none.
    """
    if name not in public_names():
        near = did_you_mean(name, public_names())
        raise UserError(f"no public dataset {name!r}{near or '; `unet download` lists them'}")
    return PublicSet.model_validate(_table()[name])


def left_out() -> dict[str, str]:
    """Sets that people ask for and that are not here -> why."""
    found: dict[str, str] = _table()["_left_out"]
    return found


def name_in_config(name: str) -> str:
    """The name of a set's dataset in a config, which is a folder."""
    return _NOT_IN_NAMES.sub("-", name).strip("-").lower()


def config_of(name: str, data_root: str) -> str:
    """A config that downloads a set, trains a model on it and reports: YAML with comments.

    Args:
        data_root: the folder that holds the set's own.
    """
    found, own = public_set(name), name_in_config(name)
    keys = {"download": name, **found.dataset}
    lines = yaml.safe_dump(keys, sort_keys=False, width=98, default_flow_style=None).splitlines()
    rest = [f"Split: {found.published_split}.", f"Note: {found.note}." if found.note else ""]
    rest += [f"By hand: {found.by_hand}, then `unet download {name} --from` it."] * bool(
        found.by_hand
    )
    comments = [
        f"{found.shows[0].upper()}{found.shows[1:]}.",
        f"Licence: {found.licence.removesuffix('.')}. {found.page}",
        f"Cite: {found.cite}",
        *filter(None, rest),
    ]
    return "\n".join(
        [
            *(f"# {line}" for line in comments),
            f"output: results-{own}",
            yaml.safe_dump({"data_root": data_root}).strip(),
            "",
            "datasets:",
            f"  {own}:",
            *(f"    {line}" for line in lines),
            "",
            "models:",
            "  auto: {preset: auto}    # chooses the layers by the images: docs/auto.md",
            "",
        ]
    )
