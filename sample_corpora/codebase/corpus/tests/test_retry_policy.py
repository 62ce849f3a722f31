"""Behaviour of the delays and verdicts that production depends on."""

import random
from datetime import timedelta

import pytest

from quern.errors import HandlerMissing
from quern.models import Job
from quern.retry import PermanentError, RetryPolicy, should_retry


def job(attempts: int) -> Job:
    return Job(id="j1", queue="mail", kind="mail.send", payload={}, attempts=attempts)


def test_delay_never_exceeds_the_cap():
    policy, rng = RetryPolicy(), random.Random(3)
    delay = None
    for _ in range(200):
        delay = policy.next_delay(delay, rng)
        assert policy.base <= delay <= policy.cap


def test_two_jobs_do_not_come_back_together():
    policy, rng = RetryPolicy(), random.Random(11)
    drawn = {policy.next_delay(timedelta(seconds=30), rng) for _ in range(50)}
    assert len(drawn) == 50


@pytest.mark.parametrize(("attempts", "expected"), [(0, True), (6, True), (7, False)])
def test_the_eighth_failure_is_the_last(attempts, expected):
    assert should_retry(job(attempts), TimeoutError()) is expected


def test_missing_handler_is_free_of_charge():
    # A rolling deployment must not burn the attempts of jobs that only new nodes can run.
    assert should_retry(job(99), HandlerMissing("invoice.render"))


def test_permanent_error_skips_the_remaining_attempts():
    assert not should_retry(job(0), PermanentError("account closed"))
