"""From the catalogue to backends, and again whenever the file changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from router.core.command_error import CommandError
from router.core.event_log import log, log_exception
from router.tiers.fleet.catalogue import CatalogueEntry, read
from router.tiers.fleet.fleet import ConfiguredBackend, Fleet
from router.tiers.port import Backend

LOOK_EVERY_S = 2.0
_Stamp = tuple[int, int, int] | None


class CatalogueWatcher:
    """Who is in the fleet by the settings and the catalogue. `connect` makes a backend of an entry, or complains."""

    def __init__(
        self, catalogue: Path | None, fixed: tuple[CatalogueEntry, ...], connect: Callable[[CatalogueEntry], Backend]
    ) -> None:
        self._catalogue, self._fixed, self._connect = catalogue, fixed, connect
        self._known: dict[CatalogueEntry, Backend] = {}
        self._seen: _Stamp = None
        self._asked = asyncio.Event()

    def configured(self) -> dict[str, ConfiguredBackend]:
        """Every backend with its terms; one whose entry is as before stays the same object. Raises Complaint."""
        self._seen = self._stamp()
        entries = (*self._fixed, *(read(self._catalogue) if self._catalogue else ()))
        names = [entry.name for entry in entries]
        for name in names:
            if names.count(name) > 1:
                raise CommandError(f"the catalogue has a backend {name!r}, and so has ROUTER_WORKERS.", exit_code=2)
        known = {entry: self._known.get(entry) or self._connect(entry) for entry in entries}
        self._known = known
        return {entry.name: ConfiguredBackend(backend, entry.terms) for entry, backend in known.items()}

    def look_again(self) -> None:
        """Read the catalogue now, changed or not."""
        self._asked.set()

    async def follow(self, fleet: Fleet) -> None:
        """Keep the fleet as the catalogue says, for ever. A catalogue with a mistake changes nothing but is shown."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._asked.wait()
            except TimeoutError:
                if self._stamp() == self._seen:
                    continue
            self._asked.clear()
            await self._reload(fleet)

    async def _reload(self, fleet: Fleet) -> None:
        try:
            await fleet.replace(self.configured())
            fleet.catalogue_error = None
            log("catalogue", ok=True, backends=len(self._known))
        except CommandError as command_error:
            fleet.catalogue_error = str(command_error)
            log("catalogue", ok=False, backends=len(self._known))
        except Exception as error:
            # The fleet goes on as it is; the next change of the file is another chance.
            log_exception(error)

    def _stamp(self) -> _Stamp:
        """What changes when the file is written or replaced; None while it can't be seen."""
        if self._catalogue is None:
            return None
        try:
            found = self._catalogue.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
