"""uvicorn's server, ended by a signal in good order. Needs uvicorn, which both servers' extras bring."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

__all__ = ["GracefulServer", "configured"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulServer(uvicorn.Server):
    """A signal ends it and is not raised once more afterwards: it has been obeyed. ready: called once it answers.

    Signals are the main thread's; whoever runs it in another one ends it by `should_exit`.
    """

    def __init__(self, config: uvicorn.Config, *, ready: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets=sockets)
        if self.started and self._ready is not None:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def configured(app: object, *, connections: int, patience: int) -> uvicorn.Config:
    """Uvicorn's settings for an ASGI application that logs nothing and says nothing of itself.

    connections: open at a time, further ones are refused; patience: seconds for running requests at the end.
    """
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=patience,
    )
