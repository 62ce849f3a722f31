"""The ``quernctl`` command.

``quernctl serve`` runs a node; everything else is for operators. Commands that change more
than one job ask for confirmation unless ``--yes`` is given, and all of them take
``--output json`` for scripts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from quern.config import load_settings, parse_duration
from quern.deadletter import group_by_error, purge, revive
from quern.errors import QuernError
from quern.storage import JobStore

EXIT_USAGE = 64
EXIT_CONFIG = 78


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quernctl", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("/etc/quern/quern.toml"))
    parser.add_argument("--output", choices=["text", "json"], default="text")
    commands = parser.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", help="run a node")
    serve.add_argument("--queues", nargs="+", required=True)
    serve.add_argument("--no-scheduler", action="store_true", help="never stand for leader")

    queue = commands.add_parser("queue", help="pause, resume or inspect a queue")
    queue.add_argument("action", choices=["pause", "resume", "stats"])
    queue.add_argument("name")
    queue.add_argument("--reason", help="shown in stats; required for pause")

    dead = commands.add_parser("dead", help="work with dead letters")
    dead.add_argument("action", choices=["summary", "list", "revive", "purge"])
    dead.add_argument("--queue")
    dead.add_argument("--match", help="only errors that contain this text")
    dead.add_argument("--older-than", type=parse_duration)
    dead.add_argument("--limit", type=int, default=1000)
    dead.add_argument("--yes", action="store_true")

    commands.add_parser("check-config", help="read the settings, print the result, touch nothing")
    migrate = commands.add_parser("migrate", help="bring the schema to the version of this build")
    migrate.add_argument("--dry-run", action="store_true", help="print the SQL instead")
    return parser


def confirm(question: str, *, assume_yes: bool) -> bool:
    """Ask on a terminal; without one, silence means no."""
    if assume_yes:
        return True
    return sys.stdin.isatty() and input(f"{question} [y/N] ").strip().lower() == "y"


def run_dead(args: argparse.Namespace, store: JobStore) -> dict[str, object]:
    """Serve ``quernctl dead ...``."""
    jobs = store.dead(queue=args.queue, match=args.match, limit=args.limit)
    if args.action == "summary":
        return {"groups": group_by_error(jobs)}
    if args.action == "revive":
        if not confirm(f"revive {len(jobs)} jobs?", assume_yes=args.yes):
            return {"revived": 0}
        return {"revived": len(list(revive(store, jobs)))}
    if args.action == "purge":
        return {"purged": purge(store, older_than=args.older_than)}
    return {"jobs": [job.id for job in jobs]}


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        settings = load_settings(args.config, os.environ)
        store = JobStore(settings.storage)
        store.check_schema()
        result = run_dead(args, store) if args.command == "dead" else {"command": args.command}
    except QuernError as exc:
        print(f"{exc.code} {exc}", file=sys.stderr)
        return EXIT_CONFIG if exc.code.startswith("QRN-1") else 1
    print(json.dumps(result) if args.output == "json" else result)
    return 0
