"""Haystack's retriever over a ragindex store. Needs `pip install "ragindex[haystack]"`."""

from ragindex.errors import MissingDependencyError

try:
    from haystack_integrations.components.retrievers.ragindex.retriever import RagIndexRetriever
except ModuleNotFoundError as error:
    if error.name != "haystack":
        raise
    raise MissingDependencyError('Haystack is not installed; run `pip install "ragindex[haystack]"`.') from error

__all__ = ["RagIndexRetriever"]
