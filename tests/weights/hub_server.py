"""A model hub on this machine: as much of its protocol as huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Repositories of files at `url`; a context manager."""

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        self.repositories = repositories
        self.downloads: list[str] = []
        handler = type("HubHandler", (Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if path.startswith("api/models/"):
            self.answer_api(path.removeprefix("api/models/"))
        else:
            self.answer_file(path, send=True)

    def do_HEAD(self) -> None:
        self.answer_file(unquote(urlsplit(self.path).path).strip("/"), send=False)

    def answer_api(self, path: str) -> None:
        name = "/".join(path.split("/")[:2])
        files = self.hub.repositories.get(name)
        if files is None:
            self.send_error(404, headers={"X-Error-Code": "RepoNotFound"})
            return
        tree = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in files.items()
        ]
        info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]}
        body = json.dumps(tree if "/tree/" in path else info).encode()
        self.respond(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def answer_file(self, path: str, *, send: bool) -> None:
        repository, _, rest = path.partition("/resolve/")
        name = rest.partition("/")[2]
        data = self.hub.repositories.get(repository, {}).get(name)
        if data is None:
            self.send_error(404, headers={"X-Error-Code": "EntryNotFound"})
            return
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "Content-Length": str(len(data))}
        self.respond(200, headers)
        if send:
            self.hub.downloads.append(name)
            self.wfile.write(data)

    def respond(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(  # type: ignore[override]
        self, code: int, message: str = "", *, headers: dict[str, str] | None = None
    ) -> None:
        self.respond(code, {"Content-Length": "0", **(headers or {})})

    def log_message(self, *_: object) -> None:
        pass
