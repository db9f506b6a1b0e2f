"""The table of checks that `router privacy selfcheck` runs on an installation, by the names that the register uses.

Each yields findings: what was looked at, whether it holds (None: it can't be told from here, and the cure says how to),
and the cure. None changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from router.privacy.finding import Finding, Installation
from router.privacy.machine_checks import core_dumps, permissions, sandbox, storage
from router.privacy.network_checks import headers, sockets, tls
from router.privacy.packages import dependencies
from router.privacy.service_checks import (
    contact,
    current_policy,
    named_tiers,
    recent_log,
    renderers,
    strangers_sign_in,
)

CHECKS: dict[str, Callable[[Installation], Iterator[Finding]]] = {
    "storage": storage,
    "permissions": permissions,
    "core dumps": core_dumps,
    "log": recent_log,
    "sockets": sockets,
    "TLS": tls,
    "headers": headers,
    "sign-in": strangers_sign_in,
    "tiers": named_tiers,
    "policy": current_policy,
    "contact": contact,
    "sandbox": sandbox,
    "renderers": renderers,
    "dependencies": dependencies,
}
