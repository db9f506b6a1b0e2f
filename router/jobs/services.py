"""The rooms of one running router, as `app` joined them: handed to every part that works on jobs."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from router.core.settings import RouterSettings
from router.identity.accounts import Accounts
from router.identity.sign_in import SignIn
from router.probe.client import Probe
from router.spool.disk import Spool
from router.store.port import Events, Jobs, JobStep, Queue, Versioned, change_until_stored
from router.store.record import Job
from router.tiers.fleet.fleet import Fleet


class Services(NamedTuple):
    settings: RouterSettings
    jobs: Jobs
    queue: Queue
    events: Events
    spool: Spool
    probe: Probe
    fleet: Fleet
    accounts: Accounts
    secret: bytes
    """Of this boot, in RAM: what is derived from it can't be guessed from outside."""
    door: SignIn | None = None
    """Where people sign in; without one whoever asks is the guest."""

    @property
    def offers_managed_only(self) -> bool:
        """Where the router itself runs as a Space, every song passes through Hugging Face by nature."""
        return self.settings.profile != "space"

    def tiers_version(self) -> str:
        """Names the list of places that people agree to; another tier, operator or region is another version."""
        found = {(one.backend.tier, *one.terms.of_the_place) for one in self.fleet.members()}
        digest = hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()[:12]
        return f"{'+'.join(sorted({tier for tier, *_ in found}))}-{digest}"

    async def change(self, job_id: str, step: JobStep) -> Job:
        """Apply `step` to the job's record by compare-and-set and tell whoever listens (`jobs.ports`)."""
        return (await self.change_versioned(job_id, step)).job

    async def change_versioned(self, job_id: str, step: JobStep) -> Versioned:
        return await change_until_stored(self.jobs, self.events, job_id, step)
