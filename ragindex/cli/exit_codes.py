"""What the exit status of a command means; 0 is done."""

__all__ = ["ERROR", "FAILED_FILES", "INTERRUPTED", "NO_HIT", "PIPE_CLOSED"]

NO_HIT = 1  # `query`, as `grep` does
ERROR = 2  # a wrong request, or anything that went wrong; also a check that found something
FAILED_FILES = 3  # `index` finished, but some files could not be indexed
INTERRUPTED = 130  # 128 + SIGINT, as shells count
PIPE_CLOSED = 141  # 128 + SIGPIPE: the reader of the results went away
