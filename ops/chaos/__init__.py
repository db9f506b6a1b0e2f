"""Chaos: jobs through a real router, three real workers and both Spaces, while all of them break by a schedule.

`schedule` says by a seed what happens, without doing it; `songs` makes what is sent; `proxy` stands between the router
and each backend, breaks connections and records which song went where; `faults` does to processes, disk and clock what
the schedule says; `client` is who sends a song; `verdict` counts by the schedule and the clients' and proxies' records,
never by the router's word; `rounds` lets them all run.
"""
