"""A hub on this machine: serves one repository over HTTP as the real one would, ranges included."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


class FakeHub(ThreadingHTTPServer):
    """Serves the files of a folder as owner/model.

    Attributes:
        folder: what it serves.
        ranges: the first byte that each download asked for, by file.
        spoiled: files of which it sends other bytes than it announced.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.ranges: dict[str, list[int]] = {}
        self.spoiled: set[str] = set()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def content(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/owner/model/resolve/"):
            self._file(path.rpartition("/")[2], with_body)
        elif "/tree/" in path:
            self._send(json.dumps([self._entry(name, "oid", "path") for name in self._names()]))
        elif path.startswith("/api/models/owner/model"):
            siblings = [self._entry(name, "sha256", "rfilename") for name in self._names()]
            self._send(json.dumps({"id": "owner/model", "sha": COMMIT, "siblings": siblings}))
        else:
            self.send_error(404)

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.server.folder.iterdir())

    def _entry(self, name: str, hash_key: str, name_key: str) -> dict[str, object]:
        content = self.server.content(name)
        entry: dict[str, object] = {name_key: name, "type": "file", "size": len(content)}
        entry["oid"] = entry["blobId"] = hashlib.sha1(content).hexdigest()
        if name.endswith(".safetensors"):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {hash_key: digest, "size": len(content), "pointerSize": 130}
        return entry

    def _send(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, name: str, with_body: bool) -> None:
        content = self.server.content(name)
        hashed = hashlib.sha256 if name.endswith(".safetensors") else hashlib.sha1
        etag = hashed(content).hexdigest()
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if name in self.server.spoiled:
            content = bytes(len(content))
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not with_body:
            return
        self.server.ranges.setdefault(name, []).append(start)
        self.wfile.write(content[start:])
