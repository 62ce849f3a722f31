"""Serves the search page: a handful of files that travel in the package, held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request, Response

from ragindex.server.failures import Refusal

__all__ = ["routes"]

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    type: str
    tag: str


def routes() -> APIRouter:
    """`/` and `/page/NAME`. Names are looked up among the files there are, so no name leads anywhere else."""
    router = APIRouter(include_in_schema=False)
    files = {file.name: _read(file) for file in _FOLDER.iterdir() if file.suffix in _TYPES}

    @router.get("/")
    async def _index(request: Request) -> Response:
        return _response(request, files["index.html"])

    @router.get("/page/{name}")
    async def _file(request: Request, name: str) -> Response:
        if name not in files:
            raise Refusal(404, f"The page has no file {name!r}.")
        return _response(request, files[name])

    return router


def _read(file: Path) -> _File:
    data = file.read_bytes()
    return _File(data, _TYPES[file.suffix], f'"{sha256(data).hexdigest()[:20]}"')


def _response(request: Request, file: _File) -> Response:
    # Asked again each time, so that a new version of the program is seen at once.
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.type, headers=headers)
