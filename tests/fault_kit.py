"""Faults injected into stores, and what becomes of each: `python tests/fault_kit.py [--trials 300]` prints the table.

A trial copies a store, damages it at a random place, asks it everything, verifies, repairs, and asks again; where
repairing says that it could not mend everything, the folder is indexed again. Every answer is compared with that of the
undamaged store. Embedding is counted.
"""

# ruff: noqa: T201 - a script too
from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from index_kit import SMALL, open_index, write
from tiny import SENTENCES, tiny_encoder

from ragindex import Encoder, Index
from ragindex.config import Storage
from ragindex.errors import CorruptionError, RagIndexError
from ragindex.types import Verification

__all__ = ["FAULTS", "Outcome", "Template", "damage", "embedding_counted", "everything", "sweep", "template"]

QUERIES = ("rotate the signing key", "kettle water boils", "carry over leave", "restore a backup", "receipt refunded")
MODES = ("dense", "lexical", "hybrid")


@dataclass(frozen=True, slots=True)
class Template:
    """A folder with its store, never touched, the encoder's directory, and what the store answers."""

    folder: Path
    encoder: Path
    answers: dict[str, list[tuple[object, ...]]]


@dataclass(slots=True)
class Outcome:
    """What became of one fault.

    asked, repaired, indexed: "same" answers, or an "error" that names the way out, or "other" answers, or the same with
    other "facts", or "crash" for an exception that is none of ours. found: whether `verify` says so; embedded: texts
    that repairing embedded; embedded_again: those that the run afterwards did.
    """

    fault: str
    asked: str = ""
    found: bool = False
    repaired: str = ""
    embedded: int = 0
    indexed: str = ""
    embedded_again: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """harmless: it changed nothing; mended: repairing did that; told: repairing said what to do, and that mended
        it; lost: a sentence says that nothing can be read; wrong facts: a hit had another line, page or metadata, which
        `verify` found or not. What is written in capitals must not be.
        """
        if "crash" in (self.asked, self.repaired, self.indexed):
            return "CRASH"
        if self.embedded:
            return "EMBEDDED"
        if self.asked == "other":
            return "WRONG HITS"
        if "facts" in (self.asked, self.repaired):
            return "wrong facts, found" if self.found else "wrong facts, not found"
        if not self.found and self.asked == "same":
            return "harmless" if self.repaired == "same" else "BROKEN BY REPAIR"
        if self.repaired == "same" and not self.indexed:
            return "mended"
        if self.repaired == "other":
            return "SILENTLY LOST"
        if self.indexed == "same":
            return "told"
        return "lost" if self.indexed == "error" else "NOT MENDED"


def template(scratch: Path, *, documents: int = 40, dense: str = "flat") -> Template:
    """A store of some documents, settled."""
    encoder = tiny_encoder(scratch / "encoder", layers=0)  # which needs no torch
    folder = scratch / "home"
    draw, words = Random(7), " ".join(SENTENCES).split()
    files = {}
    for number in range(documents):
        # Words at random: of sentences alone many chunks would be equally near, and which come first a matter of bits.
        lines = [" ".join(draw.choices(words, k=12)) + f" {number}.{line}." for line in range(draw.randrange(3, 24))]
        files[f"part{number % 4}/doc{number:03}.md"] = f"# Note {number}\n\n## Rules\n\n" + "\n".join(lines) + "\n"
    write(folder, files)
    with open_index(folder, encoder, settings=replace(SMALL, index=Storage(dense=dense))) as index:
        index.add(folder)
        return Template(folder, encoder, everything(index))


