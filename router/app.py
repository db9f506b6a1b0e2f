"""Where the parts are joined: the only module that builds the house's rooms and hands them to each other."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import typer
from fastapi import FastAPI
from pydantic import ValidationError

from mastering.contract import Fault
from mastering.signing import Signer, client_tls
from router import prewarm, reaper
from router.accounts import Accounts
from router.complaint import Complaint
from router.dispatch import Dispatcher
from router.house import House
from router.identity import peppers
from router.identity.door import Door
from router.identity.provider import Provider
from router.identity.sessions import Sessions
from router.jobs import local
from router.logs import learn_routes, log, log_exception
from router.probing import Probe
from router.settings import Settings, is_loopback
from router.spool import incarnation, ram
from router.spool.disk import Spool
from router.tiers.catalogue import Entry
from router.tiers.fleet import Fleet, Member
from router.tiers.modes import Mode
from router.tiers.port import Backend
from router.tiers.roster import Roster
from router.tiers.worker import WorkerBackend
from router.web import (
    access,
    account,
    credentials,
    entrance,
    handbook,
    headers,
    jobs,
    limits,
    outputs,
    pages,
    privacy,
    problems,
    references,
    tus,
    uploads,
)
from router.web.streams import Streams

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def make_app(
    settings: Settings,
    backends: Sequence[Backend] | None = None,
    beside: Callable[[], AbstractAsyncContextManager[None]] = _nothing,
    within: Callable[[House], AbstractAsyncContextManager[None]] = lambda _: _nothing(),
) -> FastAPI:
    """The router as an ASGI application, with what runs `beside` it, and `within` it once its house is open.

    `backends` stand in for those of the settings.
    """
    if not settings.has_sign_in:
        refuse_strangers(settings.host)
        refuse_strangers(settings.public_url)
    refuse_strangers(settings.admin_host)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        rooms = open_house(settings, backends)
        app.state.uploads = {}
        app.state.streams = Streams(settings.streams_per_account)
        try:
            async with beside(), rooms as app.state.house, within(app.state.house):
                yield
        except Complaint as complaint:
            app.state.complaint = complaint  # for whoever started the server: it ends without saying why
            raise
        except Exception as error:
            log_exception(error)
            app.state.complaint = Complaint("the start failed on a fault of our own; the log names the place.")
            raise

    app = FastAPI(
        title="Mastering router",
        version="1",
        summary="Takes a song, hands back a master, forgets the rest.",
        docs_url=None,
        redoc_url=None,
        responses=problems.ANYWHERE,
        lifespan=lifespan,
    )
    problems.install(app)
    parts = [
        part.router
        for part in (
            jobs, uploads, references, tus, outputs, account, credentials, entrance, pages, privacy, handbook,
        )
    ]  # fmt: skip
    for part in parts:
        app.include_router(part)
    app.add_middleware(limits.Limits, settings=settings)
    app.add_middleware(headers.Guard, site=site_of(settings))
    learn_routes(access.templates(app.router, *parts))
    app.add_middleware(access.AccessLog)
    return app


def site_of(settings: Settings) -> headers.Site:
    """Where people find this router."""
    origin = settings.origin if settings.public_url else None
    return headers.Site(LOOPBACK_NAMES | {settings.host}, origin, framed=settings.profile == "space")


@asynccontextmanager
async def open_house(settings: Settings, backends: Sequence[Backend] | None = None) -> AsyncIterator[House]:
    """Build the rooms, recover what a dead router left, work until the context ends. Raises Complaint."""
    os.umask(0o077)
    roster = roster_of(settings)
    members = [Member(backend) for backend in backends] if backends is not None else [*roster.members().values()]
    with _sole_owner(settings.ram_dir, "RAM"), _sole_owner(settings.spool_dir, "spool"):
        _check_ram(settings)
        wiped = incarnation.wipe_if_new(settings.ram_dir, settings.spool_dir)
        store = local.open_store(
            settings.ram_dir / "jobs.sqlite",
            max_queued=settings.max_queued_per_account,
            max_running=settings.max_running_per_account,
        )
        spool = Spool(settings.spool_dir, settings.ram_dir / "keys", settings.spool_quota_bytes)
        probe = Probe(concurrency=settings.probes, max_bytes=settings.max_bytes, max_duration_s=settings.max_duration_s)
        accounts = Accounts(settings.state_dir, [settings.ram_dir / "accounts.expected"])
        fleet = Fleet(members, modes=_Modes(accounts))
        secret = _boot_secret(settings.ram_dir)
        door = _door(settings, accounts)
        house = House(settings, store.jobs, store.queue, store.events, spool, probe, fleet, accounts, secret, door)
        resumed = await reaper.recover(house)
        log("started", tiers=len({member.backend.tier for member in members}), resumed=resumed, wiped=int(wiped))
        try:
            async with _at_work(house, roster if backends is None else None):
                yield house
        finally:
            store.close()
            accounts.close()
            if door is not None:
                door.sessions.close()
        log("stopped")


def _door(settings: Settings, accounts: Accounts) -> Door | None:
    """Where people sign in, if the operator has credentials for it. Raises Complaint."""
    if settings.oidc_client_id is None or settings.oidc_client_secret is None:
        return None
    secret = settings.oidc_client_secret.get_secret_value()
    provider = Provider(settings.oidc_issuer, settings.oidc_client_id, secret, settings.redirect_uri)
    pepper = settings.pepper.get_secret_value() if settings.pepper is not None else None
    known = peppers.load(settings.state_dir, pepper)
    if not accounts.expect_peppers(known.fingerprints()):
        typer.echo(
            "Warning: a pepper of the accounts is lost: every job is managed only. See 'router doctor'.", err=True
        )
    sessions = Sessions(settings.ram_dir / "sessions.sqlite")
    sessions.keep_only(known.versions)
    return Door(settings.origin, provider, known, sessions)


@asynccontextmanager
async def _at_work(house: House, roster: Roster | None) -> AsyncIterator[None]:
    dispatcher = Dispatcher(house)
    await house.fleet.start()
    background = [
        # The probe warms up beside: its first question waits for it, and nothing else needs to.
        asyncio.create_task(_warm(house.probe)),
        asyncio.create_task(reaper.reap_for_ever(house)),
        asyncio.create_task(reaper.probe_interrupted(house)),
        asyncio.create_task(reaper.admit_forgotten_for_ever(house)),
        asyncio.create_task(reaper.end_unsent_for_ever(house)),
        asyncio.create_task(prewarm.wake_for_ever(house)),
    ]
    if roster is not None:
        background.append(asyncio.create_task(roster.follow(house.fleet)))
        _on_hangup(roster.look_again)
    await dispatcher.start()
    try:
        yield
    finally:
        await dispatcher.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await house.fleet.close()
        await house.probe.close()


async def _warm(probe: Probe) -> None:
    try:
        await probe.start()
    except Fault as fault:
        log_exception(fault)  # asked for again with the first file


class _Modes:
    """What operators said, in the durable store."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def load(self) -> dict[str, Mode]:
        return {name: Mode(mode) for name, mode in self._accounts.backend_modes().items()}

    def save(self, name: str, mode: Mode) -> None:
        self._accounts.set_backend_mode(name, None if mode is Mode.READY else mode.value)


