"""What a process loads: a query or an idle run pays for nothing that it does not use."""

import os
import subprocess
import sys

import pytest
from index_kit import corpus, open_index, write

WATCHED = ("alembic", "faiss", "numpy", "numpy.ma", "pathspec", "sqlalchemy", "tantivy", "tokenizers", "torch")
SCRIPT = f"""
import sys
from ragindex.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *(name for name in {WATCHED!r} if name in sys.modules))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_encoder_dir):
    home = tmp_path_factory.mktemp("cold")
    write(home, corpus(5))
    with open_index(home, tiny_encoder_dir) as index:
        index.add(home)
    return home


def loaded(folder, *arguments):
    settings = {"RAGINDEX_CHUNK_TOKENS": "64", "RAGINDEX_OVERLAP": "8"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, check=True)
    return done.stdout.rpartition("loaded:")[2].split()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("lexical", ["numpy", "tantivy"]), ("dense", ["faiss", "numpy", "tokenizers"])],
)
def test_a_query_loads_its_own_retriever_only(folder, mode, expected):
    assert loaded(folder, "query", "key", "--mode", mode) == expected


def test_a_hybrid_query_loads_no_sqlalchemy(folder):
    assert loaded(folder, "query", "key") == ["faiss", "numpy", "tantivy", "tokenizers"]


def test_a_run_that_finds_nothing_new_opens_no_index_and_no_encoder(folder):
    assert loaded(folder, "index", ".") == ["pathspec"]
