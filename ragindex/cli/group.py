"""The root group: imports a command's module when it is needed, lists commands by theme, turns errors into one line."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, cast

import click

from ragindex import __version__
from ragindex.cli import exit_codes
from ragindex.cli.options import debugging
from ragindex.cli.terminal import note
from ragindex.errors import RagIndexError

__all__ = ["RootGroup", "show_version"]


class _Entry(NamedTuple):
    section: str
    name: str
    module: str
    attribute: str


_ENTRIES = (
    _Entry("Start here", "demo", "demo", "demo"),
    _Entry("Index", "index", "indexing", "index"),
    _Entry("Index", "remove", "indexing", "remove"),
    _Entry("Query", "query", "querying", "query"),
    _Entry("Query", "why-not", "querying", "why_not"),
    _Entry("Query", "serve", "serving", "serve"),
    _Entry("Query", "mcp", "agents", "mcp"),
    _Entry("Store", "status", "maintenance", "status"),
    _Entry("Store", "list", "maintenance", "list_documents"),
    _Entry("Store", "failures", "maintenance", "failures"),
    _Entry("Store", "verify", "maintenance", "verify"),
    _Entry("Store", "repair", "maintenance", "repair"),
    _Entry("Store", "compact", "maintenance", "compact"),
    _Entry("Store", "db", "database", "db"),
    _Entry("Measure and train", "eval", "evaluating", "evaluate"),
    _Entry("Measure and train", "bench", "bench", "bench"),
    _Entry("Measure and train", "train", "training", "train"),
    _Entry("Measure and train", "encoder", "encoders", "encoder"),
)


class RootGroup(click.Group):
    """The group behind `ragindex`; its commands live in the modules that `_ENTRIES` names."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in the order of the help page."""
        return [entry.name for entry in _ENTRIES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of `cmd_name`; None when there is no such command."""
        for entry in _ENTRIES:
            if entry.name == cmd_name:
                module = importlib.import_module(f"ragindex.cli.{entry.module}")
                return cast("click.Command", getattr(module, entry.attribute))
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; a mistyped command is answered with the nearest one."""
        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
        if near and near[0] != args[0] and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command '{args[0]}'; did you mean `{near[0]}`?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands under the heading of their section."""
        width = max(len(entry.name) for entry in _ENTRIES)
        for section in dict.fromkeys(entry.section for entry in _ENTRIES):
            rows: list[tuple[str, str]] = []
            for entry in _ENTRIES:
                command = self.get_command(ctx, entry.name) if entry.section == section else None
                if command is not None:
                    # One name column for all sections: padding keeps their descriptions aligned.
                    rows.append((entry.name.ljust(width), command.get_short_help_str(limit=formatter.width)))
            with formatter.section(section):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it raises becomes a ClickException whose message is one sentence."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except RagIndexError as error:
            _show_traceback(ctx)
            raise click.ClickException(str(error)) from error
        except Exception as error:  # the last handler: whatever went wrong, the user gets one clear line
            _show_traceback(ctx)
            message = f"{type(error).__name__}: {error}".rstrip(": ")
            if not debugging(ctx):
                message += "; run again with --debug for the traceback"
            raise click.ClickException(message) from error

    # The signature is click's; nothing is added to what it passes on.
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002 - it exits itself, always
        **extra: Any,
    ) -> NoReturn:
        """Run and exit; every error is one line on stderr and exit code 2, an interrupt 130."""
        try:
            code = super().main(args, prog_name or "ragindex", complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(exit_codes.ERROR)
        except click.UsageError as error:
            _fail(_usage_message(error))
        except click.ClickException as error:
            _fail(error.format_message())
        except click.Abort:
            note("Interrupted.")
            sys.exit(exit_codes.INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version and exit."""
    if wanted and not ctx.resilient_parsing:
        click.echo(f"ragindex {__version__}")
        ctx.exit()


def _fail(message: str) -> NoReturn:
    note(f"ragindex: {message}")
    sys.exit(exit_codes.ERROR)


def _usage_message(error: click.UsageError) -> str:
    message = error.format_message().rstrip()
    if error.ctx is not None and "`" not in message and not message.endswith("?"):  # these say what to do themselves
        message = f"{message.removesuffix('.')}; see `{error.ctx.command_path} --help`."
    return message


def _show_traceback(ctx: click.Context) -> None:
    if debugging(ctx):
        traceback.print_exc()
