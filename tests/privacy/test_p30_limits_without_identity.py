"""P30: rate limits know no address: keyed slots in RAM, another key at each start, ten minutes at most."""

from __future__ import annotations

import gc
from ipaddress import ip_address
from pathlib import Path

from limits.aio.storage import MemoryStorage

from router.http import rate_limit
from router.http.rate_limit import NetworkSlots
from tests.served import served

ADDRESS = "203.0.113.77"


def test_a_network_counts_elsewhere_after_a_restart() -> None:
    assert len({NetworkSlots().of(ip_address(ADDRESS)) for _ in range(20)}) > 15


def test_no_window_is_longer_than_ten_minutes() -> None:
    sources = Path(rate_limit.__file__).read_text()
    assert sources.count("RateLimitItemPer") == sources.count("RateLimitItemPerMinute")


async def test_nothing_kept_holds_an_address(tmp_path: Path) -> None:
    async with served(tmp_path, forwarded_by=["127.0.0.0/8"]) as router:
        for _ in range(3):
            await router.http.post("/v1/jobs", headers={"x-forwarded-for": ADDRESS})
        storages = [one for one in gc.get_objects() if type(one) is MemoryStorage and one.storage]
        assert storages
        kept = repr([(one.storage, one.expirations, one.events) for one in storages])
        assert ADDRESS not in kept
        assert "203.0.113" not in kept
    assert ADDRESS.encode() not in b"".join(_files(tmp_path))


def _files(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
