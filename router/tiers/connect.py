"""Makes a backend of each entry of the settings and the catalogue: the only module that knows every kind of tier."""

from __future__ import annotations

from functools import partial

from pydantic import ValidationError

from mastering.protocol.signing import Signer, client_tls
from router.core.command_error import CommandError
from router.core.settings import RouterSettings
from router.tiers.fleet.catalogue import CatalogueEntry
from router.tiers.fleet.reload import CatalogueWatcher
from router.tiers.port import Backend
from router.tiers.worker.backend import WorkerBackend


def catalogue_watcher_of(settings: RouterSettings) -> CatalogueWatcher:
    """The watcher of the catalogue, with the settings' worker addresses as fixed entries. Raises CommandError."""
    fixed = tuple(_worker_entry(n, url) for n, url in enumerate(settings.workers, 1))
    return CatalogueWatcher(settings.catalogue, fixed, partial(connect, settings))


def connect(settings: RouterSettings, entry: CatalogueEntry) -> Backend:
    """Make the adapter of a catalogue's entry. Raises CommandError."""
    if settings.regions and entry.region not in settings.regions:
        raise CommandError(
            f"backend {entry.name!r}: its region {entry.region!r} is not among ROUTER_REGIONS.", exit_code=2
        )
    if entry.url is None or entry.effective_protocol != "worker":
        return _connect_space(settings, entry)
    secret, authority = settings.worker_secret, settings.worker_authority
    try:
        signer = Signer(settings.worker_key_id, secret.get_secret_value().encode()) if secret else None
        tls = client_tls(str(authority)) if authority else None
    except (ValueError, OSError):
        message = (
            "worker_secret needs 32 bytes or more (openssl rand -hex 32), worker_authority a file of certificates."
        )
        raise CommandError(message, exit_code=2) from None
    return WorkerBackend(entry.name, entry.url, tier=entry.tier, signer=signer, tls=tls)


def _connect_space(settings: RouterSettings, entry: CatalogueEntry) -> Backend:
    # Imported here: the Hub's library takes a third of a second that a router without Spaces need not wait.
    from router.tiers.space.address import SpaceAddress
    from router.tiers.space.backend import SpaceBackend
    from router.tiers.space.gradio_backend import GradioBackend
    from router.tiers.space.hub import Hub
    from router.tiers.space.stage import StageWatch

    token = settings.hf_token.get_secret_value() if settings.hf_token else None
    watch = StageWatch(Hub(token), entry.space) if entry.space else None
    # The Hub may see the token; a Space, which its owner runs, only where the catalogue says so.
    address = SpaceAddress(entry.url, watch, token if entry.token else None)
    ram = settings.ram_dir / "spaces"
    if entry.effective_protocol == "gradio":
        return GradioBackend(entry.name, entry.tier, address, ram, endpoint=entry.endpoint, returns=entry.returns)
    key = settings.space_key.get_secret_value() if settings.space_key else None
    return SpaceBackend(entry.name, entry.tier, address, ram, key)


def _worker_entry(number: int, url: str) -> CatalogueEntry:
    try:
        return CatalogueEntry(name=f"worker-{number}", tier="managed", url=url)
    except ValidationError as error:
        what = error.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise CommandError(f"worker {number}: {what}.", exit_code=2) from None
