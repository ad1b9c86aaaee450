"""A small HTTP server on this machine, for tests of downloads: files from memory, ranges, and what
goes wrong on the web."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass
class Web:
    """What the server has, and what it was asked.

    Attributes:
        url: its address, ending in ``/``.
        files: path without the first ``/`` -> content.
        tags: path -> ETag; "" for none (default: a strong one).
        cut: path -> bytes after which the connection breaks, once.
        ranges: whether it knows ranges.
        asked: path and Range of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    web: ClassVar[Web]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path, web = self.path[1:].partition("?")[0], self.web
        wanted = self.headers.get("Range", "")
        web.asked.append((path, wanted))
        if path not in web.files:
            self.send_error(404)
            return
        content, tag, begin = web.files[path], web.tags.get(path, f'"{path}"'), 0
        if web.ranges and wanted and self.headers.get("If-Range") == tag:
            begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if begin >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if tag:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        with suppress(ConnectionError):  # the reader may stop early
            self.wfile.write(content[begin : web.cut.pop(path, len(content))])
        self.close_connection = True


@contextmanager
def web_server() -> Iterator[Web]:
    """Serves on the loopback interface until the block ends."""
    web = Web()
    handler = type("Handler", (_Handler,), {"web": web})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        web.url = f"http://127.0.0.1:{server.server_address[1]}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()
