"""An evaluation for people: aligned tables, narrow enough for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragindex.cli.terminal import cells, one_line
from ragindex.evaluation.length import Association, LengthBias
from ragindex.evaluation.metrics import METRICS
from ragindex.evaluation.report import LABELS, EvalReport, Evaluation, MeanReport, ModeReport, StsReport
from ragindex.evaluation.resampling import Estimate, Interval
from ragindex.evaluation.significance import PairedDifference

__all__ = ["evaluation_lines"]

_INTERVAL = "95 % interval"
_Row = tuple[str, ...]


def evaluation_lines(report: Evaluation) -> list[str]:
    """Everything that was measured; the JSON has more digits and, for several data sets, more differences."""
    blocks: list[list[str]] = []
    if len(report.datasets) == 1:
        blocks += _single(report.datasets[0])
    elif report.datasets:
        blocks += _several(report)
    for dataset in report.datasets:
        blocks += _length(dataset)
    if report.sts:
        blocks += _sts(report)
    return [line for number, block in enumerate(blocks) for line in ([""] if number else []) + block]


def _single(dataset: EvalReport) -> list[list[str]]:
    title = f"{one_line(dataset.dataset)}: {dataset.documents:,} documents, {dataset.queries:,} queries"
    compared = dataset.comparison
    ours = _metrics({"": dataset.modes})
    if compared is None:
        return [[title], ours]
    differences = {
        mode: {LABELS[name]: each for name, each in by_metric.items()}
        for mode, by_metric in compared.differences.items()
    }
    return [
        [title],
        [one_line(dataset.encoder), *ours],
        [one_line(compared.against), *_metrics({"": compared.modes})],
        [_versus(dataset.encoder, compared.against), *_differences(differences)],
    ]


def _several(report: Evaluation) -> list[list[str]]:
    parts: dict[str, EvalReport | MeanReport] = {
        f"{one_line(each.dataset)}: {each.documents:,} documents, {each.queries:,} queries": each
        for each in report.datasets
    }
    if report.mean is not None:
        parts[f"mean of {report.mean.datasets}"] = report.mean
    ours = _metrics({name: part.modes for name, part in parts.items()})
    compared = {name: part.comparison for name, part in parts.items() if part.comparison is not None}
    if not compared:
        return [ours]
    against = next(iter(compared.values())).against
    differences = {
        name: {mode: by_metric["ndcg@10"] for mode, by_metric in each.differences.items()}
        for name, each in compared.items()
    }
    return [
        [one_line(report.encoder), *ours],
        [one_line(against), *_metrics({name: each.modes for name, each in compared.items()})],
        [f"{_versus(report.encoder, against)}, nDCG@10", *_differences(differences)],
    ]


def _metrics(parts: Mapping[str, Mapping[str, ModeReport]]) -> list[str]:
    """A row for each mode of each part, metrics in columns."""
    first, *others = METRICS
    groups = {
        name: [
            (
                mode,
                f"{report.estimates[first].value:.3f}",
                _between(report.estimates[first].interval),
                *(f"{report.estimates[metric].value:.3f}" for metric in others),
            )
            for mode, report in modes.items()
        ]
        for name, modes in parts.items()
    }
    return _aligned(("", LABELS[first], _INTERVAL, *(LABELS[name] for name in others)), groups)


def _differences(parts: Mapping[str, Mapping[str, PairedDifference]]) -> list[str]:
    groups = {
        name: [
            (
                row,
                _signed(each.difference),
                _between(each.interval, signed=True),
                _chance(each.p_value),
                f"{each.wins:,}",
                f"{each.losses:,}",
                f"{each.ties:,}",
            )
            for row, each in differences.items()
        ]
        for name, differences in parts.items()
    }
    return _aligned(("", "difference", _INTERVAL, "p", "won", "lost", "tied"), groups)


def _length(dataset: EvalReport) -> list[list[str]]:
    sides: list[tuple[str, LengthBias]] = []
    if dataset.length is not None:
        sides.append((dataset.encoder, dataset.length))
    if dataset.comparison is not None and dataset.comparison.length is not None:
        sides.append((dataset.comparison.against, dataset.comparison.length))
    blocks = []
    for encoder, bias in sides:
        title = f"{one_line(dataset.dataset)}, {one_line(encoder)}"
        blocks += [_collapse(title, bias), _found(title, bias)]
    return blocks


def _collapse(title: str, bias: LengthBias) -> list[str]:
    found = bias.collapse
    if found is None:
        return [f"{title}: too few documents of 32 tokens or more to see whether vectors of long texts crowd together."]
    rows = [
        (f"{tokens:,}", f"{value:.3f}", _between(interval))
        for tokens, (value, interval) in zip(found.tokens, found.cosines, strict=True)
    ]
    rows.append(("growth", _signed(found.growth.value), _between(found.growth.interval, signed=True)))
    title = f"{title}: {found.documents:,} documents cut to a length; growth is collapse"
    return [title, *_aligned(("tokens", "mean cosine", _INTERVAL), {"": rows})]


def _found(title: str, bias: LengthBias) -> list[str]:
    rows = [(mode, *_association(each.relevant), *_association(each.other)) for mode, each in bias.retrieval.items()]
    header = ("", "relevant", _INTERVAL, "not relevant", _INTERVAL)
    title = f"{title}: are longer documents in the first 10 more (+) or less (−) often?"
    return [title, *_aligned(header, {"": rows})]


def _association(found: Association | None) -> _Row:
    if found is None:
        return ("–", "–")
    return (_signed(found.correlation.value), _between(found.correlation.interval, signed=True))


def _sts(report: Evaluation) -> list[list[str]]:
    parts = [*report.sts, *([report.mean_sts] if report.mean_sts is not None else [])]
    compared = {one_line(part.dataset): part.comparison for part in parts if part.comparison is not None}
    ours = _correlations(parts, [part.correlations for part in parts])
    if not compared:
        return [ours]
    against = next(iter(compared.values())).against
    differences = {
        name: [
            (
                LABELS[kind],
                _signed(each.difference),
                _between(each.interval, signed=True),
                _chance(each.p_value),
            )
            for kind, each in comparison.differences.items()
        ]
        for name, comparison in compared.items()
    }
    return [
        [one_line(report.encoder), *ours],
        [one_line(against), *_correlations(parts, [each.correlations for each in compared.values()])],
        [_versus(report.encoder, against), *_aligned(("", "difference", _INTERVAL, "p"), differences)],
    ]


def _correlations(parts: Sequence[StsReport], found: Sequence[Mapping[str, Estimate]]) -> list[str]:
    rows = []
    for part, correlations in zip(parts, found, strict=True):
        figures = [cell for value, interval in correlations.values() for cell in (f"{value:.3f}", _between(interval))]
        rows.append((one_line(part.dataset), f"{part.pairs:,}", *figures))
    return _aligned(("", "pairs", "Spearman", _INTERVAL, "Pearson", _INTERVAL), {"": rows})


def _aligned(header: _Row, groups: Mapping[str, Sequence[_Row]]) -> list[str]:
    """Rows below a header, columns two spaces apart, all but the first flush right; a group that has a name is
    indented below it.
    """
    indented = {name: [(f"  {row[0]}" if name else row[0], *row[1:]) for row in rows] for name, rows in groups.items()}
    every = [header, *(row for rows in indented.values() for row in rows)]
    widths = [max(cells(row[place]) for row in every) for place in range(len(header))]
    lines = [_spaced(header, widths)]
    for name, rows in indented.items():
        lines += [name] if name else []
        lines += [_spaced(row, widths) for row in rows]
    return lines


def _spaced(row: _Row, widths: Sequence[int]) -> str:
    spaces = [" " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True)]
    flush_right = (space + cell for space, cell in zip(spaces[1:], row[1:], strict=True))
    return "  ".join((row[0] + spaces[0], *flush_right)).rstrip()


def _between(interval: Interval, *, signed: bool = False) -> str:
    low, high = (_signed(bound) if signed else f"{bound:.3f}" for bound in interval)
    return f"{low} – {high}"


def _signed(value: float) -> str:
    text = f"{value:+.3f}".replace("-", "−")
    return text.lstrip("+−") if float(f"{value:.3f}") == 0 else text


def _chance(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _versus(ours: str, theirs: str) -> str:
    return f"{one_line(ours)} minus {one_line(theirs)}"
