"""Archives: what is unpacked, and what is refused before anything is written."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from unet.errors import UserError
from unet.io.archives import unpack

Usage = namedtuple("Usage", "total used free")


def zipped(path: Path, *names: str, mode: int = 0, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def tarred(path: Path, *names: str, kind: bytes = tarfile.REGTYPE, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/hosts", 1
            if kind != tarfile.REGTYPE:
                info.size = 0
            archive.addfile(info, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_what_is_unpacked(tmp_path: Path, suffix: str) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / "out"
    out.mkdir()
    names = ("a/b.tif", "..c.tif", "a/.. d/e")
    if suffix == ".zip":
        zipped(path, *names, mode=stat.S_IFREG | 0o644)
    else:
        tarred(path, *names, mode=f"w:{suffix.removeprefix('.tar').strip('.')}")
    unpack(path, out, path.name)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == sorted(
        names
    )


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "C:/x", "..\\x", "\\x"])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_paths_that_lead_out(tmp_path: Path, name: str, make: object) -> None:
    out = tmp_path / "out"
    out.mkdir()
    path = make(tmp_path / "a", "good", name)  # type: ignore[operator]
    with pytest.raises(UserError, match=r"a path that leads out of its folder; nothing was"):
        unpack(path, out, "a.zip")
    assert not list(out.iterdir())
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip(tmp_path: Path, kind: int) -> None:
    path = zipped(tmp_path / "a", "link", mode=kind | 0o777, content=b"/etc/hosts")
    with pytest.raises(UserError, match=r"^a\.zip: 'link' is a link or a device; nothing was"):
        unpack(path, tmp_path, "a.zip")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    path = tarred(tmp_path / "a", "link", kind=kind)
    with pytest.raises(UserError, match=r"'link' is a link or a device; nothing was unpacked"):
        unpack(path, tmp_path, "a.tar")


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_bomb(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = tmp_path / f"a.{suffix}", tmp_path / "out"
    out.mkdir()
    if suffix == "zip":
        zipped(path, "zeros", content=bytes(5_000_000))
    else:
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo("zeros")
            info.size = 5_000_000
            archive.addfile(info, io.BytesIO(bytes(5_000_000)))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(0, 0, 4_000_000))
    with pytest.raises(UserError, match=r"unpacks to .*0\.01 GB, but .* has only 0\.00 GB free"):
        unpack(path, out, path.name)
    assert not list(out.iterdir())


def test_a_password(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "secret")
    data = bytearray(path.read_bytes())
    for at in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[at] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"'secret' is protected by a password"):
        unpack(path, tmp_path, "a.zip")


def test_no_archive_and_damaged_ones(tmp_path: Path) -> None:
    page = tmp_path / "a.zip"
    page.write_text("<!DOCTYPE html><title>Log in</title>")
    with pytest.raises(UserError, match=r"not a zip or tar archive \(it begins with b'<!DOCTYPE"):
        unpack(page, tmp_path, "a.zip")
    whole = zipped(tmp_path / "b.zip", "x", content=bytes(range(256)) * 9).read_bytes()
    page.write_bytes(whole[:40] + bytes([whole[40] ^ 255]) + whole[41:])
    with pytest.raises(UserError, match=r"a\.zip: damaged \(.*\); download it again"):
        unpack(page, tmp_path, "a.zip")
    packed = tarred(tmp_path / "c.tar.gz", *map(str, range(99))).read_bytes()
    page.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"a\.zip: damaged|not a zip or tar archive"):
        unpack(page, tmp_path, "a.zip")
