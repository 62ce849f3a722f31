"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tiny import tiny_encoder

# Read by torch and FAISS when they load: on models and indexes this small, threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real encoder directory of a few hundred kilobytes; see tests/tiny.py. Copy it before changing it."""
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive():
    """A shell that starts the tests in the background lets them ignore Ctrl-C, and some of them are about it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
