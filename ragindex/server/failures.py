"""Every failure as one JSON shape, OpenAI's: `{"error": {"message", "type", "param", "code"}}`, the message one clear
sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragindex.errors import RagIndexError, StoreLockedError, UsageError

__all__ = ["LastResort", "Refusal", "install", "reply"]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_ORIGINS = ("body", "query", "path", "header")  # of a parameter

_logger = logging.getLogger(__name__)


class Refusal(Exception):  # noqa: N818 - most of them are no errors of the program
    """Why a request is not answered: HTTP status, one sentence, and in OpenAI's terms which parameter and what kind."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


def reply(refusal: Refusal) -> JSONResponse:
    """The refusal as a response."""
    error = {
        "message": refusal.message,
        "type": _TYPES.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "server_error"),
        "param": refusal.param,
        "code": refusal.code,
    }
    return JSONResponse({"error": error}, status_code=refusal.status, headers=refusal.headers)


def install(app: FastAPI) -> None:
    """Have the app answer what is refused, invalid, or raised by the library in this shape."""

    @app.exception_handler(Refusal)
    async def _refused(_: Request, error: Refusal) -> JSONResponse:
        return reply(error)

    @app.exception_handler(RagIndexError)
    async def _ours(_: Request, error: RagIndexError) -> JSONResponse:
        return reply(translated(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return reply(_validation(error))

    @app.exception_handler(HTTPException)
    async def _routing(request: Request, error: HTTPException) -> JSONResponse:
        return reply(_http(request, error))


class LastResort:
    """ASGI middleware: what nobody expected goes to the log with its traceback, and the client gets one sentence."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            if begun or scope["type"] != "http":
                raise
            _logger.exception("%s %s failed", scope["method"], scope["path"])
            sentence = "Something went wrong in the server; its log says what."
            await reply(Refusal(500, sentence, code="internal_error"))(scope, receive, send)


def translated(error: RagIndexError) -> Refusal:
    """What the library says, with the status that fits: the request's fault or the server's."""
    if isinstance(error, UsageError):
        return Refusal(400, str(error))
    if isinstance(error, StoreLockedError):
        return Refusal(503, str(error), headers={"Retry-After": "5"})
    _logger.error("%s", error)
    return Refusal(500, str(error))


def _validation(error: RequestValidationError) -> Refusal:
    """The first of its problems as a sentence: which field, and what is wrong with it."""
    problem = error.errors()[0]
    origin, *place = map(str, problem["loc"])
    place = place if origin in _ORIGINS else [origin, *place]
    message = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
    if problem["type"] == "json_invalid":
        return Refusal(400, "The body is not JSON.", code="invalid_json")
    if not place:
        if problem["type"] in ("missing", "model_attributes_type", "dict_type"):
            return Refusal(
                400, "The body must be a JSON object, sent with the header `Content-Type: application/json`."
            )
        return Refusal(400, f"{message}.")
    if problem["type"] == "extra_forbidden":
        return Refusal(400, f"{place[0]!r} is not a parameter of this request.", param=place[0])
    if problem["type"] == "missing":
        return Refusal(400, f"{place[0]!r} is missing.", param=place[0])
    if problem["type"] == "value_error":
        return Refusal(400, f"{message}.", param=place[0])
    return Refusal(400, f"{place[0]!r} is wrong: {message[:1].lower()}{message[1:]}.", param=place[0])


def _http(request: Request, error: HTTPException) -> Refusal:
    headers = error.headers or {}
    if error.status_code == 404:
        return Refusal(404, f"There is nothing at {request.url.path}; /openapi.json lists what there is.")
    if error.status_code == 405:
        return Refusal(405, f"{request.url.path} does not take {request.method}.", headers=headers)
    return Refusal(error.status_code, f"{str(error.detail).rstrip('.')}.", headers=headers)
