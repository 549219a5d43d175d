"""`python -m bench.weights`: a fetch from a hub on this machine, beside a plain copy of the same bytes.

Everything shares the machine's cores: the hub (a process that sends files from the page cache), the fetch, the disk.
The processor time of the fetch is its own.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_COMMIT = "1" * 40
_MIB = 2**20


def main() -> None:
    """Print one line per measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=2048, metavar="MIB", help="of the model (default: 2048)")
    parser.add_argument("--files", type=int, default=4, help="that it is in (default: 4)")
    parser.add_argument("--folder", help="on the disk to measure (default: the temporary one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        files = _make(folder / "source", given.size * _MIB // given.files, given.files)
        _say("plain copy, synced", given.size, *_copy(folder, files))
        _say("SHA-256 alone, one core", given.size, *_hash(files))
        with _hub(files) as url:
            command = [sys.executable, "-m", "moe_operator.cli.operator", "weights", "fetch"]
            command += ["--source", "hf://bench/model", "--endpoint", url, "--cache", str(folder / "cache")]
            _say("fetch", given.size, *_run(command))
            _say("fetch again, complete", given.size, *_run(command))


def _make(folder: Path, size: int, count: int) -> list[Path]:
    folder.mkdir()
    files = [folder / f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    for file in files:
        with file.open("wb") as out:
            for _ in range(size // _MIB):
                out.write(os.urandom(_MIB))
    return files


def _copy(folder: Path, files: list[Path]) -> tuple[float, float, int]:
    target = folder / "copy"
    target.mkdir()
    began, used = time.monotonic(), time.process_time()
    for file in files:
        with file.open("rb") as source, (target / file.name).open("wb", buffering=0) as out:
            while data := source.read(_MIB):
                out.write(data)
            os.fsync(out.fileno())
    figures = time.monotonic() - began, time.process_time() - used, 0
    shutil.rmtree(target)
    return figures


def _hash(files: list[Path]) -> tuple[float, float, int]:
    began, used = time.monotonic(), time.process_time()
    for file in files:
        with file.open("rb") as source:
            hashlib.file_digest(source, "sha256")
    return time.monotonic() - began, time.process_time() - used, 0


def _run(command: list[str]) -> tuple[float, float, int]:
    """Wall and processor seconds, and the most memory of its own in KiB. Raises CalledProcessError."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, own = os.wait4(process.pid, 0)
    took = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, used, own.ru_maxrss


def _say(what: str, size: int, took: float, used: float, memory: int) -> None:
    told = f"{what:26} {took:7.2f} s  {size / took:7.0f} MiB/s  {used:6.2f} s of processor time"
    print(told + (f"  {memory / 1024:.0f} MiB of memory" if memory else ""), flush=True)


@contextmanager
def _hub(files: list[Path]) -> Iterator[str]:
    """A hub in a process of its own: else its work would be in this one's way."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(files))
        os.write(write, f"{server.server_address[1]}\n".encode())
        threading.Thread(target=server.serve_forever).run()
    os.close(write)
    with os.fdopen(read) as told:
        port = int(told.readline())
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _handler(files: list[Path]) -> type[BaseHTTPRequestHandler]:
    by_name = {file.name: file for file in files}
    siblings = []
    for file in files:
        with file.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        size = file.stat().st_size
        lfs = {"sha256": digest, "size": size, "pointerSize": 135}
        siblings.append({"rfilename": file.name, "size": size, "blobId": "0" * 40, "lfs": lfs})
    listing = json.dumps({"id": "bench/model", "sha": _COMMIT, "siblings": siblings}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            file = by_name.get(self.path.rpartition("/")[2])
            self.send_response(200)
            self.send_header("Content-Length", str(file.stat().st_size if file else len(listing)))
            self.end_headers()
            self.wfile.flush()
            if file is None:
                self.wfile.write(listing)
                return
            with file.open("rb") as source:
                self.connection.sendfile(source)

    return Handler


if __name__ == "__main__":
    main()
