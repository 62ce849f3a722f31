"""LlamaIndex: a folder of documents, a retriever over it, and an engine that answers with citations. All of it local.

    pip install "ragindex[cpu,llama-index]"
    python examples/llama_index_answers.py "How often do we rotate the signing key?"

The model here only quotes the first passage that it is shown; put yours in its place.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode

from ragindex import Index
from ragindex.integrations.llama_index import RagIndexRetriever

DOCUMENTS = Path(__file__).parent / "documents"


class QuotingModel(CustomLLM):
    """Stands for a local model."""

    @property
    def metadata(self) -> LLMMetadata:
        """Its limits."""
        return LLMMetadata(context_window=4096, num_output=512)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The passages of the prompt, which stand between two lines of dashes."""
        return CompletionResponse(text=prompt.split("---------------------")[1].strip())

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The same in one piece."""
        yield self.complete(prompt)


def main(question: str, folder: Path = DOCUMENTS) -> str:
    """Index the folder and answer the question."""
    with tempfile.TemporaryDirectory() as home, Index.open(Path(home) / "store") as index:
        index.add(folder)
        engine = RetrieverQueryEngine.from_args(RagIndexRetriever(index, similarity_top_k=1), llm=QuotingModel())
        answer = engine.query(question)
        node = answer.source_nodes[0].node
        assert isinstance(node, TextNode)
        return f"{answer}\n[{node.metadata['path']}, characters {node.start_char_idx}-{node.end_char_idx}]"


if __name__ == "__main__":
    print(main(" ".join(sys.argv[1:]) or "How often do we rotate the signing key?"))
