"""Signed requests: who gets in, and who does not."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest

from mastering.protocol import signing
from mastering.protocol.signing import (
    CLOCK_SKEW,
    MAX_AGE,
    SignatureRefused,
    SignatureVerifier,
    Signer,
    checked_url,
    client_tls,
    is_loopback,
)

SECRET = b"a secret that is long enough to be one"
URL = "https://worker.example/v1/renders?a=1"
HEADERS = {"mastering-slot": "slot-1", "content-type": "application/x"}


@pytest.fixture
def verifier() -> SignatureVerifier:
    return SignatureVerifier({"router": SECRET})


@pytest.fixture
def signer() -> Signer:
    return Signer("router", SECRET)


def test_a_signed_request_is_admitted_with_the_signers_keys(verifier: SignatureVerifier, signer: Signer) -> None:
    signed = signer.sign("POST", URL, HEADERS)
    assert verifier.verify("POST", URL, signed.headers, 0.0) == signed.keys


def test_every_exchange_and_each_direction_has_a_key_of_its_own(signer: Signer) -> None:
    first, second = signer.sign("POST", URL, HEADERS).keys, signer.sign("POST", URL, HEADERS).keys
    assert len({first.request, first.response, second.request, second.response}) == 4


def test_behind_a_proxy_the_scheme_may_be_another(verifier: SignatureVerifier, signer: Signer) -> None:
    signed = signer.sign("POST", URL, HEADERS)
    assert verifier.verify("POST", URL.replace("https", "http"), signed.headers, 0.0) == signed.keys


@pytest.mark.parametrize(
    ("method", "url", "changed"),
    [
        ("GET", URL, {}),
        ("POST", "https://worker.example/v1/slots?a=1", {}),
        ("POST", "https://worker.example/v1/renders?a=2", {}),
        ("POST", "https://other.example/v1/renders?a=1", {}),
        ("POST", URL, {"mastering-slot": "slot-2"}),
        ("POST", URL, {"content-type": "application/y"}),
    ],
)
def test_a_request_that_was_changed_is_refused(
    verifier: SignatureVerifier, signer: Signer, method: str, url: str, changed: dict[str, str]
) -> None:
    signed = signer.sign("POST", URL, HEADERS)
    with pytest.raises(SignatureRefused):
        verifier.verify(method, url, {**signed.headers, **changed}, 0.0)


def test_a_slot_that_was_added_after_signing_is_refused(verifier: SignatureVerifier, signer: Signer) -> None:
    signed = signer.sign("POST", URL, {})
    with pytest.raises(SignatureRefused):
        verifier.verify("POST", URL, {**signed.headers, "mastering-slot": "slot-1"}, 0.0)


@pytest.mark.parametrize(
    "headers", [{}, {"Signature": "x"}, {"Signature-Input": "mastering=()", "Signature": "mastering=::"}]
)
def test_a_request_without_a_signature_is_refused(verifier: SignatureVerifier, headers: dict[str, str]) -> None:
    with pytest.raises(SignatureRefused):
        verifier.verify("POST", URL, headers, 0.0)


def test_another_key_or_an_unknown_one_is_refused(verifier: SignatureVerifier) -> None:
    for stranger in (Signer("router", SECRET[::-1]), Signer("somebody", SECRET)):
        with pytest.raises(SignatureRefused):
            verifier.verify("POST", URL, stranger.sign("POST", URL, HEADERS).headers, 0.0)


def test_two_keys_are_known_while_one_replaces_the_other() -> None:
    verifier = SignatureVerifier({"old": SECRET, "new": SECRET[::-1]})
    for signer in (Signer("old", SECRET), Signer("new", SECRET[::-1])):
        signed = signer.sign("POST", URL, HEADERS)
        assert verifier.verify("POST", URL, signed.headers, 0.0) == signed.keys


@pytest.mark.parametrize("off", [MAX_AGE + CLOCK_SKEW + timedelta(seconds=2), -(CLOCK_SKEW + timedelta(seconds=2))])
def test_a_request_of_another_time_is_refused(verifier: SignatureVerifier, signer: Signer, off: timedelta) -> None:
    signed = signer.sign("POST", URL, HEADERS, datetime.now(UTC) - off)
    with pytest.raises(SignatureRefused):
        verifier.verify("POST", URL, signed.headers, 0.0)


def test_clocks_may_differ_by_the_skew(verifier: SignatureVerifier, signer: Signer) -> None:
    for off in (CLOCK_SKEW, -CLOCK_SKEW):
        signed = signer.sign("POST", URL, HEADERS, datetime.now(UTC) + off * 0.9)
        assert verifier.verify("POST", URL, signed.headers, 0.0) == signed.keys


def test_a_request_is_admitted_once_for_as_long_as_its_signature_holds(
    verifier: SignatureVerifier, signer: Signer
) -> None:
    signed = signer.sign("POST", URL, HEADERS)
    verifier.verify("POST", URL, signed.headers, 0.0)
    for moment in (0.0, 1.0, (MAX_AGE + 2 * CLOCK_SKEW).total_seconds() - 0.1):
        with pytest.raises(SignatureRefused, match="sent before"):
            verifier.verify("POST", URL, signed.headers, moment)


def test_the_record_of_nonces_is_bounded_and_forgets(
    verifier: SignatureVerifier, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "MAX_NONCES", 3)
    for at in range(3):
        verifier.verify("POST", URL, signer.sign("POST", URL, HEADERS).headers, float(at))
    with pytest.raises(SignatureRefused, match="Too many"):
        verifier.verify("POST", URL, signer.sign("POST", URL, HEADERS).headers, 3.0)
    later = 3.0 + (MAX_AGE + 2 * CLOCK_SKEW).total_seconds()
    verifier.verify("POST", URL, signer.sign("POST", URL, HEADERS).headers, later)
    assert len(verifier._seen) == 1


def test_a_stranger_cannot_fill_the_record(verifier: SignatureVerifier) -> None:
    stranger = Signer("router", SECRET[::-1])
    for _ in range(5):
        with pytest.raises(SignatureRefused):
            verifier.verify("POST", URL, stranger.sign("POST", URL, HEADERS).headers, 0.0)
    assert verifier._seen == {}


def test_without_keys_all_are_admitted_and_nothing_is_sealed() -> None:
    assert SignatureVerifier({}).verify("POST", URL, {}, 0.0) == signing.Keys(None, None)


def test_a_short_secret_is_refused_on_both_sides() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        Signer("router", b"short")
    with pytest.raises(ValueError, match="at least 32"):
        SignatureVerifier({"router": b"short"})


@pytest.mark.parametrize(
    "url", ["https://worker.example", "http://127.0.0.1:8101", "http://[::1]:8101", "http://localhost"]
)
def test_an_address_that_keeps_its_bytes_to_itself_is_accepted(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["http://worker.example", "http://10.0.0.1:8101", "http://127.0.0.1.example", "ftp://127.0.0.1", "worker", ""],
)
def test_plain_http_to_another_machine_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        checked_url(url)


def test_only_this_machine_is_loopback() -> None:
    assert [host for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost") if not is_loopback(host)] == []
    assert [host for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", "") if is_loopback(host)] == []  # noqa: S104


def test_the_callers_tls_is_1_3_and_checks_names() -> None:
    context = client_tls()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
