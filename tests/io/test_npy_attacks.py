"""Files that attack the reader of ``_seg.npy``: each is refused, or read without harm."""

from __future__ import annotations

import pickle
import resource
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.errors import UserError
from unet.io.images import open_label
from unet.io.npy_reader import read_npy

MASKS = np.array([[0, 1, 1], [2, 2, 0]], np.uint16)
RECONSTRUCT, SCALAR = (np.zeros(1).__reduce__()[0], np.float64(1).__reduce__()[0])
# What follows the version in the state of a type of plain numbers.
PLAIN = ("<", None, None, None, -1, -1, 0)


class Call:
    """What a pickle calls, and the state that it sets then."""

    def __init__(self, function: Any, args: tuple[Any, ...], state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.parts


def kind(name: Any = "u2", state: Any = (3, *PLAIN)) -> Call:
    return Call(np.dtype, (name, False, True), state)


def array(*state: Any) -> Call:
    return Call(RECONSTRUCT, (np.ndarray, (0,), b"b"), tuple(state))


def header() -> bytes:
    made = BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "|O", "fortran_order": False, "shape": ()})
    return made.getvalue()


def opened(folder: Path, body: bytes) -> np.ndarray[Any, Any]:
    path = folder / "a_seg.npy"
    path.write_bytes(header() + body)
    found: np.ndarray[Any, Any] = open_label(path).array.compute()
    return found


def whole(masks: Any, **more: Any) -> bytes:
    return pickle.dumps({"masks": masks, **more})


PIXELS = MASKS.tobytes()
# Types that claim to hold numbers but hold addresses, and others that NumPy would take.
ADDRESS = struct.pack("<Q", 0x4141414141414141)
ATTACKS: dict[str, Any] = {
    "a type of objects without its flags": array(
        1, (1, 1), kind("O8", (3, "|", None, None, None, -1, -1, 0)), False, ADDRESS
    ),
    "a number that is an address": {"masks": Call(SCALAR, (kind("O8", (3, *PLAIN)), ADDRESS))},
    "larger elements than bytes": array(
        1, (2, 3), kind("V2", (3, "|", None, None, None, 1 << 40, 1, 0)), False, PIXELS
    ),
    "another size for numbers": array(
        1, (2, 3), kind("u2", (3, "<", None, None, None, 1 << 20, 1, 0)), False, PIXELS
    ),
    "fields that reach beyond": array(
        1, (2, 3), kind("V8", (3, "|", None, ("a",), {"a": (kind("O8"), 99)}, 8, 1, 0)), False, b""
    ),
    "a type inside the type": array(
        1, (2, 3), kind("V2", (3, "|", (kind("O8"), (9,)), None, None, 2, 1, 0)), False, PIXELS
    ),
    "flags": array(1, (2, 3), kind("u2", (3, *PLAIN[:-1], 63)), False, PIXELS),
    "objects as bytes": array(1, (1, 1), kind("O8", (3, *PLAIN[:-1], 63)), False, ADDRESS),
    "a list of objects": array(1, (1, 2), kind("O8", (3, *PLAIN[:-1], 63)), False, [1, 2]),
    "fewer bytes than pixels": array(1, (2, 30), kind(), False, PIXELS),
    "more bytes than pixels": array(1, (2, 2), kind(), False, PIXELS),
    "a negative shape": array(1, (-2, -3), kind(), False, PIXELS),
    "a shape that overflows": array(1, (1 << 62, 4, 3), kind(), False, PIXELS),
    "a shape that is huge and empty": array(1, (0, 1 << 62), kind(), False, b""),
    "a shape of texts": array(1, ("2", "3"), kind(), False, PIXELS),
    "no shape": array(1, None, kind(), False, PIXELS),
    "no type": array(1, (2, 3), None, False, PIXELS),
    "a type that is no text": array(1, (2, 3), kind(("u2", (3,))), False, PIXELS),
    "a long type": array(1, (2, 3), kind("u2" * 1000), False, PIXELS),
    "text for pixels": array(1, (2, 3), kind(), False, "abcdefabcdef"),
    "a short state": array(1, (2, 3)),
    "no state": Call(RECONSTRUCT, (np.ndarray, (0,), b"b")),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_arrays_that_lie_about_themselves_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"a_seg\.npy: (is not read|has no array)"):
        opened(tmp_path, whole(ATTACKS[name]))


def test_a_lie_beside_the_masks_is_never_made(tmp_path: Path) -> None:
    bad = list(ATTACKS.values())
    crash = Call(SCALAR, (kind("O8", (3, "|", None, None, None, -1, -1, 0)), ADDRESS))
    assert np.array_equal(opened(tmp_path, whole(MASKS, flows=bad, diameter=crash)), MASKS)