def roster_of(settings: Settings) -> Roster:
    """The backends of the settings' worker addresses and of the catalogue."""
    fixed = tuple(_entry(n, url) for n, url in enumerate(settings.workers, 1))
    return Roster(settings.catalogue, fixed, partial(connect, settings))


def connect(settings: Settings, entry: Entry) -> Backend:
    """A backend of a catalogue's entry. Raises Complaint."""
    if settings.regions and entry.region not in settings.regions:
        raise Complaint(
            f"backend {entry.name!r}: its region {entry.region!r} is not among ROUTER_REGIONS.", exit_code=2
        )
    if entry.url is None or entry.speaks != "worker":
        return _connect_space(settings, entry)
    secret, authority = settings.worker_secret, settings.worker_authority
    try:
        signer = Signer(settings.worker_key_id, secret.get_secret_value().encode()) if secret else None
        tls = client_tls(str(authority)) if authority else None
    except (ValueError, OSError):
        sentence = (
            "worker_secret needs 32 bytes or more (openssl rand -hex 32), worker_authority a file of certificates."
        )
        raise Complaint(sentence, exit_code=2) from None
    return WorkerBackend(entry.name, entry.url, tier=entry.tier, signer=signer, tls=tls)


def _connect_space(settings: Settings, entry: Entry) -> Backend:
    # Here, for the Hub's library takes a third of a second that a router without Spaces need not wait.
    from router.hub import Hub
    from router.tiers.space import SpaceBackend
    from router.tiers.space_plain import PlainBackend
    from router.tiers.space_stage import StageWatch
    from router.tiers.space_where import Where

    token = settings.hf_token.get_secret_value() if settings.hf_token else None
    watch = StageWatch(Hub(token), entry.space) if entry.space else None
    # The Hub may see the token; whoever runs a Space only where the catalogue says so.
    where = Where(entry.url, watch, token if entry.token else None)
    ram = settings.ram_dir / "spaces"
    if entry.speaks == "gradio":
        return PlainBackend(entry.name, entry.tier, where, ram, endpoint=entry.endpoint, returns=entry.returns)
    key = settings.space_key.get_secret_value() if settings.space_key else None
    return SpaceBackend(entry.name, entry.tier, where, ram, key)


