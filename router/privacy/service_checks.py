"""Checks of what the service says and whom it serves: log, sign-in, named tiers, privacy policy, contact."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx

from router.core import event_log
from router.core.command_error import CommandError
from router.core.settings import refuse_strangers
from router.privacy.finding import Finding, Installation
from router.privacy.network_checks import TIMEOUT_S
from router.tiers.connect import catalogue_watcher_of
from router.tiers.fleet.reload import CatalogueWatcher
from router.web import routes
from router.web.pages import privacy_policy

_DAY_S = 86_400


def recent_log(where: Installation) -> Iterator[Finding]:
    """The log holds no line that is older than it may be, and none whose fields are not on the allow-list."""
    folder = where.settings.log_dir
    if folder is None:
        yield Finding(
            "log lines go after seven days",
            None,
            "the log goes to standard error and its keeper decides: set ROUTER_LOG_DIR, or journald's"
            " MaxRetentionSec=7day",
        )
        return
    oldest = time.time() - (event_log.DAYS_KEPT * _DAY_S + 3600)
    late = [path for path in folder.glob("router-*.jsonl") if path.stat().st_mtime < oldest]
    yield Finding("log lines go after seven days", not late, "start the router, which removes what is too old")
    event_log.learn_routes(routes.templates())
    lines = (line for path in folder.glob("router-*.jsonl") for line in path.read_text("utf-8").splitlines())
    bad = sum(not _is_allowed(line) for line in lines)
    yield Finding("every line of the log is on the list", bad == 0, f"{bad} lines are not: remove them")


def _is_allowed(line: str) -> bool:
    try:
        fields = json.loads(line)
        kinds = event_log.book.events[fields["event"]]
    except (ValueError, KeyError, TypeError):
        return False
    return all(name in ("minute", "event") or (name in kinds and kinds[name].admits(fields[name])) for name in fields)


def strangers_sign_in(where: Installation) -> Iterator[Finding]:
    """A router without sign-in serves loopback alone."""
    try:
        if not where.settings.has_sign_in:
            refuse_strangers(where.settings.host)
    except CommandError as command_error:
        yield Finding("strangers need to sign in", False, str(command_error))
    else:
        yield Finding("strangers need to sign in", True)


def named_tiers(where: Installation) -> Iterator[Finding]:
    """Every backend outside has a region's label, and the privacy policy names every tier in use."""
    try:
        catalogue_watcher: CatalogueWatcher = catalogue_watcher_of(where.settings)
        configured = catalogue_watcher.configured()
    except CommandError as command_error:
        yield Finding("every backend can be named", False, str(command_error))
        return
    outside = {name: entry for name, entry in configured.items() if entry.backend.tier != "managed"}
    unnamed = [name for name, entry in outside.items() if entry.terms.region == "here"]
    yield Finding("every place outside has a region's label", not unnamed, f"set region for {', '.join(unnamed)}")
    if where.url is not None:
        with httpx.Client(base_url=where.url, timeout=TIMEOUT_S, trust_env=False) as http:
            named = {place["tier"] for place in http.get("/privacy.json").json()["tiers"]}
        missing = {entry.backend.tier for entry in configured.values()} - named
        yield Finding("privacy.json names every tier", not missing, "restart the router: it has another catalogue")


def renderers(where: Installation) -> Iterator[Finding]:
    """What renders songs on each tier is kept from the network, other processes and files, by its own trial."""
    if where.url is None:
        yield Finding("renderers are kept from all but their song", None, "start the router: its workers tell it")
        return
    with httpx.Client(base_url=where.url, timeout=TIMEOUT_S, trust_env=False) as http:
        tiers = http.get("/v1/health").json()["tiers"]
    cure = "see the operators' page for what is missing; it takes Landlock (Linux 5.13), seccomp and libseccomp there"
    for tier in tiers:
        holds = {"whole": True, "incomplete": False}.get(tier["sandbox"])
        why = cure if holds is False else "no backend of it has said so yet"
        yield Finding(f"renderers of {tier['title']} are kept from all but their song", holds, "" if holds else why)


def current_policy(_: Installation) -> Iterator[Finding]:
    """The newest edition of the privacy policy is of what this code does."""
    current = privacy_policy.editions()[-1]
    cure = "this build says something else than its date: run 'make docs' and release it"
    yield Finding(
        f"the policy of {current.date} is what the code does", current.digest == privacy_policy.digest(), cure
    )


def contact(where: Installation) -> Iterator[Finding]:
    """People can find an address to write to."""
    if where.settings.contact is not None:
        yield Finding("there is somebody to write to", True)
        return
    served_alone = where.settings.public_url is None and where.settings.profile == "standalone"
    cure = "set ROUTER_CONTACT to a mailto: or https: address; without it there is no security.txt"
    yield Finding("there is somebody to write to", None if served_alone else False, cure)
