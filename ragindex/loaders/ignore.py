"""Ignore rules: what the lines of `.gitignore`, `.ragindexignore`, the options and the built-in list say of one name.

The meaning of a pattern is git's (compiled by pathspec). Rules are asked from the strongest to the weakest: `exclude`,
the ignore files from the deepest folder outwards (in one folder `.ragindexignore` before `.gitignore`), the built-in
list. The first rule set that has an opinion decides, so `!.github/` in an ignore file shows a folder that is hidden
by default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from ragindex.loaders.words import words

__all__ = ["Rules", "Verdict", "ignored_reason", "is_private", "root_rules"]

_IGNORE_FILES = (".ragindexignore", ".gitignore")
_MAX_IGNORE_FILE = 1 << 20
_NAMED_GROUP = re.compile(r"\(\?P<\w+>")
# Never shown again by a negated pattern: their content is no document, and an index must not read itself.
_PRIVATE = frozenset({".git", ".hg", ".svn", ".bzr", ".jj", ".ragindex"})
_GENERATED = words(
    "node_modules __pycache__ venv bower_components __pypackages__ site-packages cdk.out package-lock.json",
    "npm-shrinkwrap.json pnpm-lock.yaml",
)
_GENERATED_SUFFIXES = (".min.js", ".min.css", ".egg-info", ".dist-info", "~")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says: `reason` names the rule; `ignored` is False where a negated pattern keeps the name."""

    ignored: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _RuleSet:
    """The patterns of one file. Names are matched relative to `base`; `lines` are their line numbers, 0 for options."""

    base: str
    origin: str
    spec: GitIgnoreSpec
    patterns: tuple[str, ...]
    lines: tuple[int, ...]
    any: re.Pattern[str]  # matches, from the start, whatever one of the patterns matches: most names match none

    def verdict(self, path: str, directory: bool) -> Verdict | None:
        name = path[len(self.base) :].lstrip("/")
        if directory:
            name += "/"
        if self.any.match(name) is None:
            return None
        result = self.spec.check_file(name)
        if result.include is None or result.index is None:
            return None
        line = self.lines[result.index]
        place = f" in {self.origin} line {line}" if line else f" of {self.origin}"
        return Verdict(result.include, f"matched `{self.patterns[result.index].rstrip()}`{place}")


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that applies inside one folder, strongest first; immutable, so that sibling folders can share it."""

    root: str
    options: tuple[_RuleSet, ...] = ()
    sets: tuple[_RuleSet, ...] = ()
    included: _RuleSet | None = None
    store: str = ""

    def inside(self, folder: str, names: Iterable[str]) -> Rules:
        """The rules for the content of `folder`, given the names of its files."""
        present = set(names)
        found = [_read(folder, name, self.root) for name in _IGNORE_FILES if name in present]
        own = tuple(rules for rules in found if rules is not None)
        return Rules(self.root, self.options, own + self.sets, self.included, self.store) if own else self

    def verdict(self, path: str, name: str, *, directory: bool) -> Verdict | None:
        """What applies to a file or folder whose parent folders are not ignored; None when nothing does."""
        if name in _PRIVATE or path == self.store:
            return Verdict(True, f"`{name}` is never indexed")
        for rules in (*self.options, *self.sets):
            verdict = rules.verdict(path, directory)
            if verdict is not None:
                if verdict.ignored:
                    return verdict
                break
        else:
            if name[:1] == ".":
                return Verdict(True, "hidden (its name begins with a dot)")
            if name in _GENERATED or name.endswith(_GENERATED_SUFFIXES):
                return Verdict(True, f"`{name}` is generated or installed, not written (built-in rule)")
        if self.included is not None and not directory:
            wanted = self.included.verdict(path, directory)
            if wanted is None or not wanted.ignored:
                return Verdict(True, "not matched by any `include` pattern")
        return None


def is_private(relative: Path) -> bool:
    """Whether a path leads through a folder that is never indexed."""
    return not _PRIVATE.isdisjoint(relative.parts)


def root_rules(
    root: Path, *, include: Sequence[str] = (), exclude: Sequence[str] = (), store: Path | None = None
) -> Rules:
    """The rules for the names in `root`: options, and the ignore files of the folders above it.

    Folders above count up to the top of the git repository that holds `root`, or else up to the folder that holds the
    store. Rules from above that ignore `root` itself are dropped: whoever names an ignored folder wants its content.
    """
    base = str(root)
    options = (_compile(base, "`exclude`", _unnumbered(exclude)),) if exclude else ()
    included = _compile(base, "`include`", _unnumbered(include)) if include else None
    rules = Rules(base, options, (), included, str(store) if store is not None else "")
    for folder in _above(root, store):
        if (folder / ".git" / "info" / "exclude").is_file():
            found = _read(str(folder), os.path.join(".git", "info", "exclude"), base)  # noqa: PTH118 - strings throughout
            rules = Rules(base, options, (found,) if found else (), included, rules.store)
        if folder != root:
            rules = rules.inside(str(folder), [name for name in _IGNORE_FILES if (folder / name).is_file()])
    kept = tuple(ruleset for ruleset in rules.sets if not _hides(ruleset, root))
    return Rules(base, options, kept, included, rules.store)


def _unnumbered(patterns: Sequence[str]) -> list[tuple[int, str]]:
    """Patterns of an option: they have no line numbers."""
    return [(0, pattern) for pattern in patterns]


def ignored_reason(
    root: Path, path: Path, *, include: Sequence[str] = (), exclude: Sequence[str] = (), store: Path | None = None
) -> str | None:
    """Why a walk of `root` with these options would ignore `path`, or None when it would not.

    "matched `*.log` in docs/.gitignore line 3". Looks at names only; `path` need not exist.
    """
    root = root.resolve()
    folder = str(root)
    path = Path(os.path.abspath(root / path))  # noqa: PTH100 - resolve() would follow the link that is asked about
    if path == root:
        return None
    if not path.is_relative_to(root):
        return f"lies outside of {root}"
    rules = root_rules(root, include=include, exclude=exclude, store=store.resolve() if store is not None else None)
    parts = path.relative_to(root).parts
    for depth, name in enumerate(parts, start=1):
        rules = rules.inside(folder, [entry for entry in _IGNORE_FILES if Path(folder, entry).is_file()])
        folder = folder.rstrip(os.sep) + os.sep + name
        directory = depth < len(parts) or path.is_dir()
        verdict = rules.verdict(folder, name, directory=directory)
        if verdict is not None:
            return verdict.reason
    return None


def _above(root: Path, store: Path | None) -> list[Path]:
    """The folders whose ignore files apply, outermost first, `root` last."""
    chain = [root, *root.parents]
    for index, folder in enumerate(chain):
        if (folder / ".git").exists():
            return chain[index::-1]
    if store is not None and store.parent in chain:
        return chain[chain.index(store.parent) :: -1]
    return [root]


def _hides(ruleset: _RuleSet, root: Path) -> bool:
    base = Path(ruleset.base)
    if base == root or not root.is_relative_to(base):
        return False
    folders = [folder for folder in (root, *root.parents) if folder != base and folder.is_relative_to(base)]
    verdicts = [ruleset.verdict(str(folder), True) for folder in folders]
    return any(verdict is not None and verdict.ignored for verdict in verdicts)


def _read(folder: str, name: str, root: str) -> _RuleSet | None:
    path = Path(folder, name)
    try:
        # utf-8-sig: a mark written by a Windows editor must not become part of the first pattern.
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            text = file.read(_MAX_IGNORE_FILE)
    except OSError:
        return None
    origin = path.relative_to(root) if path.is_relative_to(root) else path
    rules = _compile(folder, origin.as_posix(), list(enumerate(text.split("\n"), start=1)))
    return rules if rules.patterns else None


def _compile(base: str, origin: str, numbered: Sequence[tuple[int, str]]) -> _RuleSet:
    """Compile line by line: git skips a pattern that it cannot read and so do we."""
    patterns: list[str] = []
    lines: list[int] = []
    for number, line in numbered:
        line = line.rstrip("\r")
        if not line.strip() or line.startswith("#"):
            continue
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue
        patterns.append(line)
        lines.append(number)
    spec = GitIgnoreSpec.from_lines(patterns)
    regexes = [pattern.regex.pattern for pattern in spec.patterns if pattern.regex is not None]
    # A group's name may stand only once in the whole.
    either = "|".join(f"(?:{_NAMED_GROUP.sub('(?:', regex)})" for regex in regexes) or "(?!)"
    if not all(regex.startswith("^") for regex in regexes):
        either = f"(?s:.*?)(?:{either})"
    return _RuleSet(base, origin, spec, tuple(patterns), tuple(lines), re.compile(either))
