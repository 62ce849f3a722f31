"""Haystack's document store over a ragindex store. Needs `pip install "ragindex[haystack]"`."""

from ragindex.errors import MissingDependencyError

try:
    from haystack_integrations.document_stores.ragindex.document_store import RagIndexDocumentStore
except ModuleNotFoundError as error:
    if error.name != "haystack":
        raise
    raise MissingDependencyError('Haystack is not installed; run `pip install "ragindex[haystack]"`.') from error

__all__ = ["RagIndexDocumentStore"]
