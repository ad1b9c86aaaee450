"""The Zarr hierarchy of one image: a folder or, if the image is one of many small ones, a zip file.

As a folder, an image of 128 x 128 pixels with two labels takes 24 files and folders, most of which
hold a few hundred bytes; file systems of clusters limit their number. So each small image of a
large dataset is a single file. It is a zip archive without compression (its chunks are compressed),
which readers of Zarr in zip files open. That of an OME-Zarr image follows RFC-9
(https://ngff.openmicroscopy.org/rfc/9/): its suffix is ``.ozx``, and metadata come first.

A zip file is collected in memory, then appears whole by a rename. Readers open it for each chunk,
so thousands of images keep no file open.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import zarr
from zarr.core.buffer import Buffer
from zarr.core.buffer.core import default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import LocalStore, MemoryStore, StorePath

from unet.errors import UserError, one_line
from unet.files import replacing
from unet.io.checksums import checked

OME, PLAIN = ".ozx", ".zip"
SUFFIXES = (OME, PLAIN)
# With more images than this, small ones are zip files. Fewer are folders: these do not burden a
# file system, and more viewers open them.
MANY = 200
_METADATA = "zarr.json"
# Always the same, so that equal images give equal files.
_DATE = (1980, 1, 1, 0, 0, 0)


def zip_of(folder: Path, suffix: str) -> Path:
    """The zip file that stands for an image's folder."""
    return folder.with_name(folder.name + suffix)


def image_names(store: Path, *markers: str) -> Iterator[str]:
    """The names of a store's images, in no order.

    Args:
        markers: paths of which one must exist in a folder that is an image.
    """
    for child in store.iterdir():
        if not child.name.startswith("."):
            if child.suffix in SUFFIXES and child.is_file():
                yield child.stem
            elif any((child / marker).exists() for marker in markers):
                yield child.name


# Writing -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packing:
    """A hierarchy, or a folder in it, that is collected in memory.

    Attributes:
        members: path in the hierarchy -> content.
        prefix: of the folder, with a slash at its end, or empty.
    """

    members: dict[str, Buffer] = field(default_factory=dict)
    prefix: str = ""

    def __truediv__(self, name: str) -> Packing:
        return Packing(self.members, f"{self.prefix}{name}/")

    def save(self, file: Path) -> None:
        """Writes the whole hierarchy as a zip file: metadata first, the outermost at the start."""

        def order(name: str) -> tuple[bool, int, str]:
            return (not name.endswith(_METADATA), name.count("/"), name)

        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(self.members, key=order):
                archive.writestr(zipfile.ZipInfo(name, _DATE), self.members[name].to_bytes())
            about = json.loads(self.members[_METADATA].to_bytes())
            version = about.get("attributes", {}).get("ome", {}).get("version")
            if version is not None:
                ome = {"version": version, "zipFile": {"centralDirectory": {"jsonFirst": True}}}
                archive.comment = json.dumps({"ome": ome}).encode()


# Where the hierarchy of an image is written.
Place: TypeAlias = "Path | Packing"


def put(place: Place, name: str, data: bytes) -> None:
    """Writes a file of metadata; a new folder is created."""
    if isinstance(place, Packing):
        place.members[place.prefix + name] = _buffer(data)
    else:
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)


def store_of(place: Place) -> StorePath:
    """Where zarr writes an array or a group."""
    if isinstance(place, Packing):
        return StorePath(MemoryStore(place.members), place.prefix.rstrip("/"))
    return StorePath(LocalStore(place))


@contextmanager
def new_hierarchy(folder: Path, suffix: str | None) -> Iterator[Place]:
    """Where to write a new hierarchy, which appears under its name when the block ends without an
    error.

    Args:
        folder: its path if it is a folder.
        suffix: of the zip file to write instead, None = a folder.
    """
    if suffix is None:
        with replacing(folder) as temporary:
            temporary.unlink()
            yield temporary
        return
    packing = Packing()
    yield packing
    # As the files of a folder: what a power failure cuts off fails its checksum.
    with replacing(zip_of(folder, suffix), sync=False) as temporary:
        packing.save(temporary)


