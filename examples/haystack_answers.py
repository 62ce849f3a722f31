"""Haystack: a folder of documents, a retriever over it, and a pipeline that answers with citations. All of it local.

    pip install "ragindex[cpu,haystack]"
    python examples/haystack_answers.py "How often do we rotate the signing key?"

The chat generator here only quotes the first passage that it is shown; put yours in its place.
"""

import os

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")  # Haystack reports usage unless it is told not to

import sys
import tempfile
from pathlib import Path

from haystack import Pipeline, component
from haystack.components.builders import ChatPromptBuilder
from haystack.dataclasses import ChatMessage

from haystack_integrations.components.retrievers.ragindex import RagIndexRetriever
from haystack_integrations.document_stores.ragindex import RagIndexDocumentStore
from ragindex import Index

DOCUMENTS = Path(__file__).parent / "documents"
PROMPT = """Answer from these passages and cite them.
{% for document in documents %}
---
{{ document.content }}
[{{ document.meta.path }}:{{ document.meta.line_start }}-{{ document.meta.line_end }}]
{% endfor %}
---
Question: {{ question }}"""


@component
class QuotingGenerator:
    """Stands for a local chat model."""

    @component.output_types(replies=list[ChatMessage])
    def run(self, messages: list[ChatMessage]) -> dict[str, list[ChatMessage]]:
        """The first passage of the prompt."""
        return {"replies": [ChatMessage.from_assistant((messages[-1].text or "").split("---\n")[1])]}


def main(question: str, folder: Path = DOCUMENTS) -> str:
    """Index the folder and answer the question."""
    with tempfile.TemporaryDirectory() as home, Index.open(Path(home) / "store") as index:
        index.add(folder)
        pipeline = Pipeline()
        pipeline.add_component("retriever", RagIndexRetriever(RagIndexDocumentStore(index), top_k=2))
        pipeline.add_component(
            "prompt", ChatPromptBuilder([ChatMessage.from_user(PROMPT)], required_variables=["documents", "question"])
        )
        pipeline.add_component("model", QuotingGenerator())
        pipeline.connect("retriever.documents", "prompt.documents")
        pipeline.connect("prompt.prompt", "model.messages")
        answer = pipeline.run({"retriever": {"query": question}, "prompt": {"question": question}})
        return str(answer["model"]["replies"][0].text)


if __name__ == "__main__":
    print(main(" ".join(sys.argv[1:]) or "How often do we rotate the signing key?"))
