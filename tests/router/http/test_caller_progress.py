"""How long a connection has waited for its caller, by the kernel's counts."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from router.http.caller_progress import KEEPS_UP, CallerProgress

LEAST_BYTES_PER_S = 10_000


class _Transport:
    """As much of a transport as is asked for."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def get_extra_info(self, _: str) -> socket.socket:
        return self._socket


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end of a connection and the caller's, which takes little before it is read."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_304)
        caller.connect(listening.getsockname())
        ours, _ = listening.accept()
        with ours:
            ours.setblocking(False)
            yield ours, caller


def test_who_takes_nothing_is_waited_for_until_all_of_it_is_taken(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, caller = ends
    progress = CallerProgress(_Transport(ours), LEAST_BYTES_PER_S)
    assert progress.look(0, is_more_to_come=False) == KEEPS_UP
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += ours.send(bytes(65_536))
    assert progress.look(0, is_more_to_come=False) == KEEPS_UP, "nothing was there to take at the look before"
    time.sleep(0.3)
    waited = progress.look(0, is_more_to_come=False)
    assert waited.is_for_reading
    assert 0.3 <= waited.seconds < 5
    assert progress.look(0, is_more_to_come=False).seconds > waited.seconds
    while sent:
        sent -= len(caller.recv(65_536))
    assert progress.look(0, is_more_to_come=False) == KEEPS_UP


def test_who_reads_at_the_least_rate_keeps_up_however_much_is_left(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, caller = ends
    progress = CallerProgress(_Transport(ours), LEAST_BYTES_PER_S)
    with suppress(BlockingIOError):
        while True:
            ours.send(bytes(65_536))
    progress.look(1_000_000, is_more_to_come=False)
    for _ in range(3):
        time.sleep(0.2)
        taken = 0
        while taken < 8 * LEAST_BYTES_PER_S:
            taken += len(caller.recv(65_536))
        assert progress.look(1_000_000, is_more_to_come=False) == KEEPS_UP


def test_who_is_to_send_is_waited_for_and_not_for_what_we_have_not_read(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, caller = ends
    progress = CallerProgress(_Transport(ours), LEAST_BYTES_PER_S)
    time.sleep(0.1)
    waited = progress.look(0, is_more_to_come=True)
    assert not waited.is_for_reading
    assert waited.seconds >= 0.1
    assert progress.look(0, is_more_to_come=False) == KEEPS_UP
    caller.sendall(b"a")
    time.sleep(0.1)
    assert progress.look(0, is_more_to_come=True) == KEEPS_UP
    ours.recv(10)
    time.sleep(0.1)
    assert progress.look(0, is_more_to_come=True).seconds >= 0.1
    progress.begin()
    assert progress.look(0, is_more_to_come=True).seconds < 0.1


def test_a_reset_is_seen_and_an_end_is_none(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, caller = ends
    progress = CallerProgress(_Transport(ours), LEAST_BYTES_PER_S)
    caller.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    assert not progress.is_reset
    caller.close()
    ours.send(b"a")
    time.sleep(0.05)
    assert progress.is_reset
