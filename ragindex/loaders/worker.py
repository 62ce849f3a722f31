"""The worker process of LoaderPool: reads requests from stdin until it ends, so it never outlives its parent."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from ragindex.config import Limits
from ragindex.errors import LoadError
from ragindex.loaders.frames import document_as_json, read_frame, write_frame
from ragindex.loaders.reading import load

__all__ = ["main"]

_MEBIBYTE = 1 << 20


def main() -> None:
    """Serve `{"limits"}`, then `{"path", "name"}` requests; answers `{"document"}`, `{"reason"}` or `{"memory"}`."""
    requests, answers = _own_pipes()
    limits = Limits()
    while (frame := read_frame(requests)) is not None:
        request = json.loads(frame)
        if "limits" in request:
            limits = Limits(**request["limits"])
            _limit_memory(limits.memory_mb)
            write_frame(answers, b"{}")
            continue
        write_frame(answers, _answer(request, limits))


def _answer(request: dict[str, Any], limits: Limits) -> bytes:
    try:
        document = load(Path(request["path"]), name=request["name"], limits=limits)
        return json.dumps({"document": document_as_json(document)}).encode()
    except LoadError as error:
        return json.dumps({"reason": error.reason}).encode()
    except MemoryError:
        return b'{"memory": true}'


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes to ourselves: a parser that prints to standard output must not garble an answer."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def _limit_memory(megabytes: int) -> None:
    """Allow `megabytes` of address space more than the process has now; a system without such a limit goes without."""
    try:
        import resource
    except ImportError:
        return
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a pseudo file
            start = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        start = 0
    if sys.platform == "darwin":
        # Its kernel accepts the limit and maps hundreds of gigabytes for every process: it would end at once.
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = start + megabytes * _MEBIBYTE
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    main()
