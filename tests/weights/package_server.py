"""A package index on this machine: the simple HTML pages that pip reads, and wheels made on the spot."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def make_wheel(
    package: str, files: Mapping[str, bytes], *, version: str = "1.0", zip64: bool = False
) -> bytes:
    """A pure wheel with the given files; names are taken as they are, hostile ones too."""
    stem = package.replace("-", "_")
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{stem}/__init__.py", "raise SystemExit('the code of a package must not run')")
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
        archive.writestr(f"{stem}-{version}.dist-info/METADATA", metadata)
        archive.writestr(f"{stem}-{version}.dist-info/WHEEL", wheel)
        archive.writestr(f"{stem}-{version}.dist-info/RECORD", "")
    return buffer.getvalue()


class PackageServer:
    """Serves wheels at `url`; counts what was asked for.  A context manager."""

    def __init__(self) -> None:
        self.wheels: dict[str, bytes] = {}  # file name -> content
        self.promised: dict[str, bytes] = {}  # file name -> the content that the page's checksum is of
        self.cut: set[str] = set()  # file names whose transfer breaks off in the middle
        self.downloads: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, _, name = self.path.strip("/").partition("/")
                if kind == "simple" and (page := server.page(name.rstrip("/"))):
                    self.answer(page.encode(), "text/html")
                elif kind == "files" and name in server.wheels:
                    server.downloads.append(name)
                    self.answer(server.wheels[name], "application/octet-stream", cut=name in server.cut)
                else:
                    self.send_error(404)

            def answer(self, data: bytes, kind: str, *, cut: bool = False) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if cut else data)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/simple/"

    def add(self, package: str, files: Mapping[str, bytes], *, version: str = "1.0") -> str:
        """Publish a wheel; returns its file name."""
        name = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        self.wheels[name] = self.promised[name] = make_wheel(package, files, version=version)
        return name

    def page(self, package: str) -> str:
        """The simple page of a package, or "" where there is none."""
        stem = package.replace("-", "_")
        links = [
            f'<a href="/files/{name}#sha256={hashlib.sha256(self.promised[name]).hexdigest()}">{name}</a>'
            for name in self.wheels
            if name.split("-")[0] == stem
        ]
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>" if links else ""

    def __enter__(self) -> PackageServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
