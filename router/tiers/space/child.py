"""One call of one Gradio endpoint, in a process of its own: the only door to gradio_client.

A process, because the client has threads that outlive a cancelled call, holds the interpreter at its exit while a
server is frozen, and raises what `except Exception` does not see. Its parent may kill it at any moment and nothing is
left; when its parent ends, the kernel kills it.

The first line of standard input is what to call, as JSON: nothing of it is in the command line or the environment.
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

from router.tiers.space.api_prefix import ElsewhereError, prefix_in

_LOOK_EVERY_S = 0.02
_WAITING_EVERY_S = 2.0
_MOST_MEMORY_BYTES = 2 * 1024**3
_MOST_MESSAGE = 2000


class _Parent:
    """Whoever started this process, on the pipe that was standard output."""

    def __init__(self, pipe: TextIO) -> None:
        self._pipe = pipe

    def tell(self, kind: str, **said: Any) -> None:
        self._pipe.write(json.dumps({"kind": kind, **said}, allow_nan=False) + "\n")
        self._pipe.flush()

    def tell_failed(self, error: BaseException, status: int | None) -> None:
        self.tell(
            "failed",
            kinds=[parent.__name__ for parent in type(error).__mro__],
            title=str(getattr(error, "title", "")),
            message=str(error)[:_MOST_MESSAGE],
            status=status,
        )


class _Client(Client):  # type: ignore[misc]
    """Stays at the address that it was given: every request carries the token and the key."""

    def _get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super()._get_config()
        there = urlsplit(urljoin(self.src, f"{prefix_in(config)}/"))
        asked = urlsplit(self.src)
        if (there.scheme, there.netloc) != (asked.scheme, asked.netloc):
            raise ElsewhereError
        return config


def main() -> None:
    parent = _Parent(_take_standard_output())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    asked: dict[str, Any] = json.loads(sys.stdin.buffer.readline() or b"{}")
    try:
        if asked:
            _call(asked, parent)
    except BaseException as error:
        parent.tell_failed(error, _status(error, asked))
    finally:
        os._exit(0)  # not the interpreter's way out: it would wait for the client's threads


def _take_standard_output() -> TextIO:
    """The pipe to the parent; what libraries print goes nowhere."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return pipe


def _call(asked: dict[str, Any], parent: _Parent) -> None:
    client = _Client(
        asked["url"],
        token=asked["token"] or False,  # None would fetch one that this machine's user has saved
        headers=asked["headers"],
        verbose=False,
        download_files=False,
        analytics_enabled=False,
        httpx_kwargs={"timeout": _timeout(asked), "trust_env": False},
    )
    if asked["as_given"]:
        for endpoint in client.endpoints.values():
            # The file is at the Space already; the client would look for it on this machine.
            endpoint.process_input_files = lambda *data: data
    job = client.submit(*asked["arguments"], api_name=asked["api_name"])
    told, told_s = 0, 0.0
    while True:
        done, values = job.done(), job.outputs()
        for value in values[told:]:
            parent.tell("value", value=value)
        if len(values) == told and not told and time.monotonic() - told_s >= _WAITING_EVERY_S:
            parent.tell("waiting")
            told_s = time.monotonic()
        told = len(values)
        if done:
            break
        time.sleep(_LOOK_EVERY_S)
    parent.tell("result", value=job.result())


def _timeout(asked: dict[str, Any]) -> httpx.Timeout:
    return httpx.Timeout(asked["read_s"], connect=asked["connect_s"])


def _status(error: BaseException, asked: dict[str, Any]) -> int | None:
    """The HTTP status behind an error; the client keeps that of its first request to itself, so that one is asked."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code
    if type(error) is not ValueError or not str(error).startswith("Could not"):
        return None
    try:
        answer = httpx.get(f"{asked['url'].rstrip('/')}/config", timeout=_timeout(asked), trust_env=False)
    except httpx.HTTPError:
        return None
    return answer.status_code


if __name__ == "__main__":
    main()
