"""Runs in the rendering process: replaces `mastering.fit.descend` by one that asks the Space's server for it.

The process that parses an untrusted file has neither a network nor a GPU. It asks over the socket that it already has:
{"ask": "descend"} with the request in a memory file; the answers are {"tick": fraction} …, {"found"} with the result.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mastering_space import gpu_descent

if TYPE_CHECKING:
    from mastering.fit import Descent
    from mastering.worker.child import Link


def delegate_descents(link: Link) -> None:
    """From here on `mastering.fit.descend` asks the server at the other end of `link`."""
    try:
        from mastering import fit
    except ImportError:  # no torch, or one that does not load: `refine` meets the same, and its report says so
        return

    def descend(model: Any, start: Any, bounds: Any, goal: Any, weights: Any, **rest: Any) -> Descent:
        tick = rest.pop("tick")
        memory = os.memfd_create("request", os.MFD_CLOEXEC)
        os.write(memory, gpu_descent.pack_request(model, start, bounds, goal, weights, **rest))
        link.tell({"ask": "descend"}, (memory,))
        os.close(memory)
        while (answer := link.listen()) is not None:
            message, descriptors = answer
            if descriptors:
                found = os.pread(descriptors[0], os.fstat(descriptors[0]).st_size, 0)
                os.close(descriptors[0])
                return gpu_descent.unpack_result(found)
            tick(message["tick"])
        raise BrokenPipeError

    fit.descend = descend
