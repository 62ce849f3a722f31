"""Read the TOML settings file, apply overrides and hand out frozen dataclasses.

Order of precedence, weakest first: built-in defaults, the TOML file, environment
variables, command-line ``--set`` pairs. An environment override names the section and
the key with double underscores, so ``QUERN__LEASES__TTL=2m`` replaces ``[leases] ttl``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path

from quern.errors import BadDuration, ConfigMissing, UnknownKey

ENV_PREFIX = "QUERN__"
_DURATION = re.compile(r"(?P<amount>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class LeaseSettings:
    """How long a claimed job belongs to one worker."""

    ttl: timedelta = timedelta(seconds=90)
    grace: timedelta = timedelta(seconds=5)


@dataclass(frozen=True)
class StorageSettings:
    """Where the jobs live. ``pool_size`` counts connections per process, not per host."""

    dsn: str = "postgresql:///quern"
    pool_size: int = 12
    pool_wait: timedelta = timedelta(seconds=4)
    statement_timeout: timedelta = timedelta(seconds=20)


@dataclass(frozen=True)
class DispatchSettings:
    """The loop that claims work and the manner in which it stops."""

    concurrency: int = 16
    batch: int = 25
    idle_sleep: timedelta = timedelta(milliseconds=750)
    shutdown_grace: timedelta = timedelta(seconds=45)


@dataclass(frozen=True)
class RetentionSettings:
    """When rows may be thrown away."""

    finished: timedelta = timedelta(days=7)
    dead: timedelta = timedelta(days=30)


@dataclass(frozen=True)
class Settings:
    """Everything a process needs to start."""

    leases: LeaseSettings = field(default_factory=LeaseSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    queues: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def parse_duration(text: str) -> timedelta:
    """Turn ``1h30m`` or ``250ms`` into a timedelta.

    A bare number is refused on purpose: in version 1 ``ttl = 90`` meant minutes in one
    section and seconds in another, and two outages came of it.
    """
    position, total = 0, 0.0
    while position < len(text):
        match = _DURATION.match(text, position)
        if match is None:
            raise BadDuration(text)
        total += float(match["amount"]) * _SECONDS[match["unit"]]
        position = match.end()
    if not text:
        raise BadDuration(text)
    return timedelta(seconds=total)


def _section(cls: type, values: Mapping[str, object], where: str) -> object:
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UnknownKey(f"{where}.{unknown[0]}", known=sorted(known))
    defaults = cls()
    ready = {}
    for name, value in values.items():
        wants = type(getattr(defaults, name))
        ready[name] = parse_duration(str(value)) if wants is timedelta else wants(value)
    return cls(**ready)


def env_overrides(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Collect ``QUERN__SECTION__KEY`` variables into nested dictionaries, lower-cased."""
    found: dict[str, dict[str, str]] = {}
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX):
            section, _, key = name[len(ENV_PREFIX) :].lower().partition("__")
            found.setdefault(section, {})[key] = value
    return found


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read ``path`` and lay the environment over it; a typo in a key stops the start."""
    if not path.exists():
        raise ConfigMissing(path)
    raw = tomllib.loads(path.read_text("utf-8"))
    for section, pairs in env_overrides(environ).items():
        raw.setdefault(section, {}).update(pairs)
    parts = {"leases": LeaseSettings, "storage": StorageSettings, "dispatch": DispatchSettings,
             "retention": RetentionSettings}
    built = {name: _section(cls, raw.get(name, {}), name) for name, cls in parts.items()}
    return Settings(**built, queues=raw.get("queues", {}))
