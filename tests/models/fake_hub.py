"""A hub of one model on this machine, with as much of the protocol as a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def hash_of(text: str | bytes) -> str:
    return hashlib.sha1(text.encode() if isinstance(text, str) else text).hexdigest()


@contextmanager
def serve_hub(model_id: str, revisions: dict[str, dict[str, bytes]]) -> Iterator[Any]:
    """A running server; `.url` is its address, `.paths` what was asked for, in order.

    Args:
        model_id: The only model there is.
        revisions: The files of each branch.
    """
    by_name = revisions | {hash_of(branch): files for branch, files in revisions.items()}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Nothing: tests are silent."""

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            self.server.paths.append(path)  # type: ignore[attr-defined]
            api, files = f"/api/models/{model_id}", f"/{model_id}/resolve/"
            if path == api or path.startswith(f"{api}/revision/"):
                self.describe(path.removeprefix(api).removeprefix("/revision/") or "main")
            elif path.startswith(f"{api}/tree/"):
                self.list_tree(path.removeprefix(f"{api}/tree/"))
            elif path.startswith(files):
                self.send_file(*path.removeprefix(files).split("/", 1))
            else:
                self.answer(404, X_Error_Code="RepoNotFound")

        def describe(self, branch: str) -> None:
            if branch not in by_name:
                self.answer(404, X_Error_Code="RevisionNotFound")
                return
            sha = branch if branch not in revisions else hash_of(branch)
            siblings = [{"rfilename": name} for name in by_name[branch]]
            self.send_json({"id": model_id, "sha": sha, "siblings": siblings})

        def list_tree(self, branch: str) -> None:
            self.send_json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": hash_of(content)}
                    for name, content in by_name[branch].items()
                ]
            )

        def send_json(self, value: Any) -> None:
            self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

        def send_file(self, branch: str, name: str) -> None:
            content = by_name.get(branch, {}).get(name)
            if content is None:
                self.answer(404, X_Error_Code="EntryNotFound")
                return
            sha = branch if branch not in revisions else hash_of(branch)
            self.answer(200, content, ETag=f'"{hash_of(content)}"', X_Repo_Commit=sha)

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.paths = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
