"""Makes the fleet's backends of the catalogue, and again whenever that file changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from router.core.command_error import CommandError
from router.core.event_log import log, log_exception
from router.tiers.fleet.catalogue import CatalogueEntry, read_catalogue
from router.tiers.fleet.fleet import ConfiguredBackend, Fleet
from router.tiers.port import Backend

CHECK_EVERY_S = 2.0
"""Between two checks of the file, each one `stat`: an operator sees a saved change take effect at once."""
_Stamp = tuple[int, int, int] | None
"""Modification time in ns, size in bytes and inode of the file."""


class CatalogueWatcher:
    """Keeps the fleet to `fixed`, the entries of the settings, and the catalogue's.

    `connect` makes a backend of an entry, or raises CommandError.
    """

    def __init__(
        self, catalogue: Path | None, fixed: tuple[CatalogueEntry, ...], connect: Callable[[CatalogueEntry], Backend]
    ) -> None:
        self._catalogue, self._fixed, self._connect = catalogue, fixed, connect
        self._known: dict[CatalogueEntry, Backend] = {}
        self._read_stamp: _Stamp = None
        self._is_requested = asyncio.Event()

    def configured(self) -> dict[str, ConfiguredBackend]:
        """Every backend with its terms; one whose entry is as before stays the same object. Raises CommandError."""
        self._read_stamp = self._stamp()
        entries = (*self._fixed, *(read_catalogue(self._catalogue) if self._catalogue else ()))
        names = [entry.name for entry in entries]
        for name in names:
            if names.count(name) > 1:
                raise CommandError(f"the catalogue has a backend {name!r}, and so has ROUTER_WORKERS.", exit_code=2)
        known = {entry: self._known.get(entry) or self._connect(entry) for entry in entries}
        self._known = known
        return {entry.name: ConfiguredBackend(backend, entry.terms) for entry, backend in known.items()}

    def request_reload(self) -> None:
        """Have the catalogue read now, changed or not."""
        self._is_requested.set()

    async def watch(self, fleet: Fleet) -> None:
        """Reload whenever the file changes, for ever. A faulty catalogue changes nothing; operators are shown why."""
        while True:
            try:
                async with asyncio.timeout(CHECK_EVERY_S):
                    await self._is_requested.wait()
            except TimeoutError:
                if self._stamp() == self._read_stamp:
                    continue
            self._is_requested.clear()
            await self._reload(fleet)

    async def _reload(self, fleet: Fleet) -> None:
        try:
            configured = self.configured()
            fleet.catalogue_error = None  # from here on it is not the catalogue that can be wrong
            await fleet.replace(configured)
            log("catalogue", ok=True, backends=len(self._known))
        except CommandError as command_error:
            fleet.catalogue_error = str(command_error)
            log("catalogue", ok=False, backends=len(self._known))
        except Exception as error:
            # The fleet goes on as it is; the next change of the file is another chance.
            log_exception(error)

    def _stamp(self) -> _Stamp:
        """What changes when the file is written or replaced; None while it can't be read."""
        if self._catalogue is None:
            return None
        try:
            found = self._catalogue.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
