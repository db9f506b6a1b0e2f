"""Repeats a call that failed for a passing reason, after growing waits with jitter. The only module to import stamina.

For calls that may be made twice without harm, and failures that another try may cure: a connection that broke, a server
that has a fault. An answer that refuses (4xx) stays an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import wraps
from typing import ParamSpec, TypeVar

import stamina
from stamina.instrumentation import set_on_retry_hooks

P = ParamSpec("P")
R = TypeVar("R")

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
"""Seconds between two tries at most: what restarts within seconds is noticed soon after."""


def attempts(
    is_transient: Callable[[Exception], bool], *, tries: int, progress: Callable[[], object] = lambda: None
) -> Iterator[AbstractContextManager[object]]:
    """Context managers in which to try the same block, until it ends without a transient error.

        for attempt in attempts(is_broken_connection, tries=5):
            with attempt:
                call()

    The block's error is raised when it is not transient or after `tries` in a row without progress: whenever the value
    of `progress()` has changed since the first of them, they are counted anew.
    """
    # By itself stamina logs every retry with the call's arguments, which may be secrets or names.
    set_on_retry_hooks(())
    while True:
        is_stuck = _without_progress(is_transient, progress)
        try:
            yield from stamina.retry_context(
                on=is_stuck,
                attempts=tries,
                timeout=None,
                wait_initial=FIRST_WAIT_S,
                wait_max=LONGEST_WAIT_S,
                wait_jitter=FIRST_WAIT_S,
            )
        except Exception as error:
            if not is_transient(error) or is_stuck(error):
                raise
        else:
            return


def _without_progress(
    is_transient: Callable[[Exception], bool], progress: Callable[[], object]
) -> Callable[[Exception], bool]:
    """Whether a transient error came before any progress since now."""
    before = progress()
    return lambda error: is_transient(error) and progress() == before


def retried(is_transient: Callable[[Exception], bool], *, tries: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator that tries each call of a function again as `attempts` does."""

    def decorate(call: Callable[P, R]) -> Callable[P, R]:
        @wraps(call)
        def repeated(*args: P.args, **kwargs: P.kwargs) -> R:
            for attempt in attempts(is_transient, tries=tries):
                with attempt:
                    return call(*args, **kwargs)
            raise AssertionError("unreachable: the last attempt returns or raises")

        return repeated

    return decorate