def _entry(number: int, url: str) -> Entry:
    try:
        return Entry(name=f"worker-{number}", tier="managed", url=url)
    except ValidationError as error:
        what = error.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise Complaint(f"worker {number}: {what}.", exit_code=2) from None


def _on_hangup(call: Callable[[], None]) -> None:
    """On SIGHUP, where this loop may hear signals (it is the main thread's)."""
    with suppress(NotImplementedError, RuntimeError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, call)


def refuse_strangers(host: str | None) -> None:
    """Without sign-in the router listens on loopback only, and no proxy brings people. Raises Complaint."""
    if host is None or is_loopback(urlsplit(host).hostname or host):
        return
    raise Complaint(
        f"Without sign-in this router serves this machine only, not {host}."
        " Listen on 127.0.0.1, or set up sign-in first: 'router doctor' says how."
    )


@contextmanager
def _sole_owner(folder: Path, kind: str) -> Iterator[None]:
    """One router per folder: two would give the same job to two workers and wipe each other. Raises Complaint."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Complaint(
            f"Another router uses the same {kind} folder. Stop it, or give this one its own ROUTER_RAM_DIR and"
            " ROUTER_SPOOL_DIR."
        ) from None
    finally:
        os.close(fd)


def _check_ram(settings: Settings) -> None:
    """Refuse, or warn, when keys could reach a disk. Raises Complaint."""
    finding = ram.check(settings.ram_dir)
    if finding is None:
        return
    sentence = f"{settings.ram_dir} is no safe place for keys: {finding.wrong}. {finding.cure}"
    if settings.ram_check == "refuse":
        raise Complaint(f"{sentence} To go on all the same: ROUTER_RAM_CHECK=warn.")
    typer.echo(f"Warning: {sentence}", err=True)


def _boot_secret(ram_dir: Path) -> bytes:
    path, part = ram_dir / "secret", ram_dir / "secret.part"
    if not path.exists():
        part.write_bytes(secrets.token_bytes(32))
        part.replace(path)  # whole or not at all, whenever a kill comes
    return path.read_bytes()
