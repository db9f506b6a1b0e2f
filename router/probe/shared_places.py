"""Places for work that goes on at once, shared out by account: one account's slow files keep nobody else waiting.

No account has more than its share, so that a place is left for whoever comes next. Those that wait have their turns
account by account, however many files each of them has sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class SharedPlaces:
    """`places` of them, of which one account has at most `share`. To be used on one event loop."""

    def __init__(self, places: int, share: int) -> None:
        self._free, self._share = places, share
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By account, in the order of their turns."""

    @contextmanager
    def one_if_free(self, account: str) -> Iterator[bool]:
        """A place for the block, without waiting: whether there was one."""
        is_taken = self._may_take(account)
        if is_taken:
            self._take(account)
        try:
            yield is_taken
        finally:
            if is_taken:
                self._give_back(account)

    @asynccontextmanager
    async def one(self, account: str) -> AsyncIterator[None]:
        """A place for the block, waited for."""
        if self._may_take(account):
            self._take(account)
        else:
            await self._turn(account)
        try:
            yield
        finally:
            self._give_back(account)

    async def _turn(self, account: str) -> None:
        """Return with a place that was taken for `account` by whoever gave it back."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had its turn in the same moment
                self._give_back(account)
            raise

    def _may_take(self, account: str) -> bool:
        return self._free > 0 and self._taken[account] < self._share

    def _take(self, account: str) -> None:
        self._free -= 1
        self._taken[account] += 1

    def _give_back(self, account: str) -> None:
        self._free += 1
        self._taken[account] -= 1
        if not self._taken[account]:
            del self._taken[account]
        while (following := next(filter(self._may_take, self._waiting), None)) is not None:
            turns = self._waiting.pop(following)
            turn = turns.popleft()
            if turns:
                self._waiting[following] = turns  # behind the other accounts
            if not turn.cancelled():
                self._take(following)
                turn.set_result(None)
