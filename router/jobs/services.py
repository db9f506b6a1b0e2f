"""The collaborators of one running router in one record: joined by `router.app`, handed to what works on jobs."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from router.core.clock import Clock, MachineClock
from router.core.settings import RouterSettings
from router.identity.port import Accounts
from router.identity.sign_in import SignIn
from router.probe.port import AudioProbe
from router.spool.port import Blobs
from router.store.port import JobEvents, Jobs, JobStep, Owner, Queue, Versioned, change_until_stored
from router.store.record import Job
from router.tiers.fleet.fleet import Fleet


class Services(NamedTuple):
    """Job store, queue, spool, probe, fleet and accounts of one router. None of them builds another."""

    settings: RouterSettings
    jobs: Jobs
    queue: Queue
    events: JobEvents
    spool: Blobs
    probe: AudioProbe
    fleet: Fleet
    accounts: Accounts
    secret: bytes
    """Random bytes of this boot, in RAM only: ids and login values derived from it can't be guessed from outside."""
    owner: Owner
    """This router's name and the id of this process: who holds its leases."""
    sign_in: SignIn | None = None
    """The OpenID provider with its sessions; None on a router without sign-in, where every request is the guest's."""
    clock: Clock = MachineClock()
    """Of the times in jobs' records and in sessions."""

    @property
    def offers_managed_only(self) -> bool:
        """Whether an account may ask for our own workers only.

        False where the router itself runs as a Hugging Face Space: every song passes through Hugging Face by nature.
        """
        return self.settings.profile != "space"

    def is_ours(self, job: Job) -> bool:
        """Whether this router has the job's audio and works on it. A job of another router is left to that one."""
        return job.owner == self.owner.router

    def tiers_version(self) -> str:
        """A name for the present list of tiers, operators and regions, to which a consent is bound.

        Another tier, operator or region makes another name, so that a consent never covers a list it was not given for.
        """
        found = {(one.backend.tier, *one.terms.consent_key) for one in self.fleet.members()}
        digest = hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()[:12]
        return f"{'+'.join(sorted({tier for tier, *_ in found}))}-{digest}"

    async def change(self, job_id: str, step: JobStep) -> Job:
        """Apply `step` to the job's record by compare-and-set and notify listeners. Raises JobMissing."""
        return (await self.change_versioned(job_id, step)).job

    async def change_versioned(self, job_id: str, step: JobStep) -> Versioned:
        """As `change`, with the record's revision. Raises JobMissing."""
        return await change_until_stored(self.jobs, self.events, job_id, step)
