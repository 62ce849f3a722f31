"""A wish to stop, by Ctrl-C or SIGTERM, that waits for the end of a step: weights are never saved half updated."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """While the block runs, the first SIGINT or SIGTERM sets `asked`; a second one ends the program at once.

    A SIGINT that the parent ignores (a shell's background job) stays ignored; SIGTERM is heard anyway. Outside of the
    main thread, where no signal arrives, nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None) or number == signal.SIGTERM:
                    self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as `signal` calls it
        if self.asked:
            raise SystemExit(128 + number)
        self.asked = True