def everything(index: Index) -> dict[str, list[tuple[object, ...]]]:
    """What the index answers, and what it lists; all that a hit shows, but for ids. Beside each answer stand the facts
    that come with its hits: lines, pages, metadata, of which a catalogue keeps no second copy, or one for filters only.
    """
    told: dict[str, list[tuple[object, ...]]] = {}
    for query in QUERIES:
        for mode in MODES:
            hits = index.search(query, k=25, mode=mode)
            told[f"{mode} {query}"] = sorted(
                (hit.path, hit.title, hit.heading, hit.char_start, hit.char_end, hit.text, round(hit.score, 3))
                for hit in hits
            )
            told[f"facts: {mode} {query}"] = sorted(
                (hit.path, hit.char_start, hit.page or 0, hit.line_start, hit.line_end, str(hit.metadata))
                for hit in hits
            )
    told["facts: documents"] = sorted((row["path"], row["sha256"], row["chunks"]) for row in index.documents())
    told["texts"] = [(row["path"], index.text(row["path"])) for row in index.documents()]
    return told


# Faults --------------------------------------------------------------------------------------------------------------


def flipped(file: Path, draw: Random) -> str:
    """One bit the other way."""
    data = bytearray(file.read_bytes())
    place, bit = draw.randrange(len(data)), draw.randrange(8)
    data[place] ^= 1 << bit
    file.write_bytes(data)
    return f"bit {bit} of byte {place} of {file.name}"


def torn(file: Path, draw: Random) -> str:
    """The end is missing."""
    size = draw.randrange(file.stat().st_size)
    with file.open("r+b") as stream:
        stream.truncate(size)
    return f"{file.name} cut off at {size}"


def blanked(file: Path, draw: Random) -> str:
    """A page of zeros, as after a write that never reached the disk."""
    pages = file.stat().st_size // 4096
    page = draw.randrange(1, max(2, pages))
    with file.open("r+b") as stream:
        stream.seek(4096 * page)
        stream.write(bytes(4096))
    return f"page {page} of {file.name} blank"


def _one(pattern: str, act: Callable[[Path, Random], str]) -> Callable[[Path, Random], str]:
    def inject(store: Path, draw: Random) -> str:
        files = sorted(file for file in store.glob(pattern) if file.is_file() and file.stat().st_size)
        return act(draw.choice(files), draw)

    return inject


DENSE, LEXICAL, CATALOGUE = "snapshots/*/dense-*/dense.*", "snapshots/*/lexical/*", "catalog.sqlite"
FAULTS: dict[str, Callable[[Path, Random], str]] = {
    "dense snapshot: bit flipped": _one(DENSE, flipped),
    "dense snapshot: torn": _one(DENSE, torn),
    "lexical snapshot: bit flipped": _one(LEXICAL, flipped),
    "lexical snapshot: torn": _one(LEXICAL, torn),
    "catalogue: bit flipped": _one(CATALOGUE, flipped),
    "catalogue: page blank": _one(CATALOGUE, blanked),
    "catalogue: torn": _one(CATALOGUE, torn),
}


# Trials --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def embedding_counted() -> Iterator[Counter[str]]:
    """Counts the texts that any encoder of this process embeds as documents."""
    counted: Counter[str] = Counter()
    encode = Encoder.encode_documents

    def counting(self: Encoder, texts: Sequence[str], **options: object) -> object:
        counted["texts"] += len(texts)
        return encode(self, texts, **options)

    Encoder.encode_documents = counting
    try:
        yield counted
    finally:
        Encoder.encode_documents = encode


def damage(made: Template, scratch: Path, fault: str, seed: int) -> Outcome:
    """One trial; leaves nothing behind."""
    home = scratch / "trial"
    shutil.copytree(made.folder, home)
    try:
        told = FAULTS[fault](home / ".ragindex", Random(f"{fault}/{seed}"))
        outcome = Outcome(f"{fault} ({seed}): {told}")
        if seed % 2:  # asking heals some faults by itself
            outcome.asked = _answers(made, home, outcome, _opened)
        outcome.found = _found(made, home, outcome)
        if not seed % 2:
            outcome.asked = _answers(made, home, outcome, _opened)
        with embedding_counted() as counted:
            outcome.repaired = _answers(made, home, outcome, _mended)
        outcome.embedded = counted["texts"]
        if outcome.repaired in ("error", "other"):
            with embedding_counted() as counted:
                outcome.indexed = _answers(made, home, outcome, _indexed)
            outcome.embedded_again = counted["texts"]
        return outcome
    finally:
        shutil.rmtree(home)


