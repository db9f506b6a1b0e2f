"""A store whose every call waits before and after it has taken effect, as one beyond a network does.

Held to the same conformance suites as the store within it: who calls a store may not rely on its answering at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

from router.store.port import Store

Pause = Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_store(
    inner: AbstractAsyncContextManager[Store], seed: int = 0, longest_s: float = 0.001
) -> AsyncIterator[Store]:
    """The store that `inner` opens, slowed: each wait is up to `longest_s`, by `seed`; 0 only lets others run."""
    chance = random.Random(seed)  # noqa: S311 — no secret

    async def pause() -> None:
        await asyncio.sleep(chance.uniform(0, longest_s))

    async with inner as store:
        await pause()
        yield Store(*(_Waiting(port, pause) for port in store))
        await pause()


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
