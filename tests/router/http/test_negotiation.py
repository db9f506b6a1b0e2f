"""What a caller prefers: weights, case, wildcards, several lines of one header."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from router.http.negotiation import combined, prefers_events, takes_gzip


def _headers(name: str, *lines: str) -> Headers:
    return Headers(raw=[(name.encode(), line.encode()) for line in lines])


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (["text/event-stream"], True),
        (["Text/Event-Stream"], True),
        (["text/event-stream; charset=utf-8"], True),
        (["application/json", "text/event-stream"], True),
        (["application/json;q=0.9, text/event-stream"], True),
        (["text/event-stream, */*"], True),
        (["text/event-stream;q=0.001"], True),
        (["text/event-stream;q=0.1, application/json;q=0.9"], False),
        (["text/event-stream; Q=0.5, application/*"], False),
        (["text/event-stream;q=0.5, */*"], False),
        (["text/event-stream;q=0"], False),
        (["text/event-stream;q=0.000, text/html"], False),
        (["text/event-stream;q=2"], False),
        (["text/event-streams, x-text/event-stream"], False),
        (["*/*"], False),
        (["text/*"], False),
        ([""], False),
        ([], False),
        ([",;,=;q"], False),
    ],
)
def test_events_are_for_who_names_them_and_wants_json_no_more(accept: list[str], expected: bool) -> None:
    assert prefers_events(_headers("accept", *accept)) is expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        (["gzip, deflate, br"], True),
        (["GZIP"], True),
        (["x-gzip"], True),
        (["br", "gzip"], True),
        (["*"], True),
        (["gzip;q=0.5, identity;q=0.1"], True),
        (["gzip;q=0"], False),
        (["gzip;q=0, *"], False),
        (["*;q=0"], False),
        (["gzip;q=0.5, identity"], False),
        (["gzipped"], False),
        (["identity"], False),
        ([""], False),
        ([], False),
    ],
)
def test_gzip_is_for_who_allows_it_and_wants_it_no_less_than_nothing(
    accept_encoding: list[str], expected: bool
) -> None:
    assert takes_gzip(_headers("accept-encoding", *accept_encoding)) is expected


def test_the_lines_of_a_header_are_one_list() -> None:
    assert combined(_headers("if-none-match", '"a"', '"b"'), "if-none-match") == '"a", "b"'
    assert combined(_headers("accept"), "if-none-match") == ""
