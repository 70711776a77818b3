"""A misbehaving HTTP server on 127.0.0.1, and small archives to fetch from it."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from hmdiff.acquisition.catalogue import Archive


class Host:
    """What the server answers with; tests change it between and during requests."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.validators = {"ETag": '"one"'}
        self.type = "application/zip"
        self.ranges = True  # whether Range is understood
        self.cuts: list[int] = []  # bytes of the body after which a request's connection is cut
        self.statuses: list[int] = []  # answers instead of the file, one a request
        self.asked: list[str | None] = []  # the Range of every request
        self.shifts: list[int] = []  # by which the answers to a Range are off
        self.length = True  # whether Content-Length is told
        self.url = ""

    def archive(self, name: str = "set.zip", **changes) -> Archive:
        """The record in the catalogue of the file that is served."""
        facts = {"size": len(self.content), "exact": True, "sha256": None, "provides": ["a/*.json"]}
        return Archive(name=name, url=f"{self.url}/{name}", **(facts | changes))


@contextmanager
def serve(content: bytes) -> Iterator[Host]:
    host = Host(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            host.asked.append(asked)
            if host.statuses:
                self.send_response(host.statuses.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(asked.split("=")[1].rstrip("-")) if asked and host.ranges else 0
            if self.headers.get("If-Range") not in host.validators.values():
                start = 0
            body = host.content[start:]
            self.send_response(206 if start else 200)
            for key, value in host.validators.items():
                self.send_header(key, value)
            self.send_header("Content-Type", host.type)
            if host.length:
                self.send_header("Content-Length", str(len(body)))
            if start:
                whole, told = len(host.content), start + (host.shifts or [0]).pop(0)
                self.send_header("Content-Range", f"bytes {told}-{whole - 1}/{whole}")
            self.end_headers()
            self.wfile.write(body[: host.cuts.pop(0)] if host.cuts else body)
            self.close_connection = True

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return stream.getvalue()


def tarred(files: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """A .tar.gz of ``files`` and then of members without content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for member in others:
            file.addfile(member)
    return stream.getvalue()
