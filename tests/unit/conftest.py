"""Fixtures of several unit tests."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from unit.answers import Answers, Spoken


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    made = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            made.asked.append(path)
            made.queries.append(urlsplit(self.path).query)
            answer = made.answers.get(path, 404)
            self._answer(answer.pop(0) if isinstance(answer, list) else answer)

        def do_PATCH(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            made.patches.append((self.path, json.loads(sent)))
            path = urlsplit(self.path).path
            planned = made.answers.get("PATCH") or [(200, made.answers[path])]
            code, after = planned.pop(0)
            made.answers[path] = after
            self._answer(after if code == 200 else code)

        def _answer(self, answer: Any) -> None:
            if isinstance(answer, bytes):
                answer = Spoken(200, answer)
            if isinstance(answer, Spoken):
                code, body = answer.code, answer.body
            else:
                status = {"kind": "Status", "reason": "NotFound" if answer == 404 else "Unknown"}
                body = json.dumps(answer if isinstance(answer, dict) else status).encode()
                code = 200 if isinstance(answer, dict) else answer
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
        "users": [{"name": "a", "user": {}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a", "namespace": "serving"}}],
        "current-context": "a",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield made
    server.shutdown()
    server.server_close()