@given(
    name=st.sampled_from(["O8", "u2", "b1", "V8", "S4", "U2", "f8", "M8", ">i4", "", "object"]),
    state=st.none()
    | st.tuples(
        st.integers(0, 5), st.sampled_from("<>|=OX"),
        st.none() | st.just(("u2", (3,))), st.none() | st.just(("a",)),
        st.none() | st.just({"a": ("u2", 0)}),
        st.integers(-2, 1 << 33), st.integers(-2, 16), st.integers(0, 255),
    ),
    shape=st.lists(st.integers(-2, 1 << 63) | st.integers(0, 3), max_size=4).map(tuple),
    data=st.binary(max_size=24) | st.none() | st.lists(st.integers(), max_size=2),
    order=st.sampled_from([True, False, None, "F", 1]),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_state_is_read_or_refused(
    tmp_path_factory: Any, name: str, state: Any, shape: Any, data: Any, order: Any
) -> None:
    folder = tmp_path_factory.mktemp("state")
    try:
        found = opened(folder, whole(array(1, shape, kind(name, state), order, data)))
    except UserError:
        return
    assert isinstance(data, bytes)
    assert (found.nbytes, found.shape) == (len(data), shape)
    assert found.dtype.kind in "biuf"


def seg() -> dict[str, Any]:
    """What Cellpose writes."""
    return {
        "outlines": MASKS > 1, "colors": np.zeros((2, 3), np.uint8), "masks": MASKS,
        "chan_choose": [0, 0], "ismanual": np.zeros(2, bool), "filename": "a.tif",
        "flows": [np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.float32), [], None],
        "est_diam": np.float64(3), "diameter": 12.5, "model_path": Path("cpsam"),
        "manual_changes": [["01/02/2026, 10:00:00", "added mask", [MASKS[0], MASKS[1]]]],
        "normalize_params": {"percentile": (1.0, 99.0), "tile_norm_blocksize": 0, "norm3D": True},
    }  # fmt: skip


@given(
    protocol=st.integers(0, 5),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_any_changed_byte_is_read_or_refused(
    tmp_path_factory: Any, protocol: int, changes: list[tuple[float, int]]
) -> None:
    body = bytearray(pickle.dumps(np.array(seg(), dtype=object), protocol=protocol))
    for where, value in changes:
        body[int(where * (len(body) - 1))] = value
    folder = tmp_path_factory.mktemp("changed")
    try:
        found = opened(folder, bytes(body))
    except UserError:
        assert changes
        return
    assert found.dtype.kind in "biuf"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["b1", "u1", "<u2", ">u2", "<i4", ">i8", "<f4", ">f8"])
@pytest.mark.parametrize("protocol", range(6))
def test_every_type_of_numbers_comes_back(
    tmp_path: Path, dtype: str, order: Any, protocol: int
) -> None:
    masks = np.array([[0, 1, 1], [1, 200, 0]]).astype(dtype, order=order)
    body = pickle.dumps({"masks": masks}, protocol=protocol)
    (tmp_path / "a_seg.npy").write_bytes(header() + body)
    found = read_npy(tmp_path / "a_seg.npy").array.compute()
    assert np.array_equal(found, masks)
    assert found.dtype.newbyteorder("=") == masks.dtype.newbyteorder("=")


def test_what_numpy_itself_writes_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a_seg.npy", seg())  # type: ignore[arg-type]
    assert np.array_equal(read_npy(tmp_path / "a_seg.npy").array.compute(), MASKS)


# --- small files that would fill the memory


def doubled() -> bytes:
    """A path of a path of a path ...: each holds the text of the one before twice."""
    body = b"\x80\x04}\x8c\x05flows\x8c\x01ap\x30\n"
    for _ in range(60):
        body += b"0cpathlib\nPurePosixPath\ng0\ng0\n\x86Rp0\n"
    return body + b"s."


def encoded() -> bytes:
    """The same long text, encoded again and again."""
    text = b"a" * 1_000_000
    body = b"\x80\x04}\x8c\x05flows](X" + struct.pack("<I", len(text)) + text
    return body + b"q\x000" + b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R" * 3000 + b"es."


BOMBS: dict[str, Callable[[], bytes]] = {
    "paths that double": doubled,
    "a text that is encoded again and again": encoded,
    "a far place in the memory": lambda: b"\x80\x04}r\xff\xff\xff\x0f.",
    "a far place as text": lambda: b"\x80\x04}p268435455\n.",
    "bytes that are not there": lambda: b"\x80\x05\x96" + struct.pack("<Q", 1 << 36) + b".",
    "text that is not there": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 36) + b".",
    "a frame that is not there": lambda: b"\x80\x04\x95" + struct.pack("<Q", 1 << 36) + b"}.",
    "millions of empty sets": lambda: b"\x80\x04(" + b"\x8f" * 6_000_000 + b"l.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_do_not_fill_the_memory(tmp_path: Path, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"a_seg\.npy: (is not read|has no array)"):
        opened(tmp_path, BOMBS[name]())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000  # KiB


def test_a_plain_array_cut_short_or_with_a_false_shape(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((8, 8), np.uint16))
    data = path.read_bytes()
    for bad in (data[:-1], data.replace(b"(8, 8)", b"(9,99)"), data.replace(b"(8, 8)", b"(-8,8)")):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"a\.npy: "):
            open_label(path)
