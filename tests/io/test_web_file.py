"""Downloads over HTTP: whole, continued, begun again, and everything that goes wrong."""

from __future__ import annotations

import socket
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web_server import Web, web_server
from unet.errors import UserError
from unet.io import web_file
from unet.io.web_file import fetch

DATA = bytes(range(256)) * 5000


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with web_server() as found:
        found.files["a.zip"] = DATA
        yield found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole(web: Web, tmp_path: Path) -> None:
    fetch(f"{web.url}a.zip?download=1", tmp_path / "a.zip", "do it")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert names(tmp_path) == ["a.zip"]


def broken(web: Web, tmp_path: Path, after: int = 300_000) -> None:
    web.cut["a.zip"] = after
    with pytest.raises(UserError, match=r"broke after 0\.3 MB .*run it again to continue"):
        fetch(f"{web.url}a.zip", tmp_path / "a.zip", "do it")
    # Nothing has the final name.
    assert names(tmp_path) == [".a.zip.part", ".a.zip.part.json"]


def test_an_interrupted_one_continues(web: Web, tmp_path: Path) -> None:
    broken(web, tmp_path)
    fetch(f"{web.url}a.zip", tmp_path / "a.zip", "do it")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert web.asked[-1] == ("a.zip", "bytes=300000-")
    assert names(tmp_path) == ["a.zip"]


def test_it_begins_again_if_the_file_has_changed(web: Web, tmp_path: Path) -> None:
    broken(web, tmp_path)
    web.files["a.zip"] = DATA[::-1]
    web.tags["a.zip"] = '"new"'
    fetch(f"{web.url}a.zip", tmp_path / "a.zip", "do it")
    assert (tmp_path / "a.zip").read_bytes() == DATA[::-1]


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_it_begins_again_if_the_server_cannot_say(web: Web, tmp_path: Path, tag: str) -> None:
    web.tags["a.zip"] = tag
    broken(web, tmp_path)
    fetch(f"{web.url}a.zip", tmp_path / "a.zip", "do it")
    assert web.asked[-1] == ("a.zip", "")
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_it_begins_again_without_ranges(web: Web, tmp_path: Path) -> None:
    web.ranges = False
    broken(web, tmp_path)
    fetch(f"{web.url}a.zip", tmp_path / "a.zip", "do it")
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_it_begins_again_if_there_is_no_more(web: Web, tmp_path: Path) -> None:
    broken(web, tmp_path)
    web.files["a.zip"] = DATA[:1000]  # with the same tag
    fetch(f"{web.url}a.zip", tmp_path / "a.zip", "do it")
    assert (tmp_path / "a.zip").read_bytes() == DATA[:1000]


def test_another_address_does_not_continue(web: Web, tmp_path: Path) -> None:
    broken(web, tmp_path)
    web.files["b.zip"] = b"other"
    fetch(f"{web.url}b.zip", tmp_path / "a.zip", "do it")
    assert (tmp_path / "a.zip").read_bytes() == b"other"


def test_404(web: Web, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.zip: the server answered 404 Not Found; do it$"):
        fetch(f"{web.url}none.zip", tmp_path / "a.zip", "do it")
    assert names(tmp_path) == []


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"no connection \(Connection refused\); do it$"):
        fetch(f"http://127.0.0.1:{port}/a.zip", tmp_path / "a.zip", "do it")


def test_a_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(web_file, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"
        with pytest.raises(UserError, match=r"timed out\)"):
            fetch(url, tmp_path / "a.zip", "do it")


def test_a_proxy_is_used(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", web.url)
    web.files["ttp://example.org/a.zip"] = b"by proxy"  # the handler drops a first letter
    fetch("http://example.org/a.zip", tmp_path / "a.zip", "do it")
    assert (tmp_path / "a.zip").read_bytes() == b"by proxy"


Usage = namedtuple("Usage", "total used free")


def test_too_large_for_the_disk(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10, 9, 1_000_000))
    with pytest.raises(UserError, match=r"a\.zip has 0\.00 GB, but .* only 0\.00 GB free"):
        fetch(f"{web.url}a.zip", tmp_path / "a.zip", "do it")


def test_a_full_disk(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(web_file, "_write", full)
    with pytest.raises(UserError, match=r"no space left; free some and run it again to continue"):
        fetch(f"{web.url}a.zip", tmp_path / "a.zip", "do it")


@pytest.mark.parametrize("url", ["ftp://example.org/a.zip", "file:///etc/hosts", "a.zip"])
def test_other_addresses(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"not an address that can be fetched; write http://"):
        fetch(url, tmp_path / "a.zip", "do it")
