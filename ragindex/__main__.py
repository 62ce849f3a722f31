"""`python -m ragindex` and the `ragindex` script."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character the terminal lacks is no reason to fail
    from ragindex.cli import main as command_line

    try:
        command_line()
    except SystemExit as end:
        if (training := sys.modules.get("ragindex.train.processes")) and isinstance(end.code, int):
            training.leave(end.code)  # does nothing when this process is alone
        raise


if __name__ == "__main__":
    main()
