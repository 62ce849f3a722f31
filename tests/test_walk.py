"""Which files of a folder are found: ignore rules, links, odd names, unreadable folders."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from ragindex.errors import UsageError
from ragindex.loaders import ignored_reason, walk


def make(root: Path, *names: str, **contents: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents.get(name, "text"))
    return root


def found(root: Path, **options: object) -> list[str]:
    top = root.resolve()
    return [entry.path.relative_to(top).as_posix() for entry in walk(root, **options) if entry.skipped is None]  # type: ignore[arg-type]


def skipped(root: Path) -> dict[str, str]:
    top = root.resolve()
    entries = walk(root, report_skipped=True)
    return {entry.path.relative_to(top).as_posix(): entry.skipped for entry in entries if entry.skipped is not None}


def test_entries_carry_what_identifies_a_file(tmp_path: Path) -> None:
    make(tmp_path, "a.md")
    [entry] = walk(tmp_path)
    info = (tmp_path / "a.md").stat()
    assert entry.path.is_absolute()
    assert (entry.size, entry.mtime_ns, entry.inode) == (4, info.st_mtime_ns, info.st_ino)


def test_order_is_by_name_files_before_subfolders(tmp_path: Path) -> None:
    make(tmp_path, "b/x.md", "a/y.md", "z.md", "c.md", "a/b/q.md")
    assert found(tmp_path) == ["c.md", "z.md", "a/y.md", "a/b/q.md", "b/x.md"]


def test_hidden_and_generated_names_are_left_out(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.md",
        ".hidden.md",
        ".git/x.md",
        "node_modules/m/readme.md",
        "x/__pycache__/c.py",
        "a.min.js",
        "venv/b.py",
    )
    assert found(tmp_path) == ["a.md"]


def test_names_without_a_suffix_and_unsupported_types(tmp_path: Path) -> None:
    make(tmp_path, "Makefile", "LICENSE", "README", "README.de", "Dockerfile", "photo.jpg", "noext", "version.o")
    assert found(tmp_path) == ["Dockerfile", "LICENSE", "Makefile", "README", "README.de"]
    assert skipped(tmp_path) == {
        "photo.jpg": "unsupported type",
        "noext": "unsupported type",
        "version.o": "unsupported type",
    }


def test_gitignore_negation_anchors_and_folders(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.log",
        "keep.log",
        "build/x.md",
        "src/build/y.md",
        "docs/top.md",
        "docs/sub/top.md",
        "#odd.md",
        "trail .md",
    )
    (tmp_path / ".gitignore").write_text("# comment\n\n*.log\n!keep.log\n/build/\ndocs/*.md\n\\#odd.md\n")
    assert found(tmp_path) == ["keep.log", "trail .md", "docs/sub/top.md", "src/build/y.md"]


def test_a_nested_file_overrides_the_one_above(tmp_path: Path) -> None:
    make(tmp_path, "x.log", "docs/x.log", "docs/deep/x.log", "docs/y.md")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "docs/.gitignore").write_text("!x.log\n/y.md\n")
    (tmp_path / "docs/deep/.gitignore").write_text("x.log\n")
    assert found(tmp_path) == ["docs/x.log"]


def test_a_file_in_an_ignored_folder_cannot_come_back(tmp_path: Path) -> None:
    make(tmp_path, "build/keep.md", "all/keep.md", "all/other.txt")
    (tmp_path / ".gitignore").write_text("build/\n!build/keep.md\nall/*\n!all/keep.md\n")
    assert found(tmp_path) == ["all/keep.md"]


def test_ragindexignore_beats_gitignore_and_shows_hidden_folders(tmp_path: Path) -> None:
    make(tmp_path, "a.log", "b.md", ".github/guide.md", ".git/config.md")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / ".ragindexignore").write_text("!a.log\nb.md\n!.github/\n!.git/\n")
    assert found(tmp_path) == ["a.log", ".github/guide.md"]


def test_a_root_inside_a_repository_obeys_the_files_above_it(tmp_path: Path) -> None:
    make(tmp_path, "repo/docs/a.md", "repo/docs/b.tmp.md", "repo/docs/c.md", "repo/docs/d.md", "repo/.git/HEAD")
    (tmp_path / ".gitignore").write_text("d.md\n")  # above the repository: not ours
    (tmp_path / "repo/.gitignore").write_text("*.tmp.md\n/docs/c.md\n")
    assert found(tmp_path / "repo/docs") == ["a.md", "d.md"]


def test_git_info_exclude_counts(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b.md", ".git/info/exclude")
    (tmp_path / ".git/info/exclude").write_text("b.md\n")
    assert found(tmp_path) == ["a.md"]


def test_naming_an_ignored_folder_means_its_content(tmp_path: Path) -> None:
    make(tmp_path, "build/a.md", "build/b.log", ".git/HEAD")
    (tmp_path / ".gitignore").write_text("build/\n")
    assert found(tmp_path) == []
    assert found(tmp_path / "build") == ["a.md", "b.log"]


def test_include_and_exclude_are_gitignore_lines(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b.txt", "x/c.md", "x/d.txt", "y/e.md")
    assert found(tmp_path, include=["*.md"]) == ["a.md", "x/c.md", "y/e.md"]
    assert found(tmp_path, include=["*.md"], exclude=["/x/"]) == ["a.md", "y/e.md"]
    assert found(tmp_path, include=["x/"]) == ["x/c.md", "x/d.txt"]
    (tmp_path / ".ragindexignore").write_text("!b.txt\n")
    assert "b.txt" not in found(tmp_path, exclude=["*.txt"])


def test_the_store_is_never_walked(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "index/notes.md", ".ragindex/x.md")
    assert found(tmp_path, store=tmp_path / "index") == ["a.md"]


def test_an_ignore_file_with_a_mark_windows_lines_and_a_bad_pattern(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b.md", "c.md")
    (tmp_path / ".gitignore").write_bytes(b"\xef\xbb\xbfa.md\r\n!\r\n/\r\n[\r\nb.md\r\n")
    assert found(tmp_path) == ["c.md"]


def test_links_never_leave_the_root_and_loops_end(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", "secret.md")
    root = make(tmp_path / "root", "a.md", "sub/b.md", ".versions/v3.md")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "sub/up").symlink_to("..", target_is_directory=True)
    (root / "leak.md").symlink_to(outside / "secret.md")
    (root / "leakdir").symlink_to(outside, target_is_directory=True)
    (root / "twice.md").symlink_to("a.md")
    (root / "current.md").symlink_to(".versions/v3.md")
    (root / "dangling.md").symlink_to("nowhere.md")
    (root / "self.md").symlink_to("self.md")
    assert found(root) == ["a.md", "current.md", "sub/b.md"]
    reasons = skipped(root)
    assert reasons["leak.md"] == "symbolic link that leaves the folder"
    assert reasons["twice.md"] == "symbolic link to a.md"
    assert reasons["dangling.md"] == reasons["self.md"] == "symbolic link that leads nowhere"


def test_a_link_into_git_is_refused(tmp_path: Path) -> None:
    make(tmp_path, ".git/config.md")
    (tmp_path / "x.md").symlink_to(".git/config.md")
    assert found(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX special files")
def test_special_files_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock.md")
        assert found(tmp_path) == []
        assert skipped(tmp_path) == {"pipe.md": "not a regular file", "sock.md": "not a regular file"}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems that refuse such names")
def test_odd_names_survive(tmp_path: Path) -> None:
    names = ["-rf.md", "new\nline.md", "sp ace.md", os.fsdecode(b"caf\xe9.md"), "ü.md"]
    for name in names:
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_bytes(b"sp*\n")
    assert sorted(found(tmp_path)) == sorted(set(names) - {"sp ace.md"})


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.md", "locked/b.md", "open/c.md")
    real = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    entries = list(walk(tmp_path))
    assert [entry.path.name for entry in entries if entry.skipped is None] == ["a.md", "c.md"]
    [locked] = [entry for entry in entries if entry.skipped is not None]
    assert locked.path.name == "locked"
    assert locked.skipped == "folder cannot be listed: Permission denied"


def test_a_root_may_be_one_file_even_an_ignored_one(tmp_path: Path) -> None:
    make(tmp_path, "a.log", "b.jpg")
    (tmp_path / ".gitignore").write_text("*\n")
    assert [(entry.path.name, entry.skipped) for entry in walk(tmp_path / "a.log")] == [("a.log", None)]
    assert [(entry.path.name, entry.skipped) for entry in walk(tmp_path / "b.jpg")] == [("b.jpg", "unsupported type")]


def test_a_missing_root_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        walk(tmp_path / "nowhere")


def test_ignored_reason_names_the_rule_and_its_line(tmp_path: Path) -> None:
    make(tmp_path, "docs/a.log", "docs/b.md", "node_modules/x.md", ".secret/y.md", "build/deep/z.md")
    (tmp_path / "docs/.gitignore").write_text("# logs\n\n*.log\n")
    (tmp_path / ".ragindexignore").write_text("build/\n")
    assert ignored_reason(tmp_path, tmp_path / "docs/a.log") == "matched `*.log` in docs/.gitignore line 3"
    assert ignored_reason(tmp_path, Path("build/deep/z.md")) == "matched `build/` in .ragindexignore line 1"
    assert ignored_reason(tmp_path, tmp_path / "docs/b.md") is None
    assert "hidden" in str(ignored_reason(tmp_path, tmp_path / ".secret/y.md"))
    assert "built-in" in str(ignored_reason(tmp_path, tmp_path / "node_modules/x.md"))
    assert ignored_reason(tmp_path, tmp_path / "docs/b.md", exclude=["b.*"]) == "matched `b.*` of `exclude`"
    assert "include" in str(ignored_reason(tmp_path, tmp_path / "docs/b.md", include=["*.txt"]))
    assert "outside" in str(ignored_reason(tmp_path / "docs", tmp_path / "x.md"))


def test_the_walk_and_ignored_reason_agree(tmp_path: Path) -> None:
    make(tmp_path, "a.log", "b.md", "c/d.log", "c/e.md", "f/g.md", "f/h/i.md", ".j/k.md", "l/build/m.md")
    (tmp_path / ".gitignore").write_text("*.log\nbuild\nf/*\n!f/h\n")
    (tmp_path / "c/.gitignore").write_text("!d.log\ne.md\n")
    walked = set(found(tmp_path))
    every = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.suffix in (".md", ".log")}
    assert walked == {name for name in every if ignored_reason(tmp_path, tmp_path / name) is None}
    assert walked == {"b.md", "c/d.log", "f/h/i.md"}
