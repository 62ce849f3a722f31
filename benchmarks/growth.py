"""How time grows with a store: to make it, to open it and to ask it, at several sizes, drawn into a picture.

    python benchmarks/growth.py [--sizes 10000,100000,1000000] [--queries 60] [--keep DIR] [--picture growth.svg]

Makes a store of each size (or takes those in DIR), then asks all of them in turn. A size that does not grow by much is
a flat line for queries, and making takes the same time for a chunk at every size. `--clock processor` counts seconds of
processor, for machines that do other things too. Prints a table and draws it; asserts nothing.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from _common import CLOCKS, fresh, interleaved, milliseconds, table
from _synthetic import Language, Phase, made

from ragindex import Index
from ragindex.evaluation.plot import require_matplotlib
from ragindex.measure import MODES
from ragindex.types import Mode

_K = 10
_FILTER = "serial < {}"  # a tenth of the documents
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")  # Okabe and Ito, "Color Universal Design" (2008)
_MARKERS = ("o", "s", "^", "D", "v")
_WORKS = ("catalogue", "lexical", "dense")


@dataclass(frozen=True, slots=True)
class Size:
    """A store of so many chunks: seconds to make it, by what was made; to open it; and to answer, by kind of query."""

    chunks: int
    making: dict[str, float]
    opening: float
    asking: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="chunks")
    parser.add_argument("--queries", type=int, default=60, help="timed queries of each kind and size")
    parser.add_argument("--keep", type=Path, help="make the stores in folders of DIR named by size, or use those there")
    parser.add_argument("--picture", type=Path, help="where to draw it; needs the extra `train`")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    counts = [int(text) for text in options.sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="ragindex-growth-") as scratch:
        folders = {count: (options.keep or Path(scratch)) / str(count) for count in counts}
        sizes = [_made(count, folder, options.clock) for count, folder in folders.items()]
        sizes = asked(sizes, folders, options.queries, options.clock)
    print(shown(sizes, options.clock))
    if options.picture is not None:
        draw(sizes, options.picture, options.clock)


def _made(count: int, folder: Path, clock: str) -> Size:
    phases = made(folder, count)
    making = {name: _seconds(phases[name], clock) for name in _WORKS}
    return Size(count, making, fresh(_open, folder / "store", clock), {})


def _seconds(phase: Phase, clock: str) -> float:
    return phase.processor if clock == "processor" else phase.seconds


def _open(store: Path, clock: str) -> float:
    """To the first hybrid answer, in a process that has imported what it needs, with files in the page cache."""
    for _ in range(2):  # the first time imports, and brings in the files
        began = CLOCKS[clock]()
        with Index.open(store, create=False) as index:
            index.search("word", k=1)
        took = CLOCKS[clock]() - began
    return took


def asked(sizes: Sequence[Size], folders: dict[int, Path], count: int, clock: str) -> list[Size]:
    """The sizes with the medians of queries to all of them, in turn."""
    with ExitStack() as stack:
        tasks: dict[str, Callable[[], object]] = {}
        for size in sizes:
            index = stack.enter_context(Index.open(folders[size.chunks] / "store", create=False))
            questions = Language(2).queries()
            tasks |= {f"{size.chunks} {mode}": _asking(index, questions, mode, None) for mode in MODES}
            tenth = _FILTER.format(size.chunks // 100)
            tasks[f"{size.chunks} hybrid, a tenth allowed"] = _asking(index, questions, "hybrid", tenth)
        times = interleaved(tasks, rounds=count, warm_up=3, clock=CLOCKS[clock])
    medians = {name: each.median for name, each in times.items()}
    kinds = [name.split(" ", 1)[1] for name in itertools.islice(medians, len(tasks) // len(sizes))]
    return [replace(size, asking={kind: medians[f"{size.chunks} {kind}"] for kind in kinds}) for size in sizes]


def _asking(index: Index, questions: Iterator[str], mode: Mode, test: str | None) -> Callable[[], object]:
    return lambda: index.search(next(questions), k=_K, mode=mode, filter=test)


def shown(sizes: Sequence[Size], clock: str) -> str:
    """A column for each size."""
    rows: list[Sequence[str]] = [
        (f"µs a chunk, {name}", *(f"{1e6 * size.making[name] / size.chunks:,.0f}" for size in sizes)) for name in _WORKS
    ]
    rows.append(("ms to open and answer", *(milliseconds(size.opening) for size in sizes)))
    rows += [(f"ms a query, {kind}", *(milliseconds(size.asking[kind]) for size in sizes)) for kind in sizes[0].asking]
    return table((clock, *(f"{size.chunks:,} chunks" for size in sizes)), rows)


def draw(sizes: Sequence[Size], picture: Path, clock: str) -> None:
    """Both families of lines over the size, on logarithmic axes. The kind of file follows the name's ending."""
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    chunks = [size.chunks for size in sizes]
    whole = {name: [1e6 * size.making[name] / size.chunks for size in sizes] for name in _WORKS}
    whole["all"] = [sum(values) for values in zip(*whole.values(), strict=True)]
    queries = {kind: [1e3 * size.asking[kind] for size in sizes] for kind in sizes[0].asking}
    titles = {"making: µs a chunk": whole, "asking: ms a query, median": queries}
    style = {"font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left", "svg.fonttype": "none"}
    style["svg.hashsalt"] = "ragindex"
    with rc_context(style):
        figure = Figure(figsize=(9.5, 4.0), facecolor="white", layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        for axes, (title, lines) in zip(figure.subplots(1, 2), titles.items(), strict=True):
            axes.set_title(f"{title} ({clock} time)")
            for (name, values), colour, marker in zip(lines.items(), _COLOURS, _MARKERS, strict=False):
                axes.plot(chunks, values, color=colour, marker=marker, label=name)
            axes.set_xscale("log")
            axes.set_ylim(bottom=0)
            axes.set_xlabel("chunks")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(visible=True, color="#E9E9E9")
            axes.legend(frameon=False, fontsize=9)
        figure.savefig(picture, dpi=110, metadata={"Date": None} if picture.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
