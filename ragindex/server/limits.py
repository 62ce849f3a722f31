"""How much one request may hold, and how much the server takes on at once."""

from __future__ import annotations

from dataclasses import dataclass

from ragindex.errors import UsageError

__all__ = [
    "MAX_AROUND",
    "MAX_DIMENSIONS",
    "MAX_HITS",
    "MAX_INPUTS",
    "MAX_INPUT_CHARACTERS",
    "MAX_LISTED",
    "MAX_NAME",
    "MAX_POSITION",
    "MAX_PROMPT_TOKENS",
    "MAX_QUERY",
    "Limits",
]

# Of one request. They stand in the OpenAPI description, so they are the same for every server.
MAX_QUERY = 8_192  # characters of a query, an instruction or a filter
MAX_HITS = 200
MAX_PROMPT_TOKENS = 100_000  # of a context block
MAX_INPUTS = 2_048  # texts of an embeddings request, as OpenAI has it
MAX_INPUT_CHARACTERS = 262_144  # of one text to embed
MAX_DIMENSIONS = 65_536
MAX_NAME = 4_096  # characters of a path, a collection or a model name
MAX_AROUND = 50_000  # characters of text on either side of a passage
MAX_POSITION = 2**31 - 1  # characters; no document is longer
MAX_LISTED = 1_000  # rows of a list


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes on.

    body_bytes: size of a request's body; body_seconds: how long it may take to arrive; seconds: how long an answer may
    take, waiting included; running: requests worked on at once; waiting: requests that may wait for that, beyond which
    new ones are refused (503); batch: texts encoded as one batch; retry_seconds: what a refused client is told to wait.
    """

    body_bytes: int = 16 << 20
    body_seconds: float = 30.0
    seconds: float = 120.0
    running: int = 4
    waiting: int = 128
    batch: int = 64
    retry_seconds: int = 1

    def __post_init__(self) -> None:
        for name in ("body_bytes", "body_seconds", "seconds", "running", "batch", "retry_seconds"):
            if getattr(self, name) <= 0:
                raise UsageError(f"The server's limit {name} is {getattr(self, name)}; it must be above 0.")
        if self.waiting < 0:
            raise UsageError(f"The server's limit waiting is {self.waiting}; it must not be negative.")

    @property
    def admitted(self) -> int:
        """Requests that run or wait."""
        return self.running + self.waiting
