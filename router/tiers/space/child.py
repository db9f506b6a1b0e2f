"""The program of a child process that calls one Gradio endpoint once: the only module that imports gradio_client.

A process, because the client has threads that outlive a cancelled call, holds the interpreter at its exit while a
server is frozen, and raises what `except Exception` does not catch. Its parent may kill it at any moment and nothing is
left; when its parent ends, the kernel kills it.

The first line of standard input is the call, as JSON: nothing of it is in the command line or the environment.
Standard output is one JSON object a line:
``waiting`` (not begun), ``value`` (what the endpoint yielded), then ``result`` or ``failed`` as the last.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any, TextIO
from urllib.parse import urljoin, urlsplit

import httpx
from gradio_client import Client

from router.tiers.space.api_prefix import ForeignHostError, api_prefix_of

_POLL_EVERY_S = 0.02
"""Between two looks for new values: the client has no way to wait for one."""
_WAITING_EVERY_S = 2.0
"""Between two messages that nothing has been yielded yet."""
_MAX_MEMORY_BYTES = 2 * 1024**3
"""Of address space: what a Space answers must not exhaust the router's machine."""
_MAX_MESSAGE_CHARS = 2000


class _Parent:
    """Writes messages to the process that started this one, by the pipe that was standard output."""

    def __init__(self, pipe: TextIO) -> None:
        self._pipe = pipe

    def send(self, kind: str, **fields: Any) -> None:
        self._pipe.write(json.dumps({"kind": kind, **fields}, allow_nan=False) + "\n")
        self._pipe.flush()

    def send_failure(self, error: BaseException, status: int | None) -> None:
        self.send(
            "failed",
            kinds=[parent.__name__ for parent in type(error).__mro__],
            title=str(getattr(error, "title", "")),
            message=str(error)[:_MAX_MESSAGE_CHARS],
            status=status,
        )


class _PinnedClient(Client):  # type: ignore[misc]
    """Refuses a configuration that leads to another host: every request carries the token and the key."""

    def _get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super()._get_config()
        target = urlsplit(urljoin(self.src, f"{api_prefix_of(config)}/"))
        source = urlsplit(self.src)
        if (target.scheme, target.netloc) != (source.scheme, source.netloc):
            raise ForeignHostError
        return config


def main() -> None:
    """Read the call from standard input, make it, and end the process."""
    parent = _Parent(_take_standard_output())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    call: dict[str, Any] = json.loads(sys.stdin.buffer.readline() or b"{}")
    try:
        if call:
            _call(call, parent)
    except BaseException as error:
        parent.send_failure(error, _status(error, call))
    finally:
        os._exit(0)  # the interpreter's own exit would wait for the client's threads


def _take_standard_output() -> TextIO:
    """Take the pipe to the parent from standard output; what libraries print is discarded."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    discard = os.open(os.devnull, os.O_WRONLY)
    os.dup2(discard, 1)
    os.dup2(discard, 2)
    return pipe


def _call(call: dict[str, Any], parent: _Parent) -> None:
    client = _PinnedClient(
        call["url"],
        token=call["token"] or False,  # None would fetch one that this machine's user has saved
        headers=call["headers"],
        verbose=False,
        download_files=False,
        analytics_enabled=False,
        httpx_kwargs={"timeout": _timeout(call), "trust_env": False},
    )
    if call["as_given"]:
        for endpoint in client.endpoints.values():
            # The file is at the Space already; the client would look for it on this machine.
            endpoint.process_input_files = lambda *data: data
    job = client.submit(*call["arguments"], api_name=call["api_name"])
    sent, waiting_sent_s = 0, 0.0
    while True:
        done, values = job.done(), job.outputs()
        for value in values[sent:]:
            parent.send("value", value=value)
        if not values and time.monotonic() - waiting_sent_s >= _WAITING_EVERY_S:
            parent.send("waiting")
            waiting_sent_s = time.monotonic()
        sent = len(values)
        if done:
            break
        time.sleep(_POLL_EVERY_S)
    parent.send("result", value=job.result())


def _timeout(call: dict[str, Any]) -> httpx.Timeout:
    return httpx.Timeout(call["read_s"], connect=call["connect_s"])


def _status(error: BaseException, call: dict[str, Any]) -> int | None:
    """The HTTP status behind an error. The client does not tell that of its first request, so that is sent again."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code
    if type(error) is not ValueError or not str(error).startswith("Could not"):
        return None
    try:
        answer = httpx.get(f"{call['url'].rstrip('/')}/config", timeout=_timeout(call), trust_env=False)
    except httpx.HTTPError:
        return None
    return answer.status_code


if __name__ == "__main__":
    main()
