"""Files laid out as those of microscopes whose formats no library writes: LIF, ND2, OIF."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

Array = np.ndarray


# Leica LIF: a header in XML, then the pixels of each image


def _lif_image(number: int, data: Array, steps: dict[str, float]) -> str:
    """An Element of the header, for data [T, C, Z, Y, X]."""
    sizes = dict(zip("TCZYX", data.shape, strict=True))
    stride, increments = data.itemsize, {}
    for axis in "XYZCT":
        increments[axis] = stride
        stride *= sizes[axis]
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * data.itemsize}" '
        'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="{0}" IsLUTInverted="0" '
        f'BytesInc="{c * increments["C"]}" BitInc="0"/>'.replace("{0}", name)
        for c, name in zip(range(sizes["C"]), ("Green", "Red", "Blue"), strict=False)
    ).replace("{0}", "Gray")
    dimensions = "".join(
        f'<DimensionDescription DimID="{number}" NumberOfElements="{sizes[axis]}" Origin="0" '
        f'Length="{(sizes[axis] - 1) * steps.get(axis, 1.0)}" Unit="{unit}" '
        f'BytesInc="{increments[axis]}" BitInc="0"/>'
        for number, axis, unit in ((1, "X", "m"), (2, "Y", "m"), (3, "Z", "m"), (4, "T", "s"))
        if sizes[axis] > 1
    )
    return (
        f'<Element Name="Series{number:03d}" UniqueID="{number}"><Data><Image><ImageDescription>'
        f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription>"
        f'</Image></Data><Memory Size="{data.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
    )


def write_lif(path: Path, images: Sequence[Array], steps: dict[str, float]) -> Path:
    """Images [T, C, Z, Y, X]; ``steps``: metres from pixel to pixel along X, Y, Z."""
    elements = "".join(_lif_image(n, data, steps) for n, data in enumerate(images))
    header = (
        '<LMSDataContainerHeader Version="2"><Element Name="a.lif"><Data><Experiment/></Data>'
        f"<Children>{elements}</Children></Element></LMSDataContainerHeader>"
    ).encode("utf-16-le")
    parts = [struct.pack("<IIBI", 0x70, len(header) + 5, 0x2A, len(header) // 2), header]
    for number, data in enumerate(images):
        name = f"MemBlock_{number}".encode("utf-16-le")
        size = len(name) // 2
        parts += [struct.pack("<IIBQBI", 0x70, 14 + len(name), 0x2A, data.nbytes, 0x2A, size), name]
        parts.append(data.tobytes())
    path.write_bytes(b"".join(parts))
    return path


# Nikon ND2, version 2: named chunks, metadata in XML, and a map of the chunks at the end

_MAGIC = 0x0ABECEDA
_MAP, _END = b"ND2 FILEMAP SIGNATURE NAME 0001!", b"ND2 CHUNK MAP SIGNATURE 0000001!"
_TYPES = {bool: "bool", int: "lx_uint32", float: "double", str: "CLxStringW"}


def _variant(value: dict[str, Any]) -> bytes:
    return f'<variant version="1.0"><no_name>{_xml(value)}</no_name></variant>'.encode()


def _xml(value: dict[str, Any]) -> str:
    parts = []
    for name, item in value.items():
        if isinstance(item, dict):
            parts.append(f'<{name} runtype="CLxListVariant">{_xml(item)}</{name}>')
        else:
            text = str(item).lower() if isinstance(item, bool) else str(item)
            parts.append(f'<{name} runtype="{_TYPES[type(item)]}" value="{text}"/>')
    return "".join(parts)


def _loops(times: int, positions: int, sections: int, step: float) -> dict[str, Any]:
    """The loops of the experiment, each inside the one before."""
    kinds = [
        (times, 1, {"uiCount": times, "dStart": 0.0, "dPeriod": 1.0, "dDuration": 1.0}),
        (positions, 2, {"Points": {f"a{n}": {"dPosX": float(n)} for n in range(positions)}}),
        (sections, 4, {"uiCount": sections, "dZLow": 0.0, "dZHigh": 9.0, "dZStep": step}),
    ]
    found: dict[str, Any] = {}
    for count, kind, parameters in reversed(kinds):
        if count > 1:
            inner = {"ppNextLevelEx": {"a0": found}} if found else {}
            found = {"eType": kind, "uLoopPars": parameters, **inner}
    return found


def write_nd2(
    path: Path, data: Array, step: tuple[float, float], *, skip: int = -1, times: int = 0
) -> Path:
    """Data [T, P, Z, C, Y, X] (or [..., X, S]); ``step``: micrometres along Y and X, and Z;
    ``skip``: number of a frame that is left out; ``times``: a false number of them."""
    t, p, z, c, height, width = data.shape[:6]
    samples = data.shape[6] if data.ndim > 6 else 1
    bits = 8 * data.itemsize
    plane = {"uiCompCount": samples, "pFluorescentProbe": {"m_uiColor": 1}}
    planes = {f"a{n}": {"sDescription": f"channel {n}", **plane} for n in range(c)}
    chunks = {
        b"ImageAttributes!": _variant({
            "uiWidth": width, "uiWidthBytes": width * c * samples * data.itemsize,
            "uiHeight": height, "uiComp": c * samples, "uiBpcInMemory": bits,
            "uiBpcSignificant": bits, "uiSequenceCount": t * p * z, "eCompression": 2,
        }),
        b"ImageMetadataSeq|0!": _variant({
            "bCalibrated": step[0] > 0, "dCalibration": step[0],
            "sPicturePlanes": {"uiCount": c, "sPlane": planes},
        }),
        b"ImageMetadata!": _variant(_loops(times or t, p, z, step[1])),
    }  # fmt: skip
    frames = data.reshape(t * p * z, *data.shape[3:])
    for number, frame in enumerate(frames):
        if number != skip:
            # Stored as Y, X, channel, sample, after the time.
            pixels = np.moveaxis(frame, 0, 2).tobytes()
            chunks[b"ImageDataSeq|%d!" % number] = bytes(8) + pixels
    signature = b"ND2 FILE SIGNATURE CHUNK NAME01!"
    content = struct.pack("<IIQ", _MAGIC, 32, 64) + signature + b"Ver2.1".ljust(64, b"\0")
    entries = b""
    for name, body in chunks.items():
        reserved = 4072 if name.startswith(b"ImageData") else 64
        entries += name + struct.pack("<QQ", len(content), len(body))
        content += struct.pack("<IIQ", _MAGIC, reserved, len(body)) + name.ljust(reserved, b"\0")
        content += body
    at = len(content)
    entries += _END + struct.pack("<Q", at)
    content += struct.pack("<IIQ", _MAGIC, len(_MAP), len(entries)) + _MAP + entries
    path.write_bytes(content)
    return path


# Olympus OIF: a settings file, and a folder with a TIFF for each plane. An OIB holds the same
# files in one.


def write_oif(path: Path, data: Array, steps: dict[str, float]) -> Path:
    """Data [C, Z, T, Y, X]; ``steps``: micrometres from pixel to pixel along X, Y, Z."""
    sizes = dict(zip("CZTYX", data.shape, strict=True))
    lines = ["[ProfileSaveInfo]", 'Name="OIFC"', 'Version="1.0"', "[Axis Parameter Common]"]
    lines += ['AxisOrder="XYZTC"']
    for number, axis in enumerate("XYCZT"):
        step = steps.get(axis, 0.0)
        end = step * (sizes[axis] - 1)
        lines += [
            f"[Axis {number} Parameters Common]", f'AxisCode="{axis}"', f"MaxSize={sizes[axis]}",
            "StartPosition=0.0", f"EndPosition={end}", 'UnitName="um"',
        ]  # fmt: skip
    for number in range(sizes["C"]):
        lines += [f"[Channel {number + 1} Parameters]", f'DyeName="{("dye 1", "")[number]}"']
        lines += [f'CH Name="CH{number + 1}"']
    path.write_bytes(b"\xff\xfe" + "\r\n".join(lines).encode("utf-16-le"))
    folder = path.with_name(f"{path.name}.files")
    folder.mkdir()
    for c, z, t in np.ndindex(*data.shape[:3]):
        name = f"s_C{c + 1:03d}" + "".join(
            f"{axis}{n + 1:03d}" for axis, n in (("Z", z), ("T", t)) if sizes[axis] > 1
        )
        tifffile.imwrite(folder / f"{name}.tif", data[c, z, t], photometric="minisblack")
    return path
