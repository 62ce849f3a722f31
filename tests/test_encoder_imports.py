"""What is loaded when: a short query pays for numpy and a tokenizer, not for torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("faiss", "sentence_transformers", "torch", "transformers")

SCRIPT = f"""
import sys

def loaded():
    return sorted(name for name in {HEAVY!r} if name in sys.modules)

import ragindex
print("import ragindex", loaded())
import ragindex.encoder
from ragindex import Encoder
print("import ragindex.encoder", loaded())
for name in ("bundled", sys.argv[1]):
    encoder = Encoder.load(name)
    encoder.fingerprint
    encoder.encode_queries(["how do I rotate the key?"], instruction="find a passage")
    encoder.encode_documents(["a short text"], titles=["a title"])
    print("short texts with", name, loaded())
encoder.encode_documents(["a longer text " * 40] * 3)
print("long texts", loaded())
"""


def test_torch_waits_for_long_texts(tiny_encoder_dir: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tiny_encoder_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *early, last = done.stdout.splitlines()
    assert len(early) == 4
    assert [line for line in early if not line.endswith(" []")] == []
    assert last == "long texts ['torch', 'transformers']"
