"""Fetches a model from the Hugging Face hub, for a hub id alone; the one module that uses the network."""

from __future__ import annotations

import re
from pathlib import Path

from ragindex.errors import EncoderError

__all__ = ["fetch", "is_hub_id"]

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# No pickled weights and no code; `consolidated.safetensors` and the like are second copies.
WANTED = (
    "*.json",
    "*.txt",
    "*.model",
    "model*.safetensors",
    "adapter_model.safetensors",
    "*/*.json",
    "*/model.safetensors",
)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `organisation/model`."""
    return _ID.fullmatch(name) is not None


def fetch(name: str) -> Path:
    """The directory of a hub model in the local cache, downloaded where it is not there yet.

    Raises EncoderError when it cannot be had: no such model, no access, no network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(WANTED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise EncoderError(
            f"There is no encoder {name!r}: it is no directory, and the Hugging Face hub does not give it ({reason})."
        ) from error
