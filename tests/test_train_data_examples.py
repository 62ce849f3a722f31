"""Examples: what is read from JSONL files and BEIR folders, what is written, and what is said of bad files."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ragindex.errors import TrainingError, UsageError
from ragindex.train.data import Example, read_examples, write_examples


def written(file: Path, *rows: Mapping[str, object] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    return file


def beir(folder: Path, *, train: Sequence[str] = ("q1\td1\t1", "q1\td2\t2", "q2\td1\t0", "q2\td3\t1")) -> Path:
    written(
        folder / "corpus.jsonl",
        {"_id": "d1", "title": "Tides", "text": "The moon pulls."},
        {"_id": "d2", "title": "", "text": "Water rises twice a day."},
        {"_id": "d3", "title": "Empty but for this title", "text": ""},
    )
    written(folder / "queries.jsonl", {"_id": "q1", "text": "why tides?"}, {"_id": "q2", "text": "what is empty?"})
    written(folder / "qrels" / "train.tsv", "query-id\tcorpus-id\tscore", *train)
    written(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", "q2\td3\t1")
    return folder


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_every_spelling_of_the_keys_is_read(tmp_path: Path, name: str) -> None:
    file = written(
        tmp_path / name,
        {"query": "a", "positive": "b"},
        {"anchor": "a", "pos": ["b", "c"], "neg": "n", "title": "T", "instruction": "find it", "source": "mine"},
        {"question": "a", "answer": "b", "negatives": ["n1", "n2"], "scores": [0.9, 1, -2.5]},
        {"query": "a", "positives": ["b"], "negative": [], "unknown": {"x": 1}, "title": None},
        "",
        {"title": "Heading", "text": "Section text"},
        {"title": "", "text": "no title, no example"},
    )
    assert list(read_examples(file)) == [
        Example("a", "b", source="pairs"),
        Example("a", "b", ("n",), title="T", instruction="find it", source="mine"),
        Example("a", "c", ("n",), title="T", instruction="find it", source="mine"),
        Example("a", "b", ("n1", "n2"), source="pairs", scores=(0.9, 1.0, -2.5)),
        Example("a", "b", source="pairs"),
        Example("Heading", "Section text", source="pairs"),
    ]


def test_a_beir_folder_gives_an_example_for_each_relevant_document(tmp_path: Path) -> None:
    folder = beir(tmp_path / "sea")
    assert list(read_examples(folder)) == [
        Example("why tides?", "The moon pulls.", title="Tides", source="sea"),
        Example("why tides?", "Water rises twice a day.", source="sea"),
        Example("what is empty?", "Empty but for this title", source="sea"),
    ]
    assert [example.query for example in read_examples(folder, split="test")] == ["what is empty?"]
    with pytest.raises(UsageError, match=r"dev\.tsv does not exist; there is test, train"):
        list(read_examples(folder, split="dev"))


def test_a_folder_is_read_file_by_file_in_the_order_of_names(tmp_path: Path) -> None:
    written(tmp_path / "b.jsonl", {"query": "1", "positive": "p"})
    written(tmp_path / "a.jsonl.gz", {"query": "2", "positive": "p"})
    beir(tmp_path / "c")
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / "folder").mkdir()
    assert [example.source for example in read_examples(tmp_path)] == ["a", "b", "c", "c", "c"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "is not JSON"),
        ('["a", "b"]', "is not a JSON object"),
        ("{}", "keys of nothing"),
        ('{"query": "a"}', "has the keys 'query'; an example has query .or anchor, question. and positive"),
        ('{"query": null, "positive": "b"}', "has the keys 'query', 'positive'; an example has"),
        ('{"text": "a"}', "has the keys 'text'"),
        ('{"query": 5, "positive": "b"}', '"query" that is not a string'),
        ('{"query": " ", "positive": "b"}', 'empty "query"'),
        ('{"query": "a", "positive": ""}', 'empty "positive"'),
        ('{"query": "a", "positive": {"x": 1}}', 'a "positive" that is neither a string nor a list'),
        ('{"query": "a", "positive": ["b", 3]}', '"positive" that is not a string'),
        ('{"query": "a", "positive": "b", "source": 7}', '"source" that is not a string'),
        ('{"query": "a", "positive": "b", "scores": [1, 2]}', '2 "scores"; one for the positive'),
        ('{"query": "a", "positive": "b", "scores": [NaN]}', "finite"),
        ('{"query": "a", "positive": "b", "scores": [true]}', "finite"),
        ('{"query": "a", "positive": "b", "scores": "high"}', "finite"),
        ('{"query": "a", "positive": ["b", "c"], "scores": [1]}', "several positives"),
        ('{"title": "a", "text": ["b"]}', '"text" that is not a string'),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = written(tmp_path / "bad.jsonl", {"query": "fine", "positive": "fine"}, "", line)
    with pytest.raises(TrainingError, match=rf"bad\.jsonl:3 .*{message}"):
        list(read_examples(file))


def test_what_is_not_there_or_empty_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nowhere does not exist; give a \.jsonl file"):
        read_examples(tmp_path / "nowhere")
    for path in (
        tmp_path,
        written(tmp_path / "empty.jsonl"),
        written(tmp_path / "u.jsonl", {"title": "", "text": "x"}),
    ):
        with pytest.raises(TrainingError, match="holds no examples; an example has query"):
            list(read_examples(path))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"query": "a", "positive": "b"}\n' * 900)[:60])
    with pytest.raises(TrainingError, match=r"cut\.jsonl\.gz cannot be read after line \d+"):
        list(read_examples(tmp_path / "cut.jsonl.gz"))
    (tmp_path / "bytes.jsonl").write_bytes(b'{"query": "\xff", "positive": "b"}\n')
    with pytest.raises(TrainingError, match=r"bytes\.jsonl:1 is not JSON"):
        list(read_examples(tmp_path / "bytes.jsonl"))


def test_files_of_other_systems_are_read(tmp_path: Path) -> None:
    file = tmp_path / "windows.jsonl"
    file.write_bytes('\ufeff{"query": "a", "positive": "b\\u2028c\\ud800"}\r\n'.encode())
    assert list(read_examples(file)) == [Example("a", "b\u2028c\ufffd", source="windows")]


@pytest.mark.parametrize("name", ["out.jsonl", "deep/out.jsonl.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    examples = [
        Example("é", "b\n“c”", ("n1", "n2"), title="T", instruction="", source="s", scores=(1.0, 0.5, 0.25)),
        Example("a", "b", source="other"),
    ]
    file = tmp_path / name
    assert write_examples(file, examples) == 2
    first = file.read_bytes()
    # An empty instruction means none at all and is not the encoder's default.
    assert list(read_examples(file)) == examples
    write_examples(file, iter(examples))
    assert file.read_bytes() == first


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    write_examples(file, [Example("a", "b", source="out")])

    def broken():
        yield Example("c", "d")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_examples(file, broken())
    assert list(read_examples(file)) == [Example("a", "b", source="out")]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_scores_must_fit_the_negatives() -> None:
    with pytest.raises(TrainingError, match="2 scores; it needs one for its positive and one for each of its 2"):
        Example("a", "b", ("n1", "n2"), scores=(1.0, 2.0))


def test_the_room_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, ragindex.train.data; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
