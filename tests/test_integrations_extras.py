"""Without a framework, its adapter says which extra to install, and nothing else suffers."""

from __future__ import annotations

import subprocess
import sys

import pytest

ADAPTERS = (
    ("langchain_core", "ragindex.integrations.langchain", "RagIndexVectorStore", "langchain"),
    ("langchain_core", "ragindex.integrations.langchain", "RagIndexEmbeddings", "langchain"),
    ("llama_index", "ragindex.integrations.llama_index", "RagIndexRetriever", "llama-index"),
    ("haystack", "haystack_integrations.document_stores.ragindex", "RagIndexDocumentStore", "haystack"),
    ("haystack", "haystack_integrations.components.embedders.ragindex", "RagIndexTextEmbedder", "haystack"),
    ("haystack", "haystack_integrations.components.retrievers.ragindex", "RagIndexRetriever", "haystack"),
)
SCRIPT = """
import sys
sys.modules[{framework!r}] = None
import ragindex, ragindex.integrations.langchain, ragindex.integrations.llama_index
from ragindex.errors import MissingDependencyError
try:
    from {module} import {name}
except MissingDependencyError as error:
    print(error)
"""


@pytest.mark.parametrize(("framework", "module", "name", "extra"), ADAPTERS)
def test_the_error_names_the_extra(framework: str, module: str, name: str, extra: str) -> None:
    script = SCRIPT.format(framework=framework, module=module, name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert done.stderr == ""
    assert f'pip install "ragindex[{extra}]"' in done.stdout
    assert done.stdout.count("\n") == 1


def test_the_names_are_those_that_are_promised() -> None:
    import ragindex.integrations.langchain as langchain
    import ragindex.integrations.llama_index as llama_index

    for module in (langchain, llama_index):
        assert module.__all__ == sorted(module.__all__)
        assert [getattr(module, name).__name__ for name in module.__all__] == module.__all__
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = module.nothing
