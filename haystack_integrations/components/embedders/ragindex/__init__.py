"""Haystack's embedders over a ragindex encoder. Needs `pip install "ragindex[haystack]"`."""

from ragindex.errors import MissingDependencyError

try:
    from haystack_integrations.components.embedders.ragindex.embedders import (
        RagIndexDocumentEmbedder,
        RagIndexTextEmbedder,
    )
except ModuleNotFoundError as error:
    if error.name != "haystack":
        raise
    raise MissingDependencyError('Haystack is not installed; run `pip install "ragindex[haystack]"`.') from error

__all__ = ["RagIndexDocumentEmbedder", "RagIndexTextEmbedder"]
