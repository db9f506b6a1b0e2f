"""Stores whose every call waits before and after it has taken effect, as those beyond a network do.

Held to the same conformance suites as the stores within them: who calls one may not rely on its answering at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any, TypeVar, cast

from router.store.port import Store

Port = TypeVar("Port")
Pause = Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_store(inner: AbstractAsyncContextManager[Store], longest_s: float = 0.001) -> AsyncIterator[Store]:
    """The job store that `inner` opens, slowed: each wait is up to `longest_s`; 0 only lets others run."""
    pause = _pauses(longest_s)
    async with inner as store:
        await pause()
        yield Store(*(_Waiting(port, pause) for port in store))
        await pause()


def slowed(port: Port) -> Port:
    """The same port, each of its asynchronous calls slowed."""
    return cast("Port", _Waiting(port, _pauses(0.001)))


def _pauses(longest_s: float) -> Pause:
    """Waits of up to `longest_s`, the same in each run."""
    chance = random.Random(0)

    async def pause() -> None:
        await asyncio.sleep(chance.uniform(0, longest_s))

    return pause


class _Waiting:
    """A port, or a lease, whose asynchronous calls wait."""

    def __init__(self, inner: Any, pause: Pause) -> None:
        self._inner, self._pause = inner, pause

    def __getattr__(self, name: str) -> Any:
        found, pause = getattr(self._inner, name), self._pause

        async def call(*given: Any, **more: Any) -> Any:
            await pause()
            answer = await found(*given, **more)
            await pause()
            return _Waiting(answer, pause) if name == "lease" and answer is not None else answer

        async def each(*given: Any, **more: Any) -> AsyncIterator[Any]:
            async for one in found(*given, **more):
                await pause()
                yield one

        if isasyncgenfunction(found):
            return each
        return call if iscoroutinefunction(found) else found
