"""A stand-in for W&B's server on this machine: one that takes runs, or one that fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Behaviour = Literal["takes", "refuses", "errs", "hangs"]


class Server(ThreadingHTTPServer):
    """Behaves as told; `rows` are the lines of history that it was sent, `met` counts requests."""

    daemon_threads = True

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour, self.closing = behaviour, threading.Event()
        self.rows: list[dict[str, Any]] = []
        self.uploaded: set[str] = set()
        self.artifacts: list[str] = []
        self.met = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *arguments: Any) -> None:
        """Nothing on the terminal when a client has gone before its answer came."""

    def answer(self, path: str, body: bytes) -> Any:
        """What W&B would say, as far as its client looks at it."""
        if path.startswith("/upload/"):
            self.uploaded.add(path.removeprefix("/upload/"))
            return {}
        try:
            sent = json.loads(body)
        except ValueError:  # probes of the connection have no body
            return {}
        if path.endswith("/file_stream"):
            history = sent.get("files", {}).get("wandb-history.jsonl", {})
            self.rows += [json.loads(line) for line in history.get("content", [])]
            return {}
        return {"data": self._resolve(sent.get("operationName"), sent.get("variables", {}))}

    def _resolve(self, operation: str | None, variables: dict[str, Any]) -> Any:
        if operation == "UpsertBucket":
            project = {"name": variables["project"], "entity": {"name": "team"}}
            run = {"id": "run", "name": variables["name"], "displayName": "run"}
            return {"upsertBucket": {"bucket": run | {"project": project}, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": n, "uploadUrl": f"{self.url}/upload/{n}"} for n in variables["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":
            sequence = {"id": "sequence", "latestArtifact": {"id": "artifact", "versionIndex": 0}}
            artifact = {"id": "artifact", "state": "COMMITTED", "artifactSequence": sequence}
            self.artifacts.append(variables["input"]["artifactCollectionName"])
            return {"createArtifact": {"artifact": artifact}}
        return {}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: Any) -> None:
        """Nothing on the terminal."""

    def _handle(self) -> None:
        server = self.server
        server.met += 1
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        status = {"refuses": 403, "errs": 500}.get(server.behaviour, 200)
        if server.behaviour == "hangs":
            server.closing.wait()
        answer = json.dumps(server.answer(self.path, body) if status == 200 else {}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = _handle


@contextmanager
def wandb_server(behaviour: Behaviour) -> Iterator[Server]:
    """A server that runs for as long as the block."""
    server = Server(behaviour)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
