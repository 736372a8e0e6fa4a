"""``scripts/download_heads.py`` against a local server that breaks off."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from raptor.models.pretrained import build_teacher

SCRIPT = Path(__file__).parents[1] / "scripts" / "download_heads.py"


class Server(ThreadingHTTPServer):
    content = b""
    break_after: int | None = None
    ranges: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = self.server.content[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.break_after])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    torch.manual_seed(0)
    head = {"weight": torch.randn(1000, 768), "bias": torch.randn(1000)}
    torch.save(head, tmp_path / "published.pth")
    server = Server(("127.0.0.1", 0), Handler)
    server.content, server.ranges = (tmp_path / "published.pth").read_bytes(), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    origin = f"http://127.0.0.1:{server.server_port}"
    command = [sys.executable, str(SCRIPT), str(folder), "--sizes", "s", "--origin", origin]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_download_goes_on_where_it_stopped_and_is_used_as_a_head(server: Server, tmp_path: Path) -> None:
    server.break_after = 1_000_000
    cut = fetch(server, tmp_path / "heads")
    assert cut.returncode == 1
    assert "it goes on where it stopped" in cut.stderr
    assert not list((tmp_path / "heads").glob("*.pth"))
    server.break_after = None
    done = fetch(server, tmp_path / "heads")
    assert done.returncode == 0, done.stderr
    assert server.ranges == [None, "bytes=1000000-"]
    assert fetch(server, tmp_path / "heads").returncode == 0
    assert len(server.ranges) == 2, "what is there is not fetched again"
    path = tmp_path / "heads" / "dinov2_vits14_reg4_linear_head.pth"
    assert path.read_bytes() == server.content

    teacher = build_teacher("vit_small_patch14_reg4_dinov2", {"img_size": 28, "depth": 1}, head=path).eval()
    assert teacher.num_classes == 1000
    images = torch.randn(2, 3, 28, 28)
    head = torch.load(path, weights_only=True)
    with torch.no_grad():
        x = teacher(images)
        features = torch.cat([x[:, 0], x[:, 5:].mean(1)], dim=1)
        expected = features @ head["weight"].T + head["bias"]
        torch.testing.assert_close(teacher.classify(images), expected)
