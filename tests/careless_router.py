"""A router that never destroys what a job leaves: the control of the kill tests, which must find what lies there.

Started like the real one: `python -m tests.careless_router serve …`.
"""

from __future__ import annotations

from router.cli.main import main
from router.jobs import lifecycle


async def _keep(*_: object, **__: object) -> None:
    """In the place of what destroys keys and files."""


lifecycle._destroy = _keep

if __name__ == "__main__":
    main()
