"""Quern: a small job queue and scheduler that keeps its state in PostgreSQL."""

from quern.models import Job, JobState
from quern.retry import RetryPolicy

__version__ = "2.6.1"

__all__ = ["Job", "JobState", "RetryPolicy", "__version__"]
