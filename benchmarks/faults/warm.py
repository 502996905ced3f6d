"""Programs that start warm: one process has torch and the models imported, and forks for every run.

python -m benchmarks.faults.warm serve SOCKET          the process that forks
python -m benchmarks.faults.warm MODULE ARG ...        run a module as `python -m` would, in a fork

Importing torch and transformers is most of what a tiny model's run costs. The second form takes the place
of `python -m MODULE`: its environment, directory and open files are the fork's, which arrives as any new
process does (the boot file of `twinrun run` runs first where there is one), and its exit status is its own.
The socket is the one that FAULTS_WARM names.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

NAME = "FAULTS_WARM"
_STATUS = struct.Struct("<i")
_LONGEST = 1 << 20
_FILES = 3


@contextmanager
def serving() -> Iterator[None]:
    """Serve programs that start warm to everything started inside the block."""
    with TemporaryDirectory(prefix="twinrun-warm-") as directory:
        path = Path(directory) / "socket"
        command = [sys.executable, "-m", "benchmarks.faults.warm", "serve", str(path)]
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            while not path.exists() and process.poll() is None:
                time.sleep(0.05)
            os.environ[NAME] = str(path)
            yield
        finally:
            os.environ.pop(NAME, None)
            process.terminate()
            process.wait()


def ask(argv: list[str]) -> int:
    """Let the serving process run a module; its exit status."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(os.environ[NAME])
        asked = {"argv": argv, "environment": dict(os.environ), "directory": str(Path.cwd())}
        text = json.dumps(asked).encode()
        socket.send_fds(link, [_STATUS.pack(len(text))], list(range(_FILES)))
        link.sendall(text)
        answer = link.recv(_STATUS.size, socket.MSG_WAITALL)
    return int(_STATUS.unpack(answer)[0]) if len(answer) == _STATUS.size else 1


def serve(path: str) -> int:
    """Fork for everyone who asks; returns only in a fork, with the status of what ran there."""
    import transformers.models.gemma.modeling_gemma
    import transformers.models.llama.modeling_llama
    import transformers.models.qwen3_moe.modeling_qwen3_moe  # noqa: F401

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        Path(path).chmod(0o600)
        listening.listen(64)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            link, _ = listening.accept()
            if os.fork() == 0:
                break
            link.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return _answer(link)


def _answer(link: socket.socket) -> int:
    head, files, _, _ = socket.recv_fds(link, _STATUS.size, _FILES)
    (length,) = _STATUS.unpack(head)
    if length > _LONGEST:
        return 1
    asked = json.loads(link.recv(length, socket.MSG_WAITALL))
    child = os.fork()
    if child == 0:
        link.close()
        return _become(asked, files)
    os._exit(_watch(link, child))


def _watch(link: socket.socket, child: int) -> int:
    """Pass the child's status on; end the child when nobody waits for it any more."""
    waiting = os.pidfd_open(child)
    ready, _, _ = select.select([link, waiting], [], [])
    if waiting not in ready:
        os.kill(child, signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if waiting in ready:
        link.sendall(_STATUS.pack(status if status >= 0 else 128 - status))
    return 0


def _become(asked: dict[str, object], files: list[int]) -> int:
    """Be the process that was asked for."""
    for at, file in enumerate(files):
        os.dup2(file, at)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[call-overload]
    os.chdir(str(asked["directory"]))
    module, *arguments = asked["argv"]  # type: ignore[misc]
    sys.argv = [module, *arguments]
    boot = Path(os.environ.get("PYTHONPATH", "").split(os.pathsep)[0]) / "sitecustomize.py"
    if boot.is_file():
        runpy.run_path(str(boot))
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if not isinstance(error.code, int) and error.code is not None:
            print(error.code, file=sys.stderr)
            return 1
        return error.code or 0
    except BaseException:  # noqa: BLE001 - as the interpreter itself ends a program
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(serve(sys.argv[2]) if sys.argv[1] == "serve" else ask(sys.argv[1:]))
