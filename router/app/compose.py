"""Joins the parts: the only module that builds the router's services and hands them to each other."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import typer

from mastering.contract import Fault
from router.app import startup
from router.core.clock import Clock, MachineClock
from router.core.event_log import log, log_exception
from router.core.settings import RouterSettings
from router.dispatch import prewarm
from router.dispatch.dispatcher import Dispatcher
from router.identity import pseudonyms
from router.identity.accounts import open_accounts
from router.identity.port import Accounts
from router.identity.sessions import open_sessions
from router.identity.sign_in import SignIn
from router.jobs import reaper, recovery
from router.jobs.services import Services
from router.probe.client import Probe
from router.spool import boot_id
from router.spool.disk import Spool
from router.store.embedded import sqlite
from router.store.port import Owner
from router.store.record import THIS_ROUTER, new_id
from router.tiers.connect import catalogue_watcher_of
from router.tiers.fleet.fleet import ConfiguredBackend, Fleet
from router.tiers.fleet.modes import Mode
from router.tiers.fleet.reload import CatalogueWatcher
from router.tiers.port import Backend


@asynccontextmanager
async def open_services(settings: RouterSettings, backends: Sequence[Backend] | None = None) -> AsyncIterator[Services]:
    """Build the services, recover the jobs that a dead router left, work until the context ends.

    Raises CommandError for a start that cannot be."""
    startup.prepare_router(settings)
    catalogue_watcher = catalogue_watcher_of(settings)
    configured = (
        [ConfiguredBackend(backend) for backend in backends]
        if backends is not None
        else [*catalogue_watcher.configured().values()]
    )
    async with AsyncExitStack() as cleanup:
        cleanup.enter_context(startup.lock_folder(settings.ram_dir, "RAM"))
        cleanup.enter_context(startup.lock_folder(settings.spool_dir, "spool"))
        startup.check_ram(settings)
        wiped = boot_id.wipe_if_new(settings.ram_dir, settings.spool_dir)
        store = await cleanup.enter_async_context(
            sqlite.open_store(
                settings.ram_dir / "jobs.sqlite",
                max_queued=settings.max_queued_per_account,
                max_running=settings.max_running_per_account,
            )
        )
        spool = Spool(settings.spool_dir, settings.ram_dir / "keys", settings.spool_quota_bytes)
        probe = Probe(
            concurrency=settings.probes,
            max_bytes=settings.max_bytes,
            max_duration_s=settings.max_duration_s,
            allows_incomplete_sandbox=settings.allow_incomplete_sandbox,
        )
        accounts = await cleanup.enter_async_context(
            open_accounts(settings.state_dir, [settings.ram_dir / "accounts.expected"])
        )
        fleet = Fleet(configured, modes=_Modes(accounts, await accounts.backend_modes()))
        secret = startup.boot_secret(settings.ram_dir)
        service_clock = MachineClock()
        sign_in = await _sign_in(settings, accounts, service_clock, cleanup)
        owner = Owner(THIS_ROUTER, new_id())
        services = Services(
            settings,
            store.jobs,
            store.queue,
            store.events,
            spool,
            probe,
            fleet,
            accounts,
            secret,
            owner,
            sign_in,
            service_clock,
        )
        resumed = await recovery.recover(services)
        log("started", tiers=len({entry.backend.tier for entry in configured}), resumed=resumed, wiped=int(wiped))
        async with _running(services, probe, catalogue_watcher if backends is None else None):
            yield services
    log("stopped")


async def _sign_in(
    settings: RouterSettings, accounts: Accounts, clock: Clock, cleanup: AsyncExitStack
) -> SignIn | None:
    """Sign-in with the provider, if the operator has credentials for it, until `cleanup`. Raises CommandError."""
    if settings.oidc_client_id is None or settings.oidc_client_secret is None:
        return None
    # Here, for Authlib takes a quarter of a second that a router without sign-in need not wait.
    from router.identity.oidc import Provider

    secret = settings.oidc_client_secret.get_secret_value()
    provider = Provider(settings.oidc_issuer, settings.oidc_client_id, secret, settings.redirect_uri)
    pepper = settings.pepper.get_secret_value() if settings.pepper is not None else None
    known = pseudonyms.load_peppers(settings.state_dir, pepper)
    if not await accounts.expect_peppers(known.fingerprints()):
        typer.echo(
            "Warning: a pepper of the accounts is lost: every job is managed only. See 'router doctor'.", err=True
        )
    sessions = await cleanup.enter_async_context(open_sessions(settings.ram_dir / "sessions.sqlite", clock))
    await sessions.end_retired(known.versions)
    return SignIn(settings.origin, provider, known, sessions)


@asynccontextmanager
async def _running(services: Services, probe: Probe, catalogue_watcher: CatalogueWatcher | None) -> AsyncIterator[None]:
    """Dispatch jobs and do what is done again and again beside, while the context is open."""
    dispatcher = Dispatcher(services)
    await services.fleet.start()
    background = [
        # The probe's process starts meanwhile: its first request waits for it, and nothing else has to.
        asyncio.create_task(_warm(probe)),
        asyncio.create_task(reaper.expire_forever(services)),
        asyncio.create_task(recovery.probe_interrupted(services)),
        asyncio.create_task(reaper.probe_stuck_forever(services)),
        asyncio.create_task(reaper.end_unsent_forever(services)),
        asyncio.create_task(prewarm.run_prewarm(services)),
    ]
    if catalogue_watcher is not None:
        background.append(asyncio.create_task(catalogue_watcher.watch(services.fleet)))
        _on_hangup(catalogue_watcher.request_reload)
    await dispatcher.start()
    try:
        yield
    finally:
        await dispatcher.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await services.fleet.close()
        await probe.close()


async def _warm(probe: Probe) -> None:
    """Start the probe's process. Where that fails, the first file that is probed starts it again."""
    try:
        await probe.start()
    except Fault as fault:
        log_exception(fault)
    if probe.sandbox_gaps:
        log("sandbox_incomplete", gaps=probe.sandbox_gaps)


class _Modes:
    """The modes that operators gave backends (draining, maintenance), kept in the durable store."""

    def __init__(self, accounts: Accounts, known: Mapping[str, str]) -> None:
        self._accounts = accounts
        self._known = {name: Mode(mode) for name, mode in known.items()}

    def load(self) -> Mapping[str, Mode]:
        return self._known

    async def save(self, name: str, mode: Mode) -> None:
        self._known[name] = mode
        await self._accounts.set_backend_mode(name, None if mode is Mode.READY else mode.value)


def _on_hangup(call: Callable[[], None]) -> None:
    """Call it on SIGHUP, where this loop can handle signals: only the main thread's can."""
    with suppress(NotImplementedError, RuntimeError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, call)
