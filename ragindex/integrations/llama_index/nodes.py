"""Nodes as records, and entries of a store as nodes."""

from __future__ import annotations

from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from ragindex.types import Entry, Record

__all__ = ["as_node", "as_record"]

_CONTENT = ("_node_content", "_node_type")  # what LlamaIndex makes a node of again; nobody filters by it
_CITED = frozenset({"path", "title", "page", "line_start", "line_end"})  # what a model is told of a passage


def as_record(node: BaseNode) -> Record:
    """A node with its metadata where filters see them, and the rest of it beside."""
    metadata = node_to_metadata_dict(node, remove_text=True)
    beside = {key: metadata.pop(key) for key in _CONTENT}
    text, embedded = (node.get_content(metadata_mode=mode) for mode in (MetadataMode.NONE, MetadataMode.EMBED))
    return Record(node.node_id, text, metadata, node.embedding, embedded=embedded, beside=beside)


def as_node(entry: Entry) -> BaseNode:
    """The node that a record was made of; of a passage, a node that knows where in its document it stands."""
    if entry.span is None and _CONTENT[0] in entry.beside:
        node = metadata_dict_to_node({**entry.metadata, **entry.beside}, text=entry.text)
        node.embedding = None if entry.vector is None else list(entry.vector)
        return node
    made = TextNode(id_=entry.id, text=entry.text, metadata=dict(entry.metadata))
    untold = [key for key in entry.metadata if key not in _CITED or entry.metadata[key] in (None, "")]
    made.excluded_embed_metadata_keys = made.excluded_llm_metadata_keys = untold
    if entry.span is not None:
        made.start_char_idx, made.end_char_idx = entry.span
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=entry.metadata["path"])
    return made
