"""The commands on a real store: output, JSON, exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ragindex.index
from ragindex.cli import main
from ragindex.types import Verification

TEXTS = {
    "keys.md": "# Keys\n\n## Rotation\n\nRotate the signing key every ninety days.\n",
    "kettle.txt": "The kettle boils water at one hundred degrees.\n",
    "deep/leave.md": "# Leave\n\nEmployees may carry over five days of leave.\n",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    """A folder with documents and their store; copy it before changing it."""
    folder = tmp_path_factory.mktemp("cli")
    for name, text in TEXTS.items():
        file = folder / "docs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        os.utime(file, (1e9, 1e9))  # a file changed moments before it was indexed would be read once more
    arguments = [
        "index",
        str(folder / "docs"),
        "--store",
        str(folder / ".ragindex"),
        "--encoder",
        str(tiny_encoder_dir),
    ]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    return folder


@pytest.fixture
def here(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `built` as the current folder, untouched by the environment."""
    shutil.copytree(built, tmp_path / "here")
    for name in [name for name in os.environ if name.startswith("RAGINDEX_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin)


def run_json(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_index_makes_a_store_here_and_says_what_it_did(
    tmp_path: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("The kettle boils water.")
    result = run("index", ".", "--encoder", str(tiny_encoder_dir))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Documents: 1 added.\nChunks: 1, of them 1 embedded, 0 reused.\nTime: ")
    assert (tmp_path / ".ragindex" / "catalog.sqlite").is_file()
    assert run("index", ".").stdout == "Documents: 1 unchanged.\n"


def test_index_json_and_exit_code_3_for_a_file_that_cannot_be_read(here: Path) -> None:
    (here / "docs" / "broken.docx").write_bytes(b"no zip at all")
    result = run("index", "docs", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 3
    assert report["unchanged"] == 3
    assert [failure["path"] for failure in report["failed"]] == ["docs/broken.docx"]
    result = run("index", "docs")
    assert result.exit_code == 3
    assert "1 file could not be indexed:\n  docs/broken.docx: " in result.stdout
    assert run("failures").stdout.startswith("docs/broken.docx: ")
    assert [failure["path"] for failure in run_json("failures")] == ["docs/broken.docx"]


def test_a_dry_run_changes_nothing(here: Path) -> None:
    (here / "docs" / "new.txt").write_text("new")
    assert run("index", "docs", "--dry-run").stdout.startswith("Documents: 1 added, 3 unchanged. Nothing was written")
    assert len(run_json("list")) == 3
    result = run("index", "docs", "--dry-run", "--store", "fresh/store")
    assert result.stdout.startswith("Documents: 4 added. Nothing was written")
    assert not (here / "fresh").exists()


@pytest.mark.parametrize("arguments", [["nowhere"], ["docs", "--encoder", "nowhere"], ["docs", "--chunk-tokens", "3"]])
def test_a_mistake_leaves_no_empty_store_behind(here: Path, arguments: list[str]) -> None:
    result = run("index", *arguments, "--store", "fresh")
    assert result.exit_code == 2
    assert result.stderr.startswith("ragindex: ")
    assert not (here / "fresh").exists()


def test_include_and_exclude(here: Path) -> None:
    shutil.rmtree(here / ".ragindex")
    report = run_json("index", "docs", "--dry-run", "--include", "*.md", "--exclude", "deep/")
    assert report["added"] == 1


def test_a_run_that_would_wipe_the_index_stops(here: Path) -> None:
    (here / "docs" / "keys.md").unlink()
    (here / "docs" / "kettle.txt").unlink()
    result = run("index", "docs")
    assert result.exit_code == 2
    assert "--allow-delete" in result.stderr
    assert run_json("index", "docs", "--allow-delete")["deleted"] == 2


def test_interrupting_says_that_nothing_is_lost(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ragindex.index.Index, "add", interrupt)
    result = run("index", "docs")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted; everything committed so far is kept, run the same command to go on.\n"
    monkeypatch.setattr(ragindex.index.Index, "search", interrupt)
    result = run("query", "kettle")
    assert result.exit_code == 130
    assert result.stderr.strip() == "Interrupted."


def test_watch_reports_each_run_and_ends_with_an_interrupt(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changes(*_: object, **__: object) -> Any:
        (here / "docs" / "new.txt").write_text("a new file")
        yield set()
        raise KeyboardInterrupt

    monkeypatch.setattr("watchfiles.watch", changes)
    result = run("index", "docs", "--watch")
    assert result.exit_code == 0
    assert result.stdout.startswith("Documents: 3 unchanged.\nDocuments: 1 added, 3 unchanged.\n")
    assert result.stderr == "Watching for changes; Ctrl-C ends.\nStopped watching.\n"


def test_reembed_switches_the_encoder(here: Path, tiny_encoder_dir: Path) -> None:
    copy = here / "other"
    shutil.copytree(tiny_encoder_dir, copy)
    config = json.loads((copy / "ragindex.json").read_text())
    config["pooling"] = "last" if config["pooling"] != "last" else "mean"
    (copy / "ragindex.json").write_text(json.dumps(config))
    refused = run("index", "docs", "--encoder", str(copy))
    assert refused.exit_code == 2
    (command,) = re.findall("`ragindex (.*?)`", refused.stderr)
    assert "PATH" not in command
    result = run(*shlex.split(command))
    assert result.exit_code == 0
    assert "3 chunks were embedded anew" in result.stderr
    assert run_json("status")["encoder"]["name"] == str(copy)


def test_query_for_people(here: Path) -> None:
    result = run("query", "kettle", "boils", "-k", "1")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith(" 1  docs/kettle.txt:1  ")
    assert lines[-1] == "    The kettle boils water at one hundred degrees."
    assert "\x1b" not in result.stdout


def test_query_json_is_the_contract(here: Path) -> None:
    value = run_json("query", "rotate the signing key", "-k", "2")
    assert list(value) == ["query", "mode", "instruction", "hits"]
    assert (value["query"], value["mode"]) == ("rotate the signing key", "hybrid")
    assert [hit["rank"] for hit in value["hits"]] == [1, 2]
    hit = value["hits"][0]
    assert hit["path"] == "docs/keys.md"
    assert set(hit["scores"]) == {"dense", "lexical", "fused"}
    assert TEXTS["keys.md"][hit["char_start"] : hit["char_end"]] == hit["text"]
    assert "explanation" not in hit
    lexical = run_json("query", "kettle", "--mode", "lexical")
    assert lexical["instruction"] is None
    assert lexical["hits"][0]["scores"]["dense"] is None
    assert run_json("query", "kettle", "--instruction", "Find tea.")["instruction"] == "Find tea."


def test_query_explain_context_filter(here: Path) -> None:
    assert set(run_json("query", "kettle", "--explain", "-k", "1")["hits"][0]["explanation"]) >= {"dense_rank", "terms"}
    assert "why: dense #" in run("query", "kettle", "--explain").stdout
    block = run("query", "kettle", "--context", "50", "-k", "1").stdout
    assert block.startswith("[1] docs/kettle.txt:1")
    assert run_json("query", "kettle", "--context", "50", "-k", "1")["context"] == block.removesuffix("\n")
    found = run_json("query", "kettle", "--filter", "path like 'docs/deep/%'")["hits"]
    assert [hit["path"] for hit in found] == ["docs/deep/leave.md"]


def test_query_without_a_hit_exits_1(here: Path) -> None:
    result = run("query", "kettle", "--filter", "path = 'nowhere'")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "No hit.\n")
    result = run("query", "kettle", "--filter", "path = 'nowhere'", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["hits"] == []


def test_query_from_standard_input_and_from_bytes_that_are_no_text(here: Path) -> None:
    assert "docs/kettle.txt" in run("query", "-", "-k", "1", "--mode", "lexical", stdin="kettle\n").stdout
    assert run("query", "-", stdin="  \n").exit_code == 2
    assert run("query", "-", stdin=b"kettle \xff\xfe").exit_code == 0
    assert run_json("query", "kettle \udcff")["query"] == "kettle \ufffd"


def test_why_not(here: Path) -> None:
    value = run_json("why-not", "kettle", "--expect", "docs/nothing.txt")
    assert (value["query"], value["expect"], value["stage"]) == ("kettle", "docs/nothing.txt", "missing")
    result = run("why-not", "kettle", "-k", "1", "--expect", "docs/deep/leave.md")
    assert result.exit_code == 0
    assert result.stdout.startswith("docs/deep/leave.md: ")
    assert "\nFix: " in result.stdout


def test_status_list_remove(here: Path) -> None:
    status = run_json("status")
    assert (status["documents"], status["chunks"]) == (3, 3)
    assert re.search(r"^documents +3$", run("status").stdout, re.MULTILINE)
    assert [row["path"] for row in run_json("list")] == ["docs/deep/leave.md", "docs/kettle.txt", "docs/keys.md"]
    assert run("list").stdout.splitlines()[0].endswith("1  docs/deep/leave.md")
    assert run("failures").stderr == "Every file could be indexed.\n"
    assert run_json("failures") == []
    assert run("remove", "docs/deep").stdout == "1 document removed from the index.\n"
    assert run_json("remove", "docs/keys.md", "docs/kettle.txt") == {"removed": 2}
    assert run("list").stderr == "The index holds no documents.\n"
    assert run("remove", "docs/keys.md").exit_code == 2


def test_verify_repair_compact(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_json("verify") == {"ok": True, "documents": 3, "chunks": 3, "vectors": 3, "problems": []}
    assert run("verify").stdout == "3 documents, 3 chunks, 3 vectors: no problem found.\n"
    assert run_json("repair")["ok"]
    assert set(run_json("compact")) == {"vectors_removed", "forgotten", "bytes_before", "bytes_after", "dense"}
    assert "unused vectors removed" in run("compact").stdout
    found = Verification(False, 3, 3, 2, ("A vector is missing.",))
    monkeypatch.setattr(ragindex.index.Index, "verify", lambda _: found)
    result = run("verify")
    assert result.exit_code == 2
    assert result.stdout == "3 documents, 3 chunks, 2 vectors; problems: 1\n  A vector is missing.\n"
    assert run("verify", "--json").exit_code == 2
    assert run("repair").exit_code == 2


def test_db(here: Path) -> None:
    versions = run_json("db", "current")
    assert versions["current"] == versions["head"]
    assert run("db", "current").stdout == f"Schema {versions['head']}: up to date.\n"
    assert run_json("db", "upgrade") == {"current": versions["head"], "backup": None}
    assert run("db", "backup", "copy.sqlite").exit_code == 0
    assert (here / "copy.sqlite").read_bytes()[:6] == b"SQLite"
    again = run("db", "backup", "copy.sqlite")
    assert again.exit_code == 2
    assert "exists" in again.stderr
    assert Path(run_json("db", "backup", "docs")["backup"]).parent == Path("docs")
    assert Path(run_json("db", "backup")["backup"]).parent == here / ".ragindex"


def test_encoder(here: Path, tiny_encoder_dir: Path) -> None:
    info = run_json("encoder", "info", str(tiny_encoder_dir))
    assert info["fingerprint"] == run_json("status")["encoder"]["fingerprint"]
    assert f"fingerprint   {info['fingerprint']}\n" in run("encoder", "info", str(tiny_encoder_dir)).stdout
    assert run_json("encoder", "export", str(tiny_encoder_dir), "mine")["fingerprint"] == info["fingerprint"]
    assert run("encoder", "export", str(tiny_encoder_dir), "mine").exit_code == 2
    assert "mine" in [row["name"] for row in run_json("encoder", "list")]
    assert run("encoder", "list").stdout.splitlines()[-1].endswith("  mine")
    (here / "mine" / "model.safetensors").unlink()
    broken = run("encoder", "list", "--json")
    assert "mine" not in [row["name"] for row in json.loads(broken.stdout)]
    assert "incomplete" in broken.stderr
    missing = run("encoder", "info", "nowhere")
    assert missing.exit_code == 2
    assert missing.stderr.startswith("ragindex: There is no encoder 'nowhere'")


def test_encoder_probe(here: Path, tiny_encoder_dir: Path) -> None:
    report = run_json("encoder", "probe", str(tiny_encoder_dir), "--device", "cpu")
    assert report["ok"]
    assert report["self_test"] == "passed"
    assert max(report["batch_deviation"], report["padding_deviation"], report["numpy_deviation"]) <= report["limit"]
    refused = run("encoder", "probe", str(tiny_encoder_dir), "--device", "abacus")
    assert refused.exit_code == 2
    assert "'abacus' cannot be used" in refused.stderr


def test_encoder_probe_fails_when_vectors_depend_on_their_batch(
    here: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragindex.encoder.torch_forward import TorchForward

    whole = TorchForward.__call__
    monkeypatch.setattr(
        TorchForward, "__call__", lambda self, batch: whole(self, batch)[:: -1 if len(batch) == 5 else 1]
    )
    result = run("encoder", "probe", str(tiny_encoder_dir), "--device", "cpu", "--json")
    assert result.exit_code == 2
    assert not json.loads(result.stdout)["ok"]


def test_eval(here: Path, tiny_encoder_dir: Path) -> None:
    (here / "set" / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(TEXTS.values())]
    (here / "set" / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "set" / "queries.jsonl").write_text('{"_id": "q", "text": "kettle water"}\n')
    (here / "set" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    value = run_json("eval", "set", "--encoder", str(tiny_encoder_dir), "--mode", "lexical")
    assert (value["documents"], value["queries"], list(value["modes"])) == (3, 1, ["lexical"])
    assert value["modes"]["lexical"]["ndcg@10"] == 1.0
    table = run("eval", "set", "--encoder", str(tiny_encoder_dir)).stdout.splitlines()
    assert [line.split()[0] for line in table[3:]] == ["dense", "lexical", "hybrid"]
    assert run("eval", "docs").exit_code == 2
    assert run("eval", "nowhere").exit_code == 2


def test_the_store_may_be_named_before_or_after_the_command_or_by_the_environment(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    store = str(here / ".ragindex")
    assert run("--store", store, "list").exit_code == 0
    assert run("list", "--store", store).exit_code == 0
    assert run("--store", "nowhere", "list", "--store", store).exit_code == 0
    assert run("list", "--store", "nowhere").exit_code == 2
    monkeypatch.setenv("RAGINDEX_STORE", store)
    assert run("list").exit_code == 0
    assert run("list", "--store", "nowhere").exit_code == 2
    assert run("db", "--store", "nowhere", "current").exit_code == 2


def test_a_store_is_found_from_below(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "docs" / "deep")
    assert len(run_json("list")) == 3


def test_an_unknown_collection_is_an_error(here: Path) -> None:
    result = run("query", "kettle", "--collection", "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ragindex.RagIndexError("Sorry\x1b[2J,\nno."), "ragindex: Sorry␛[2J, no.\n"),
        (
            OSError(28, "No space left"),
            "ragindex: OSError: [Errno 28] No space left; run again with --debug for the traceback\n",
        ),
        (KeyError(), "ragindex: KeyError; run again with --debug for the traceback\n"),
    ],
)
def test_errors_are_one_line_unless_debugging(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(ragindex.index.Index, "status", fail)
    result = run("status", "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", line)
    for arguments in (["--debug", "status"], ["status", "--debug"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("Traceback")
        assert "run again" not in result.stderr


def test_settings_come_from_toml_environment_and_flags(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "ragindex.toml").write_text("chunk_tokens = 'many'\n")
    result = run("status")
    assert result.exit_code == 2
    assert "chunk_tokens must be a number" in result.stderr
    (here / "ragindex.toml").write_text("chunk_tokens = 64\noverlap = 8\n")
    assert run_json("status")["chunk_tokens"] == 64
    monkeypatch.setenv("RAGINDEX_CHUNK_TOKENS", "128")
    assert run_json("status")["chunk_tokens"] == 128
    run_json("index", "docs", "--chunk-tokens", "100")
    monkeypatch.delenv("RAGINDEX_CHUNK_TOKENS")
    (here / "ragindex.toml").unlink()
    assert run_json("status")["chunk_tokens"] == 100


def test_the_module_runs_and_a_closed_pipe_is_silent(here: Path) -> None:
    command = [sys.executable, "-m", "ragindex", "list"]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    assert (done.returncode, done.stderr) == (0, "")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        closed = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=_environment())
    finally:
        os.close(writer)
    assert (closed.returncode, closed.stderr) == (141, "")


@pytest.mark.parametrize("command", ["status", "list", "query --mode lexical kettle", "query kettle"])
def test_small_commands_load_no_model_library(here: Path, command: str) -> None:
    code = (
        "import sys, ragindex.__main__ as m\n"
        f"sys.argv = ['ragindex', *{command!r}.split()]\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join(name for name in ('torch', 'transformers', 'alembic', 'tqdm') if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert (done.returncode, done.stderr) == (0, "")


def _environment() -> dict[str, str]:
    # Unbuffered output would hide what a closed pipe does to a buffer when Python exits.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return kept | {"PYTHONPATH": str(Path(ragindex.__file__).parents[1])}
