"""The app factory: routes, guards and shared state put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

import ragindex
from ragindex.errors import RagIndexError
from ragindex.server import embeddings, failures, pages, searching
from ragindex.server.bodies import BodyLimit
from ragindex.server.departures import StopWhenGone
from ragindex.server.desk import Desk
from ragindex.server.limits import Limits
from ragindex.server.security import Access, Guard
from ragindex.server.shelves import Library

__all__ = ["create_app"]

_DESCRIPTION = "Search over an indexed folder, with exact citations, and its encoder under OpenAI's interface."


def create_app(library: Library, *, access: Access | None = None, limits: Limits | None = None) -> FastAPI:
    """The ASGI application over an open library, which it closes when it is shut down.

    access: who may ask; by default only this machine. Besides the API it serves the search page at `/`, and its
    OpenAPI description at `/openapi.json`.
    """
    limits = limits or Limits()
    desk = Desk(library, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(_warm(desk))
        try:
            yield
        finally:
            warming.cancel()
            await desk.close()

    app = FastAPI(
        title="ragindex",
        version=ragindex.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its pages fetch scripts from elsewhere
        redoc_url=None,
        # FastAPI would report to OpenTelemetry as soon as the process or its environment configures that.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.desk = desk
    failures.install(app)
    app.include_router(searching.routes)
    app.include_router(embeddings.routes)
    app.include_router(pages.routes())
    app.add_middleware(StopWhenGone)  # the one added last is asked first
    app.add_middleware(failures.LastResort)
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(Guard, access=access or Access())
    return app


async def _warm(desk: Desk) -> None:
    """Load encoder and indexes before the first user has to wait for them; whatever fails will say so then."""
    with suppress(RagIndexError):
        await desk.call(lambda: desk.shelves.index().search("ragindex", k=1))