def update_attributes(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Changes attributes of an existing group (Zarr v3); its arrays stay as they are."""
    image = StoredImage(folder)
    about = json.loads(image.read(_METADATA))
    about["attributes"] = {**about.get("attributes", {}), **attributes}
    data = json.dumps(about, indent=2).encode()
    if image.members is None:
        with replacing(image.path / _METADATA) as temporary:
            temporary.write_bytes(data)
        return
    members = {**image.members, _METADATA: _buffer(data)}
    with replacing(image.path) as temporary:
        Packing(members).save(temporary)


# Reading -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Members(Mapping[str, Buffer]):
    """The files in a zip file: path -> content, read when it is asked for.

    Attributes:
        file: the zip file.
        remedy: what to do if it is damaged.

    Raises:
        UserError: (on reading) it is damaged.
    """

    file: Path
    remedy: str

    @cached_property
    def _seen(self) -> dict[str, bytes | None]:
        """The paths of all files; the content of metadata, so that one opening finds it all."""
        with self._opened() as archive:
            return {
                name: archive.read(name) if name.endswith(_METADATA) else None
                for name in archive.namelist()
            }

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.file) as archive:
                yield archive
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise UserError(f"{self.file}: damaged ({one_line(error)}); {self.remedy}") from None

    def __getitem__(self, name: str) -> Buffer:
        found = self._seen[name]
        if found is not None:
            return _buffer(found)
        with self._opened() as archive:
            return _buffer(archive.read(name))

    def __contains__(self, name: object) -> bool:
        return name in self._seen

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)


class StoredImage:
    """Reads the hierarchy of one image.

    Args:
        folder: its path as a folder; if there is none, a zip file of this name is read.
        remedy: what to do if it is damaged; "{path}" stands for the folder or file.
    """

    def __init__(self, folder: Path, remedy: str = "run the stage again") -> None:
        zips = (zip_of(folder, suffix) for suffix in SUFFIXES)
        found = None if folder.is_dir() else next((z for z in zips if z.is_file()), None)
        self.path = found or folder
        self.remedy = remedy.replace("{path}", str(self.path))
        self.members = None if found is None else Members(found, self.remedy)

    def has(self, name: str) -> bool:
        """Whether there is a file, or a folder, of this name."""
        if self.members is None:
            return (self.path / name).exists()
        return name in self.members or any(each.startswith(f"{name}/") for each in self.members)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            OSError, KeyError: there is none.
        """
        if self.members is None:
            return (self.path / name).read_bytes()
        return self.members[name].to_bytes()

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder ("" = the image's own), in no order."""
        if self.members is None:
            return [child.name for child in (self.path / name).iterdir() if child.is_dir()]
        prefix = f"{name}/" if name else ""
        inside = (m.removeprefix(prefix) for m in self.members if m.startswith(prefix))
        return list({each.partition("/")[0] for each in inside if "/" in each})

    def attributes(self) -> dict[str, Any]:
        """The attributes of the image's group (Zarr v3 or v2).

        Raises:
            OSError, KeyError, ValueError: there is no readable group.
        """
        if self.has(_METADATA):
            return dict(json.loads(self.read(_METADATA)).get("attributes", {}))
        return dict(json.loads(self.read(".zattrs")))

    def array(self, name: str) -> zarr.Array[Any]:
        """An array (without its attributes), whose errors name the damaged file."""
        store: Any = LocalStore(self.path, read_only=True)
        if self.members is not None:
            files: Any = self.members  # zarr writes nothing to a store that is read only
            store = ZippedStore(files, read_only=True)
        metadata = f"{name}/{_METADATA}".lstrip("/")
        where = StorePath(store, name)
        if not self.has(metadata):
            return checked(zarr.open_array(where, mode="r"), self.remedy)
        about = json.loads(self.read(metadata))
        about.pop("attributes", None)
        parsed = _parsed(json.dumps(about))
        return checked(zarr.Array(zarr.AsyncArray(parsed, where)), self.remedy)


class ZippedStore(MemoryStore):
    """A zip file as zarr reads it."""

    @property
    def members(self) -> Members:
        """Its files."""
        found: Any = self._store_dict
        assert isinstance(found, Members)
        return found


# The arrays of a store's images are mostly alike, and zarr takes a while to parse each.
@lru_cache(maxsize=256)
def _parsed(text: str) -> ArrayV3Metadata:
    return ArrayV3Metadata.from_dict(json.loads(text))


def _buffer(data: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(data)