def _answers(made: Template, home: Path, outcome: Outcome, way: Callable[[Template, Path], Index]) -> str:
    try:
        with way(made, home) as index:
            told = everything(index)
    except RagIndexError as error:
        outcome.notes.append(f"{way.__name__}: {error}")
        return "error"
    except Exception as error:  # noqa: BLE001 - just that is the question
        outcome.notes.append(f"{way.__name__}: {type(error).__name__}: {error}")
        return "crash"
    unlike = [name for name in sorted(told) if told[name] != made.answers[name]]
    for name in unlike[:1]:
        odd = sorted(set(map(str, told[name])) ^ set(map(str, made.answers[name])))[:2]
        outcome.notes.append(f"{way.__name__}: {name} differs: {odd}")
    if unlike and all(name.startswith("facts: ") for name in unlike):
        return "facts"
    return "other" if unlike else "same"


def _opened(made: Template, home: Path) -> Index:
    return open_index(home, made.encoder, create=False)


def _mended(made: Template, home: Path) -> Index:
    """As the command `repair` does it. Raises what remains, so that it is not taken for sound."""
    try:
        index = _opened(made, home)
    except CorruptionError:
        Index.rescue(home / ".ragindex")
        index = _opened(made, home)
    try:
        _check(index.repair())
    except BaseException:
        index.close()
        raise
    return index


def _indexed(made: Template, home: Path) -> Index:
    index = open_index(home, made.encoder)
    try:
        index.add(home, allow_delete=True)
        _check(index.repair())  # BM25 counts deleted chunks until the lexical index is made again
    except BaseException:
        index.close()
        raise
    return index


def _check(found: Verification) -> None:
    if found.problems:
        raise CorruptionError(f"{len(found.problems)} remain: {found.problems[0]}")


def _found(made: Template, home: Path, outcome: Outcome) -> bool:
    try:
        with _opened(made, home) as index:
            problems = index.verify().problems
    except RagIndexError as error:
        outcome.notes.append(f"verify: {error}")
        return True
    outcome.notes += [f"verify: {problem}" for problem in problems[:2]]
    return bool(problems)


def sweep(made: Template, scratch: Path, fault: str, seeds: Sequence[int]) -> list[Outcome]:
    """Trials of one kind."""
    return [damage(made, scratch, fault, seed) for seed in seeds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300, help="of each kind of fault [300]")
    parser.add_argument("--first", type=int, default=0, help="the first seed [0]")
    parser.add_argument("--fault", default="", help="only the kinds whose names contain this")
    parser.add_argument("--dense", default="flat", help="how the store keeps its vectors [flat]")
    parser.add_argument("--verbose", action="store_true", help="tell of every trial that was not mended")
    given = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="ragindex-faults-") as scratch:
        made = template(Path(scratch), dense=given.dense)
        for fault in FAULTS:
            if given.fault not in fault:
                continue
            outcomes = sweep(made, Path(scratch), fault, range(given.first, given.first + given.trials))
            verdicts = Counter(outcome.verdict for outcome in outcomes)
            again = sum(outcome.embedded_again for outcome in outcomes)
            print(f"{fault}: {dict(verdicts.most_common())}, {again} texts embedded by later runs", flush=True)
            wrong = [outcome for outcome in outcomes if outcome.verdict.isupper()]
            bad += len(wrong)
            for outcome in outcomes if given.verbose else wrong[:5]:
                print(f"   {outcome.verdict}: {outcome.fault}", *outcome.notes, sep="\n      ", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
