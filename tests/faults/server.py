"""A process that has everything imported and forks children, each of which is one call of the command line.

Reads a JSON object per line: ``{"start": arguments, "limits": {...}, "log": path}`` forks and answers with
the child's process id; ``{"wait": pid}`` answers with its exit status as of ``os.waitpid``. Nothing is
computed here: a child must find no threads of its parent's.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

# What a run imports on its way. Optimizers import torch._dynamo when first used.
MODULES = (
    "PIL.PngImagePlugin", "bench.cli", "bench.cli_output", "bench.engines.local", "bench.report.page",
    "bench.runner", "bench.zoo.networks", "fsspec.implementations.local", "pyarrow.pandas_compat",
    "pyarrow.parquet", "safetensors.numpy", "scipy.linalg", "scipy.special", "sklearn.datasets",
    "torch._dynamo",
)  # fmt: skip


def import_everything() -> None:
    """All of it, once."""
    for name in MODULES:
        importlib.import_module(name)
    from bench.components import TABLES, component_class

    for table in ("data", "generators", "conditioners", "translators", "samplers", "metrics"):
        for kind in TABLES[table]:
            component_class(table, kind)
    component_class("judges", "classifier")


def be_limited(limits: dict[str, Any]) -> None:
    """What a child may use: ``file_bytes`` a file, ``more_memory`` bytes of address space beside
    what it has; ``unprivileged`` has permissions hold for root too."""
    if "file_bytes" in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"],) * 2)
    if "more_memory" in limits:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + limits["more_memory"]
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    if "unprivileged" in limits:
        # Root without its capabilities: permissions hold for it as for any other user.
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None, use_errno=True).capset(header, none):
            raise OSError(ctypes.get_errno(), "capset")


def child(request: dict[str, Any]) -> int:
    """The exit code of one call of the command line, its output in a file."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(request.get("environment", {}))
    tempfile.tempdir = None  # whatever the parent found
    be_limited(request["limits"])
    from bench.cli import main

    code = main(request["start"])
    sys.stdout.flush()
    return code


def serve() -> None:
    torch.set_num_threads(1)
    import_everything()
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitpid(request["wait"], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                code = 70  # an exception that the command line let through
                try:
                    code = child(request)
                except BaseException as error:
                    import traceback

                    traceback.print_exception(error)
                finally:
                    sys.stderr.flush()
                    os._exit(code)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
