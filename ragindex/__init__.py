"""ragindex: index a folder of documents and query it offline, with an encoder you can train on your own text.

Names are loaded when they are first used: `import ragindex` loads neither torch nor faiss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragindex.config import Limits, Settings, load_settings
    from ragindex.encoder import Encoder
    from ragindex.errors import RagIndexError
    from ragindex.index import Index
    from ragindex.types import Chunk, Document, Hit, IndexReport

__version__ = "0.1.0"
__all__ = [
    "Chunk",
    "Document",
    "Encoder",
    "Hit",
    "Index",
    "IndexReport",
    "Limits",
    "RagIndexError",
    "Settings",
    "load_settings",
]

_HOMES = {
    "Chunk": "ragindex.types",
    "Document": "ragindex.types",
    "Encoder": "ragindex.encoder",
    "Hit": "ragindex.types",
    "Index": "ragindex.index",
    "IndexReport": "ragindex.types",
    "Limits": "ragindex.config",
    "RagIndexError": "ragindex.errors",
    "Settings": "ragindex.config",
    "load_settings": "ragindex.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ragindex' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
