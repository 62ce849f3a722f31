"""Mapping stages over batches in threads."""

from __future__ import annotations

import threading
import time

import pytest

from ragindex.executor import LocalExecutor


def test_results_keep_the_order_of_the_batches():
    def stage(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * 10

    assert list(LocalExecutor().map(stage, range(20), workers=4)) == [number * 10 for number in range(20)]
    assert list(LocalExecutor().map(stage, [])) == []


def test_no_more_batches_are_taken_than_fit():
    taken: list[int] = []

    def source():
        for number in range(100):
            taken.append(number)
            yield number

    results = LocalExecutor().map(str, source(), workers=2, ahead=3)
    next(results)
    assert len(taken) <= 5
    results.close()


def test_error_of_a_stage_reaches_the_caller_and_cancels_the_rest():
    cancelled = threading.Event()

    def stage(number: int) -> int:
        if number == 3:
            raise ValueError(number)
        return number

    results = LocalExecutor().map(stage, range(1000), cancel=cancelled.set)
    with pytest.raises(ValueError, match="3"):
        list(results)
    assert cancelled.is_set()


def test_closing_cancels_work_under_way_and_waits_for_it():
    begun, stop, ended = threading.Event(), threading.Event(), threading.Event()

    def stage(number: int) -> int:
        if number:
            begun.set()
            stop.wait(timeout=60)
            ended.set()
        return number

    results = LocalExecutor().map(stage, range(50), workers=1, ahead=1, cancel=stop.set)
    assert next(results) == 0
    assert begun.wait(timeout=60)
    results.close()
    assert ended.is_set()


def test_cancel_is_not_called_after_a_complete_run():
    cancelled = threading.Event()
    assert list(LocalExecutor().map(str, range(3), cancel=cancelled.set)) == ["0", "1", "2"]
    assert not cancelled.is_set()


def test_closing_a_chain_closes_its_source():
    closed = threading.Event()
    inner = LocalExecutor().map(int, range(100), cancel=closed.set)
    outer = LocalExecutor().map(str, inner)
    next(outer)
    outer.close()
    assert closed.is_set()
