"""`train recipe`: several stages from one file. A stage is parsed by its own command, so both know the same options."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.terminal import emit, emit_json, note
from ragindex.cli.training import require_extra, train
from ragindex.cli.training.options import EncoderFolder
from ragindex.errors import UsageError

if TYPE_CHECKING:
    from ragindex.train.recipe import Record, Stage, State

__all__ = ["command"]

_OWN = ("output", "json", "debug", "help")  # the recipe's matter, not a stage's


_EXAMPLE = """\b
ragindex train recipe llm2vec.toml --output encoders --dry-run
"""


@click.command("recipe", epilog=_EXAMPLE, short_help="Run several training stages in order, from one file.")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory of what the stages make, a folder each.",
)
@click.option("--encoder", metavar="NAME|DIR|HUB_ID", help="What the first stage starts from.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and run nothing.")
@store_option
@debug_option
@json_option
def command(*, file: Path, output: Path, encoder: str | None, dry_run: bool, as_json: bool) -> None:
    """Run the stages of FILE, a TOML table each, that are not finished yet; each starts from what the last one made.

    A stage is named after its command (clm, mntp, simcse, contrastive, distill, mine, …) and has its options. A run
    that was stopped goes on. docs/recipes has examples.

    """
    require_extra()
    from ragindex.train.recipe import Record, read_recipe

    jobs = _jobs(read_recipe(file), output, encoder)
    for job in jobs:
        if all(path.exists() for path in job.needs):  # what will be made, no command can look at yet
            _context(job)
    record = Record(output)
    previous = encoder or ""
    rows = []
    for job in jobs:
        if dry_run:
            rows.append(_row(job, _known_state(job, record, previous)))
            previous = _fingerprint(job, previous)
            continue
        previous, state = _run(job, record, previous, as_json=as_json)
        rows.append(_row(job, state))
    if as_json:
        emit_json({"output": str(output), "stages": rows})
    elif dry_run:
        emit(f"{row['stage']:<16} {row['state']:<9} {row['command']}" for row in rows)
    else:
        emit(f"{jobs[-1].made}: {len(jobs)} stages.")


@dataclass(frozen=True, slots=True)
class _Job:
    """A stage with its arguments. arguments: but for the output; needs: stages whose output it names."""

    stage: Stage
    click_command: click.Command
    arguments: tuple[str, ...]
    made: Path
    needs: tuple[Path, ...] = ()

    @property
    def line(self) -> tuple[str, ...]:
        """Its arguments, output included, as for the command line."""
        return ("--output", str(self.made), *self.arguments)


def _jobs(stages: Sequence[Stage], output: Path, encoder: str | None) -> list[_Job]:
    jobs: list[_Job] = []
    made: dict[str, Path] = {}
    for stage in stages:
        found = train.get_command(click.Context(train), stage.command)
        if found is None or stage.command in ("recipe", "adapt") or _parameter(found, "output") is None:
            raise UsageError(f"[{stage.name}] names no stage: {stage.command!r}{_near(stage.command, _commands())}")
        named = dict(stage.options)
        if "encoder" not in named and encoder is not None and _parameter(found, "encoder") is not None:
            named["encoder"] = encoder
        filled = {key: _filled(value, made, stage) for key, value in named.items()}
        target = output / (stage.folder if _makes_folder(found) else f"{stage.folder}.jsonl")
        needs = tuple(path for name, path in made.items() if f"{{{name}}}" in str(list(named.values())))
        jobs.append(_Job(stage, found, tuple(_arguments(found, filled, stage)), target, needs))
        made[stage.name] = target
        if isinstance(_output_type(found), EncoderFolder):
            encoder = str(target)
    return jobs


def _arguments(found: click.Command, options: Mapping[str, Any], stage: Stage) -> list[str]:
    """A table's keys and values as a command line."""
    flags: list[str] = []
    positional: list[str] = []
    for key, value in options.items():
        parameter = _parameter(found, key)
        if parameter is None or _key(parameter) in _OWN:
            known = [_key(item) for item in found.params if _key(item) not in _OWN]
            raise UsageError(f"[{stage.name}] has the unknown key {key!r}{_near(key, known)}")
        values = value if isinstance(value, list) else [value]
        if isinstance(parameter, click.Argument):
            positional += map(str, values)
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            flags += _flag(parameter, value, stage)
        elif parameter.multiple:
            flags += [text for item in values for text in (parameter.opts[0], str(item))]
        else:
            flags += [parameter.opts[0], ",".join(map(str, values))]
    return [*flags, *(["--", *positional] if positional else [])]


