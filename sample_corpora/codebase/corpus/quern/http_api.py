"""HTTP routes under ``/v2``. Thin: validate, call the store, shape the JSON.

Errors leave as ``{"error": {"code": "QRN-....", "message": "...", "request_id": "..."}}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from quern.auth import authenticate
from quern.errors import QuernError, UnknownQueue
from quern.models import Job, JobState
from quern.payloads import prepare_payload, redact

PAGE_LIMIT = 200


@dataclass(frozen=True)
class Response:
    status: int
    body: dict[str, object]


class Api:
    """One method for each route; the ASGI glue maps paths to them."""

    def __init__(self, store, blobs, settings, pepper: bytes) -> None:
        self._store, self._blobs, self._settings, self._pepper = store, blobs, settings, pepper

    def handle(self, method: str, path: str, headers: dict[str, str], body: dict[str, object]) -> Response:
        """Route a request and turn any ``QuernError`` into its JSON form."""
        try:
            return self._route(method, path, headers, body)
        except QuernError as exc:
            error = {"code": exc.code, "message": str(exc), "request_id": headers.get("x-request-id", "")}
            return Response(exc.status, {"error": error})

    def submit_job(self, headers: dict[str, str], queue: str, body: dict[str, object]) -> Response:
        """``POST /v2/queues/{queue}/jobs``: 201 with the id, 409 for a duplicate."""
        authenticate(self._store, headers["authorization"], self._pepper, scope="jobs:write")
        if queue not in self._settings.queues:
            raise UnknownQueue(f"no queue {queue!r}; queues are declared in the settings file")
        run_at = datetime.fromisoformat(str(body["run_at"])) if "run_at" in body else None
        job = Job(id=self._store.new_id(), queue=queue, kind=str(body["kind"]),
                  payload=prepare_payload(body.get("payload"), self._blobs),
                  priority=int(str(body.get("priority", 5))), run_at=run_at, dedupe_key=body.get("dedupe_key"))
        return Response(201, {"id": self._store.submit(job)})

    def cancel_job(self, headers: dict[str, str], job_id: str) -> Response:
        """``DELETE /v2/jobs/{id}``: a waiting job ends now, a running one is only asked to.

        202 means the request was passed to the handler through its context; whether it
        listens is up to the handler. Poll the job to find out.
        """
        authenticate(self._store, headers["authorization"], self._pepper, scope="jobs:write")
        state = self._store.cancel(job_id)
        return Response(200 if state is JobState.CANCELLED else 202, {"id": job_id, "state": state})

    def list_jobs(self, headers: dict[str, str], queue: str, *, state: str, cursor: str | None) -> Response:
        """``GET /v2/queues/{queue}/jobs``: pages by keyset, never by offset."""
        authenticate(self._store, headers["authorization"], self._pepper, scope="jobs:read")
        page = self._store.page(queue, JobState(state), after=cursor, limit=PAGE_LIMIT)
        items = [{"id": j.id, "kind": j.kind, "state": j.state, "payload": redact(j.payload)} for j in page]
        return Response(200, {"items": items, "next_cursor": page[-1].id if len(page) == PAGE_LIMIT else None})

    def _route(self, method: str, path: str, headers: dict[str, str], body: dict[str, object]) -> Response:
        parts = path.strip("/").split("/")
        if method == "POST" and parts[1:2] == ["queues"]:
            return self.submit_job(headers, parts[2], body)
        if method == "DELETE" and parts[1:2] == ["jobs"]:
            return self.cancel_job(headers, parts[2])
        return Response(404, {"error": {"code": "QRN-0000", "message": "no such route", "request_id": ""}})
