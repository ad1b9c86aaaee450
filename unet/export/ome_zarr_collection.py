"""A store of several OME-Zarr images that viewers open as a whole, in the layout of bioformats2raw
(https://ngff.openmicroscopy.org/0.5/#bf2raw)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from unet.export.ome_zarr_writer import Version, group_metadata, write_group

# The group that lists a collection's images; no image has this name.
LISTING = "OME"
_OME_XML = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def create_collection(path: Path, version: Version = "0.5") -> None:
    """Creates the store. :func:`list_images` writes the list of its images once all exist."""
    write_group(path, group_metadata(version, {"bioformats2raw.layout": 3}), version)


def list_images(path: Path, images: Mapping[str, Sequence[int]], version: Version = "0.5") -> None:
    """Lists the images of a collection in its group ``OME``, in the order in which viewers show
    them.

    The list is written twice, since viewers use one or the other: as the attribute "series", and as
    the metadata file of bioformats2raw, in which the IDs of the images are their paths.

    Args:
        images: name -> shape [C, (Z,) Y, X] of those that are folders: a list cannot name those in
            zip files.
    """
    write_group(path / LISTING, group_metadata(version, {"series": list(images)}), version)
    root = ElementTree.Element("OME", {"xmlns": _OME_XML})
    for index, (name, shape) in enumerate(images.items()):
        channels, *depth, height, width = shape
        image = ElementTree.SubElement(root, "Image", {"ID": f"Image:{name}", "Name": name})
        # OME-XML has no name for float16.
        about = {"ID": f"Pixels:{index}", "DimensionOrder": "XYZCT", "Type": "float"}
        for axis, size in zip("XYZCT", (width, height, *(depth or [1]), channels, 1), strict=True):
            about[f"Size{axis}"] = str(size)
        ElementTree.SubElement(ElementTree.SubElement(image, "Pixels", about), "MetadataOnly")
    where = path / LISTING / "METADATA.ome.xml"
    ElementTree.ElementTree(root).write(where, encoding="utf-8", xml_declaration=True)
