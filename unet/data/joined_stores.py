"""The prepared store of a dataset that joins others: it has no images, it names the stores that
have them. Loads neither zarr nor numpy, since planning asks, too."""

from __future__ import annotations

import os
from pathlib import Path

from unet.files import read_json

# The attribute of a joined store: name of each member -> its store, relative to this one.
MEMBERS = "members"
# Between a member's name, which has no dot, and an image's id there, in the ids of a joined store.
OF_MEMBER = "."


def member_id(member: str, name: str) -> str:
    """The id that an image (or a group of images) of a joined dataset's member has in the join."""
    return f"{member}{OF_MEMBER}{name}"


def stores_of(store: Path) -> dict[str, Path]:
    """The stores that a joined store names, by the names of the datasets; none if it is no joined
    store.

    Raises:
        UserError: the store's metadata is damaged.
    """
    metadata = store / "zarr.json"
    if not metadata.is_file():
        return {}
    named = read_json(metadata).get("attributes", {}).get(MEMBERS, {})
    return {name: Path(os.path.normpath(store / path)) for name, path in named.items()}
