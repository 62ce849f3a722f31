"""Finds the files of a folder: prunes what is ignored, follows no link out of the root, opens nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ragindex.errors import UsageError
from ragindex.loaders.formats import supported
from ragindex.loaders.ignore import Rules, ignored_reason, is_private, root_rules

__all__ = ["WalkEntry", "walk"]


class WalkEntry(NamedTuple):
    """One file (or one folder that could not be listed). `file` is its absolute path; `skipped` says why it must not
    be read.
    """

    file: str  # text: to make ten thousand Path objects takes longer than to find the files
    size: int
    mtime_ns: int
    inode: int
    skipped: str | None = None

    @property
    def path(self) -> Path:
        """`file` as a path."""
        return Path(self.file)


def walk(
    root: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    store: Path | None = None,
    report_skipped: bool = False,
) -> Iterator[WalkEntry]:
    """The files below `root` that can be indexed, sorted by name in each folder; `root` may also be a single file.

    `include` and `exclude` are lines with the meaning of a `.gitignore`, relative to `root`: `exclude` adds to the
    ignore files, and with `include` only files that match one of its patterns remain. `store` is the folder of the
    index, which is left out. Paths are absolute with the links of `root` itself resolved. A folder that cannot be
    listed is an entry with `skipped`, and so is a named file that cannot be read; other skipped names are entries only
    with `report_skipped`. Raises UsageError when `root` does not exist.
    """
    try:
        top = root.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{root} cannot be indexed: {getattr(error, 'strerror', None) or error}.") from error
    if not top.is_dir():
        return iter([_named_file(top)])
    rules = root_rules(top, include=include, exclude=exclude, store=store.resolve() if store is not None else None)
    entries = _Walk(top, rules, include, exclude, store).entries()
    return entries if report_skipped else (entry for entry in entries if entry.skipped is None or entry.inode < 0)


def _named_file(path: Path) -> WalkEntry:
    """A file that was asked for by name: ignore rules are silent, but its kind must be readable."""
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        reason: str | None = "not a regular file"
    else:
        reason = None if supported(path) else "unsupported type"
    # The reason is reported even without `report_skipped`: nothing else would tell why a named file is missing.
    return WalkEntry(str(path), info.st_size, info.st_mtime_ns, info.st_ino, reason)


@dataclass(frozen=True, slots=True)
class _Walk:
    root: Path
    rules: Rules
    include: Sequence[str]
    exclude: Sequence[str]
    store: Path | None

    def entries(self) -> Iterator[WalkEntry]:
        pending = [(str(self.root), self.rules)]
        while pending:
            folder, rules = pending.pop()
            try:
                with os.scandir(folder) as listing:
                    found = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                # inode -1 marks an entry that is always reported: these files exist and cannot be seen.
                yield WalkEntry(folder, 0, 0, -1, f"folder cannot be listed: {error.strerror or error}")
                continue
            rules = rules.inside(folder, [entry.name for entry in found])
            folders = []
            for entry in found:
                if _is_folder(entry):
                    verdict = rules.verdict(entry.path, entry.name, directory=True)
                    if verdict is None:
                        folders.append((entry.path, rules))
                    else:
                        yield WalkEntry(entry.path, 0, 0, 0, verdict.reason)
                else:
                    yield self._file(entry, rules)
            pending.extend(reversed(folders))

    def _file(self, entry: os.DirEntry[str], rules: Rules) -> WalkEntry:
        path = entry.path
        verdict = rules.verdict(path, entry.name, directory=False)
        if verdict is not None:
            return WalkEntry(path, 0, 0, 0, verdict.reason)
        if not supported(entry.name):
            return WalkEntry(path, 0, 0, 0, "unsupported type")
        try:
            info = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(info.st_mode):
                return WalkEntry(path, info.st_size, info.st_mtime_ns, info.st_ino)
            reason = self._link(Path(path)) if entry.is_symlink() else None
            info = entry.stat(follow_symlinks=reason is None)
        except OSError as error:
            # Reported like a folder that cannot be listed: the file exists, and its document must not pass for gone.
            return WalkEntry(path, 0, 0, -1, f"cannot be read: {error.strerror or error}")
        if reason is None and not stat.S_ISREG(info.st_mode):
            reason = "not a regular file"
        return WalkEntry(path, info.st_size, info.st_mtime_ns, info.st_ino, reason)

    def _link(self, path: Path) -> str | None:
        """Why a link is skipped; None when its target lies in the root and is not walked under its own name."""
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return "symbolic link that leads nowhere"
        if not target.is_relative_to(self.root) or is_private(target.relative_to(self.root)):
            return "symbolic link that leaves the folder"
        if self.store is not None and target.is_relative_to(self.store.resolve()):
            return "symbolic link into the index"
        if target.is_dir():
            return "symbolic link to a folder"
        walked = ignored_reason(self.root, target, include=self.include, exclude=self.exclude, store=self.store) is None
        return f"symbolic link to {target.relative_to(self.root).as_posix()}" if walked and supported(target) else None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
