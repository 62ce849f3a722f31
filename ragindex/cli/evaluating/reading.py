"""What is to be measured, read and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ragindex.errors import UsageError
from ragindex.evaluation import Dataset, limit_dataset, load_dataset, save_dataset
from ragindex.evaluation.sts import load_sts
from ragindex.measure import SentencePairs, Watch

__all__ = ["Generated", "read_datasets", "read_pairs"]

_LIKES = 50  # of the original LIMIT


@dataclass(frozen=True, slots=True)
class Generated:
    """The LIMIT data set to generate, and where to keep it; likes: None is 50, or as many as it takes."""

    people: int
    likes: int | None
    bystanders: int
    seed: int
    directory: Path | None


def read_datasets(
    directories: Sequence[Path], generated: Generated | None, *, split: str, watch: Watch
) -> tuple[Dataset, ...]:
    """The data sets, each with a name of its own. Raises UsageError for one that is unusable or named twice."""
    _check_distinct(directories)
    datasets = [load_dataset(directory, split=split) for directory in directories]
    for directory, dataset in zip(directories, datasets, strict=True):
        if dataset.unknown_documents:
            watch.note(f"{directory}: {len(dataset.unknown_documents):,} judged documents are missing from its corpus.")
        if dataset.unknown_queries:
            watch.note(f"{directory}: {len(dataset.unknown_queries):,} judged queries are missing, and left out.")
    names = [dataset.name for dataset in datasets]
    datasets = [
        replace(dataset, name=directory.as_posix()) if names.count(dataset.name) > 1 else dataset
        for directory, dataset in zip(directories, datasets, strict=True)
    ]
    return (*datasets, *(() if generated is None else (_generate(generated),)))


def read_pairs(files: Sequence[Path]) -> tuple[SentencePairs, ...]:
    """The sentence pairs of each file, under the file's name. Raises UsageError for one that is unusable."""
    _check_distinct(files)
    stems = [file.stem for file in files]
    return tuple(
        SentencePairs(file.as_posix() if stems.count(file.stem) > 1 else file.stem, load_sts(file)) for file in files
    )


def _generate(wanted: Generated) -> Dataset:
    likes = max(_LIKES, wanted.people - 1) if wanted.likes is None else wanted.likes
    dataset = limit_dataset(people=wanted.people, likes=likes, bystanders=wanted.bystanders, seed=wanted.seed)
    if wanted.directory is not None:
        if wanted.directory.is_dir() and any(wanted.directory.iterdir()):
            raise UsageError(f"{wanted.directory} is not empty; save the data set elsewhere.")
        save_dataset(dataset, wanted.directory)
    return dataset


def _check_distinct(paths: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UsageError(f"{path} is given twice.")
        seen.add(path.resolve())