def _flag(parameter: click.Option, value: Any, stage: Stage) -> list[str]:
    if not isinstance(value, bool):
        raise UsageError(f"[{stage.name}] has {_key(parameter)} = {value!r}; give true or false.")
    return [parameter.opts[0]] if value else parameter.secondary_opts[:1]


def _context(job: _Job) -> click.Context:
    """The stage's options as its command reads them."""
    try:
        return job.click_command.make_context(job.stage.command, list(job.line))
    except click.UsageError as error:
        raise UsageError(f"[{job.stage.name}] {error.format_message()}") from error


def _run(job: _Job, record: Record, previous: str, *, as_json: bool) -> tuple[str, State]:
    fingerprint = _fingerprint(job, previous)
    state = record.state(job.stage, fingerprint)
    if state == "finished":
        note(f"{job.stage.folder} is finished.")
        return fingerprint, state
    note(f"{job.stage.folder}: ragindex train {job.stage.command} {shlex.join(job.line)}")
    record.note(job.stage, fingerprint, finished=False)
    with redirect_stdout(sys.stderr) if as_json else nullcontext(), _context(job) as ctx:
        job.click_command.invoke(ctx)
    record.note(job.stage, fingerprint, finished=True)
    return fingerprint, "finished"


def _known_state(job: _Job, record: Record, previous: str) -> State:
    return record.state(job.stage, _fingerprint(job, previous))


def _fingerprint(job: _Job, previous: str) -> str:
    from ragindex.train.recipe import stage_fingerprint

    if any(not path.exists() for path in job.needs):
        inputs: list[Path] = []  # they come from stages that are not finished, and so is this one
    else:
        inputs = [path for value in _context(job).params.values() for path in _paths(value)]
    kept = [path for path in inputs if path != job.made and path.exists()]
    return stage_fingerprint(job.stage.command, job.arguments, kept, previous=previous)


def _paths(value: Any) -> list[Path]:
    values = value if isinstance(value, list | tuple) else [value]
    return [item for item in values if isinstance(item, Path)]


def _row(job: _Job, state: State) -> dict[str, Any]:
    return {
        "stage": job.stage.folder,
        "state": state,
        "output": str(job.made),
        "command": f"ragindex train {job.stage.command} {shlex.join(job.line)}",
    }


def _filled(value: Any, made: Mapping[str, Path], stage: Stage) -> Any:
    """A value with the outputs of earlier stages in place of their names in braces."""
    if isinstance(value, list):
        return [_filled(item, made, stage) for item in value]
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        if value[1:-1] not in made:
            raise UsageError(f"[{stage.name}] names {value}, which no stage before it has made.")
        return str(made[value[1:-1]])
    return value


def _parameter(found: click.Command, key: str) -> click.Parameter | None:
    wanted = key.replace("_", "-")
    return next((item for item in found.params if _key(item) == wanted), None)


def _key(parameter: click.Parameter) -> str:
    """What a parameter is called in a recipe."""
    return (parameter.opts[0].lstrip("-") if parameter.opts else str(parameter.name)).replace("_", "-")


def _makes_folder(found: click.Command) -> bool:
    kind = _output_type(found)
    return isinstance(kind, click.Path) and kind.dir_okay


def _output_type(found: click.Command) -> click.ParamType[Any] | None:
    output = _parameter(found, "output")
    return None if output is None else output.type


def _commands() -> list[str]:
    return [name for name in train.list_commands(click.Context(train)) if name not in ("recipe", "adapt")]


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.replace("_", "-"), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known))}."
