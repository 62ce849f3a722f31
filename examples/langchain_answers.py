"""LangChain: a folder of documents, a retriever over it, and a chain that answers with citations. All of it local.

    pip install "ragindex[cpu,langchain]"
    python examples/langchain_answers.py "How often do we rotate the signing key?"

The chat model here only quotes the first passage that it is shown; put yours in its place.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from ragindex import Index
from ragindex.integrations.langchain import RagIndexRetriever

DOCUMENTS = Path(__file__).parent / "documents"
PROMPT = ChatPromptTemplate.from_template(
    "Answer from these passages and cite them.\n\n{passages}\n\nQuestion: {question}"
)


class QuotingModel(SimpleChatModel):
    """Stands for a local chat model."""

    @property
    def _llm_type(self) -> str:
        return "quoting"

    def _call(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        return str(messages[-1].content).split("\n\n---\n")[1]


def shown(documents: list[Document]) -> str:
    """The passages as the model is shown them, each with where it stands."""
    places = (f"{one.metadata['path']}:{one.metadata['line_start']}-{one.metadata['line_end']}" for one in documents)
    passages = "".join(f"\n\n---\n{one.page_content}\n[{place}]" for one, place in zip(documents, places, strict=True))
    return passages + "\n\n---\n"


def main(question: str, folder: Path = DOCUMENTS) -> str:
    """Index the folder and answer the question."""
    with tempfile.TemporaryDirectory() as home, Index.open(Path(home) / "store") as index:
        index.add(folder)
        retriever = RagIndexRetriever(store=index, k=2)
        chain = (
            {"passages": retriever | shown, "question": RunnablePassthrough()}
            | PROMPT
            | QuotingModel()
            | StrOutputParser()
        )
        return chain.invoke(question)


if __name__ == "__main__":
    print(main(" ".join(sys.argv[1:]) or "How often do we rotate the signing key?"))
