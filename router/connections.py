"""A caller's connection: uvicorn's HTTP/1.1 by httptools, with an end to how long a request's head may be."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""httptools itself knows no limit and gathers a header for as long as it comes."""


class Connection(HttpToolsProtocol):
    _owes_head = True
    _head_bytes = 0

    def on_message_begin(self) -> None:
        self._owes_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._owes_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Counted after parsing: what came with the head's end may be a body of any size.
        self._head_bytes += len(data)
        if self._owes_head and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()
