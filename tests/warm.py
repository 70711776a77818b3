"""The command ``hmdiff`` without its start: a process that has imported everything forks a stage.

To import torch takes a stage of the smoke preset half of its processor time. :func:`warm` is for
one of two pipelines that are compared: the other one runs the command itself, from nothing, and
its outputs say that a start makes no difference.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# Takes arguments, folder and the three standard streams over a socket; -S spares it packages.
CLIENT = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([sys.argv[1:], os.getcwd()]).encode()
    socket.send_fds(server, [request], [0, 1, 2])
    code = server.makefile().read()
sys.exit(int(code) if code else 1)  # nothing: it was killed
"""


@contextlib.contextmanager
def warm(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """``environment``, in which ``hmdiff`` is a fork of a process that lives as long as this."""
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        address = f"{folder}/socket"
        client = Path(folder, "hmdiff")
        client.write_text(CLIENT.format(python=sys.executable, address=address))
        client.chmod(0o755)
        with subprocess.Popen(
            [sys.executable, __file__, address], env=environment, stdout=subprocess.PIPE
        ) as server:
            try:
                assert server.stdout.readline(), "it has ended"
                yield environment | {"PATH": f"{folder}{os.pathsep}{environment['PATH']}"}
            finally:
                server.terminate()


def serve(address: str) -> None:
    """Carry out every request in a fork of its own."""
    import hmdiff
    from hmdiff import cli, stages
    from hmdiff.extractor.timm_import import import_timm

    import_timm()
    for module in pkgutil.iter_modules(stages.__path__):
        importlib.import_module(f"hmdiff.stages.{module.name}")
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    hmdiff.STARTED = time.monotonic()
    request, streams, *_ = socket.recv_fds(connection, 2**16, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    arguments, folder = json.loads(request)
    os.chdir(folder)
    sys.argv = ["hmdiff", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        connection.sendall(str(ended.code or 0).encode())
        raise


if __name__ == "__main__":
    serve(sys.argv[1])
