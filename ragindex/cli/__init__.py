"""The command line: every command parses its options, calls the library once and prints what came back."""

import click

from ragindex.cli.group import RootGroup, show_version
from ragindex.cli.options import debug_option, store_option

__all__ = ["main"]


_HELP = """Index a folder of documents and ask it questions, offline, with exact citations.

\b
ragindex index .                      read the current folder into ./.ragindex
ragindex query how do I rotate a key  ask it
"""


@click.group(
    "ragindex",
    cls=RootGroup,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version and exit.",
)
@store_option
@debug_option
def main() -> None:
    """Parse the options that stand before the command."""
