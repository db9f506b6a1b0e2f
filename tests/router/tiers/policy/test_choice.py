"""Choosing a backend: tier order against an independent oracle, the spill point, each reason to pass one over."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mastering.contract import ENGINE_VERSION
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.choice import Candidate, JobRequirements, choose, forecast, why_ineligible
from router.tiers.policy.estimate import Ewma, SpeedEstimate
from router.tiers.policy.tier import TIER_ORDER

SONG = JobRequirements(size_bytes=30 * 2**20, duration_s=180.0)


def speed(render_s_per_minute: float = 5.0, cold_s: float = 0.0) -> SpeedEstimate:
    return SpeedEstimate(Ewma(0.0), {JobRequirements(0, 0).work: Ewma(render_s_per_minute)}, Ewma(0.0), Ewma(cold_s))


def one(name: str, tier: str = "managed", **known: object) -> Candidate:
    given_speed = known.pop("speed", speed())
    return Candidate(name, tier, known.pop("state", BackendState.HEALTHY), speed=given_speed, **known)  # type: ignore[arg-type]


def chosen(candidates: list[Candidate], need: JobRequirements = SONG, draw: float = 0.0) -> str | None:
    found = choose(candidates, need, lambda: draw)
    return found.backend if found else None


def test_in_ten_thousand_changes_of_health_the_first_tier_that_is_up_gets_the_job() -> None:
    """At empty queues, whatever their speeds: compared with an oracle that knows nothing of etas."""
    chance = random.Random(20_26)
    # A backend that is waking up is neither up nor down: its eta decides, see below.
    not_serving = [
        BackendState.UNKNOWN,
        BackendState.OPEN,
        BackendState.PAUSED,
        BackendState.QUOTA_OUT,
        BackendState.INCOMPATIBLE,
        BackendState.DRAINING,
        BackendState.MAINTENANCE,
    ]
    fleet = [one(f"{tier}-{n}", tier) for tier in TIER_ORDER for n in range(3)]
    seen: Counter[str | None] = Counter()
    for _ in range(10_000):
        at = chance.randrange(len(fleet))
        state = chance.choice([BackendState.HEALTHY, BackendState.SUSPECT, *not_serving])
        new_speed = speed(chance.uniform(0.1, 300), chance.uniform(0, 100))
        fleet[at] = fleet[at]._replace(state=state, speed=new_speed, weight=chance.uniform(0.1, 1))
        need = SONG._replace(managed_only=chance.random() < 0.2)
        allowed = {"managed"} if need.managed_only else {"managed", "gpu_space", "cpu_space"}
        up = {c.tier for c in fleet if c.state in (BackendState.HEALTHY, BackendState.SUSPECT)} & allowed
        expected = next((tier for tier in ("managed", "gpu_space", "cpu_space") if tier in up), None)
        found = choose(fleet, need, chance.random)
        assert (found.tier if found else None) == expected
        assert found is None or next(c for c in fleet if c.name == found.backend).tier == expected
        seen[expected] += 1
    assert min(seen[tier] for tier in (*TIER_ORDER, None)) > 100


def test_a_busy_tier_is_waited_for_until_a_lower_one_would_be_done_first_by_the_bias() -> None:
    """The managed worker is busy; the Space is free. Where `eta·1.25 + 5` meets the wait, the job goes down."""
    for queued, expected in ((0, None), (1, None), (2, "space")):
        busy = one("worker", in_flight=1, speed=speed(20.0))  # 60 s for this song
        space = one("space", "gpu_space", speed=speed(48.0))  # 144 s, biased 185 s
        # wait (queued + 1) · 60 + 60: 120, 180, 240
        assert chosen([busy, space], SONG._replace(queued=queued)) == expected


def test_waiting_says_for_what_and_for_how_long() -> None:
    found = forecast([one("worker", in_flight=1, speed=speed(20.0))], SONG, lambda: 0.0)
    assert (found.tier, found.backend, found.eta_s) == ("managed", None, 120.0)
    assert found.reason == "Managed workers will be done first: free in about 60 s."


def test_a_spill_names_the_tier_it_passed() -> None:
    busy = one("worker", in_flight=1, speed=speed(100.0))
    found = choose([busy, one("space", "gpu_space", speed=speed(10.0))], SONG, lambda: 0.0)
    assert found is not None
    assert (found.backend, found.eta_s) == ("space", 30.0)
    assert found.reason == ("Hugging Face GPU Space is the best that is free (Managed workers: busy for about 300 s).")


def test_a_fallback_says_what_is_wrong_with_the_tier_above() -> None:
    found = choose([one("worker", state=BackendState.OPEN), one("space", "gpu_space")], SONG, lambda: 0.0)
    assert found is not None
    assert found.reason == "Hugging Face GPU Space is the best that is free (Managed workers: down)."


def test_the_first_choice_needs_no_excuse() -> None:
    found = choose([one("worker")], SONG, lambda: 0.0)
    assert found is not None
    assert found.reason == "Managed workers come first and are up."
    found = choose([one("space", "cpu_space")], SONG, lambda: 0.0)
    assert found is not None
    assert found.reason == "Hugging Face CPU Space is the first that is set up."


@pytest.mark.parametrize(
    ("devices", "title"),
    [
        (["cpu", "cpu"], "Managed CPU workers"),
        (["NVIDIA H200"], "Managed GPU workers"),
        (["NVIDIA H200", "cpu"], "Managed workers"),
        (["NVIDIA H200", None], "Managed workers"),
        ([None], "Managed workers"),
    ],
)
def test_a_tier_is_called_by_the_devices_that_it_has(devices: list[str | None], title: str) -> None:
    here = [one(f"worker-{n}", device=device) for n, device in enumerate(devices)]
    found = choose(here, SONG, lambda: 0.0)
    assert found is not None
    assert found.reason == f"{title} come first and are up."
    assert found.device == next(c.device for c in here if c.name == found.backend)
    assert forecast([c._replace(state=BackendState.OPEN) for c in here], SONG, lambda: 0.0).reason == (
        f"No tier can take the job now ({title}: down)."
    )


def test_a_space_for_gpus_that_has_none_is_not_called_one() -> None:
    found = choose([one("space", "gpu_space", device="cpu")], SONG, lambda: 0.0)
    assert found is not None
    assert found.reason == "Hugging Face Space without a GPU is the first that is set up."


@pytest.mark.parametrize(
    ("state", "first", "waiting", "passed"),
    [
        (BackendState.HEALTHY, " and are up", "will be done first: free in about 15 s", "busy for about 15 s"),
        (
            BackendState.HALF_OPEN,
            ", on trial after a fault",
            "will be tried first: on trial after a fault",
            "on trial after a fault",
        ),
        (
            BackendState.SUSPECT,
            ", in doubt until the next probe",
            "will be tried first: no answer a moment ago",
            "no answer a moment ago",
        ),
    ],
)
def test_the_sentence_says_what_the_backend_is_and_not_what_it_was(
    state: BackendState, first: str, waiting: str, passed: str
) -> None:
    """One that does not answer is not busy, one on trial is not up."""
    found = choose([one("worker", state=state)], SONG, lambda: 0.0)
    assert found is not None
    assert found.reason == f"Managed workers come first{first}."
    held = one("worker", state=state, in_flight=1)
    assert forecast([held], SONG, lambda: 0.0).reason == f"Managed workers {waiting}."
    found = choose([held._replace(in_flight=30), one("space", "gpu_space")], SONG, lambda: 0.0)
    assert found is not None
    assert found.reason.startswith("Hugging Face GPU Space is the best that is free (Managed workers: ")
    assert (state is BackendState.HEALTHY) == ("busy" in found.reason)
    assert state is BackendState.HEALTHY or passed in found.reason


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (BackendState.WARMING, "Managed workers will be done first: starting, ready in about 20 s."),
        (BackendState.SLEEPING, "Managed workers will be done first: asleep, awake in about 20 s."),
    ],
)
def test_a_tier_that_starts_is_neither_free_nor_busy(state: BackendState, sentence: str) -> None:
    assert forecast([one("worker", state=state, speed=speed(5.0, 20.0))], SONG, lambda: 0.0).reason == sentence


def test_a_job_that_no_tier_can_take_says_when_one_is_tried_again() -> None:
    """Of those that could take it: not a Space that it may not go to, nor one that can't do it."""
    down = [
        one("worker", state=BackendState.OPEN, back_in_s=4.2),
        one("other", state=BackendState.OPEN, back_in_s=2.0, kinds={}),
        one("space", "gpu_space", state=BackendState.OPEN, back_in_s=1.0),
    ]
    found = forecast(down, SONG._replace(managed_only=True), lambda: 0.0)
    assert found.reason == (
        "No tier can take the job now (Managed workers: does no jobs of the kind 'master', down;"
        " Hugging Face GPU Space: not consented to). The next is tried again in about 4 s."
    )


def test_nothing_set_up_is_said_in_so_many_words() -> None:
    assert forecast([], SONG, lambda: 0.0) == (None, None, math.inf, "No tier can take the job now (none is set up).")


@pytest.mark.parametrize(
    ("known", "need", "reason"),
    [
        ({"state": BackendState.OPEN}, {}, "down"),
        ({"state": BackendState.UNKNOWN}, {}, "not asked yet"),
        ({"state": BackendState.PAUSED}, {}, "paused"),
        ({"state": BackendState.QUOTA_OUT}, {}, "quota-out"),
        ({"state": BackendState.DRAINING}, {}, "draining"),
        ({"state": BackendState.MAINTENANCE}, {}, "maintenance"),
        ({"tier": "gpu_space"}, {"managed_only": True}, "not consented to"),
        ({}, {"avoid": frozenset({"b"})}, "failed this job before"),
        ({}, {"avoid_tiers": frozenset({"managed"})}, "failed this job before"),
        ({"max_bytes": 30 * 2**20 - 1}, {}, "the file is too large for it"),
        ({"max_duration_s": 179.9}, {}, "the song is too long for it"),
        ({"engine_version": "999.0.0"}, {}, "another engine version"),
        ({"state": BackendState.INCOMPATIBLE, "engine_version": "999.0.0"}, {}, "another engine version"),
        ({"state": BackendState.INCOMPATIBLE}, {}, "another version of the protocol"),
        ({"paces": {"master": frozenset({"fit"})}}, {}, "can't do 'Quick'"),
        ({"paces": {"master": frozenset({"quick"})}}, {"work": "master/fit"}, "can't do 'Refined'"),
        ({"kinds": {}}, {}, "does no jobs of the kind 'master'"),
        ({"kinds": {"master": {}}}, {"kind": "other"}, "does no jobs of the kind 'other'"),
        ({"kinds": {"master": {"net": "1"}}}, {"models": {"net": "2"}}, "has other models for the kind 'master'"),
        ({"quota_left_s": 17.9}, {}, "its quota is used up"),  # 15 s of work, times 1.2
        ({}, {"deadline_s": 14.9}, "too slow for the time that is left"),
        ({"state": BackendState.SLEEPING, "speed": speed(5.0, cold_s=60.0)}, {"deadline_s": 70.0}, "too slow for the time that is left"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_backend_is_passed_over(known: dict[str, object], need: dict[str, object], reason: str) -> None:
    candidate = one("b", str(known.pop("tier", "managed")), **known)
    asked = SONG._replace(**need)
    assert why_ineligible(candidate, asked) == reason
    assert chosen([candidate], asked) is None
    assert reason in forecast([candidate], asked, lambda: 0.0).reason


@pytest.mark.parametrize("kinds", [None, {"master": {}}, {"master": {"net": "1", "more": "2"}}])
def test_a_backend_that_does_the_kind_or_has_not_said_is_not_passed_over(kinds: dict[str, dict[str, str]]) -> None:
    need = SONG._replace(models={"net": "1"}) if kinds and kinds["master"] else SONG
    assert choose([one("b", kinds=kinds)], need, lambda: 0.0) is not None


@pytest.mark.parametrize(
    "known",
    [
        {"max_bytes": 30 * 2**20},
        {"max_duration_s": 180.0},
        {"engine_version": ENGINE_VERSION},
        {"engine_version": ".".join(ENGINE_VERSION.split(".")[:2]) + ".77"},
        {"quota_left_s": 18.1},
        {"state": BackendState.SUSPECT},
        {"state": BackendState.HALF_OPEN},
    ],
)
def test_a_backend_just_inside_its_limits_gets_the_job(known: dict[str, object]) -> None:
    assert chosen([one("b", **known)], SONG._replace(deadline_s=15.1)) == "b"


@pytest.mark.parametrize(
    "known",
    [
        {"in_flight": 1},
        {"admits": False},
        {"backoff_s": 2.0},
        {"state": BackendState.WARMING},
        {"state": BackendState.SLEEPING},
    ],
)
def test_a_backend_that_is_not_free_is_waited_for_when_nobody_else_is_there(known: dict[str, object]) -> None:
    found = forecast([one("b", **known)], SONG, lambda: 0.0)
    assert (found.tier, found.backend) == ("managed", None)


def test_a_tier_whose_line_is_too_long_for_the_deadline_is_out_of_the_question() -> None:
    found = forecast([one("b", in_flight=1)], SONG._replace(deadline_s=29.0), lambda: 0.0)
    assert found.tier is None
    assert "too much waiting for the time that is left" in found.reason


def test_a_sleeping_tier_counts_its_cold_start() -> None:
    found = forecast([one("b", "gpu_space", state=BackendState.SLEEPING, speed=speed(5.0, 60.0))], SONG, lambda: 0.0)
    assert found.eta_s == 75.0


@pytest.mark.parametrize(("cold_s", "expected"), [(10.0, None), (200.0, "space")])
def test_a_tier_that_is_waking_up_is_waited_for_only_if_it_would_still_be_done_first(
    cold_s: float, expected: str | None
) -> None:
    waking = one("worker", state=BackendState.WARMING, speed=speed(5.0, cold_s))
    assert chosen([waking, one("space", "cpu_space", speed=speed(30.0))]) == expected


def test_a_suspect_backend_comes_after_its_healthy_neighbours() -> None:
    fleet = [one("a", state=BackendState.SUSPECT), one("b", speed=speed(50.0))]
    assert {chosen(fleet, draw=draw) for draw in (0.0, 0.5, 0.99)} == {"b"}


def test_of_two_drawn_the_one_with_less_work_ahead_wins() -> None:
    fleet = [one("a", in_flight=3, slots=9), one("b", in_flight=1, slots=9), one("c", in_flight=2, slots=9)]
    assert chosen(fleet, draw=0.0) == "b"  # draws a, then b
    assert chosen(fleet, draw=0.999) == "b"  # draws c, then b
    fast = one("fast", in_flight=3, slots=9, speed=speed(1.0))
    assert chosen([fleet[1], fast]) == "fast"  # 4 · 3 s against 2 · 15 s


def test_a_slowly_starting_backend_gets_a_tenth_of_the_work() -> None:
    chance = random.Random(7)
    flights = Counter({"old": 0, "new": 0})
    got: Counter[str] = Counter()
    for _ in range(2000):
        fleet = [
            one("old", in_flight=flights["old"], slots=50),
            one("new", in_flight=flights["new"], slots=50, weight=0.1),
        ]
        name = chosen(fleet, draw=chance.random())
        assert name is not None
        got[name] += 1
        flights[name] += 1
        if sum(flights.values()) > 20:
            flights[chance.choices(list(flights), list(flights.values()))[0]] -= 1
    assert 0.05 < got["new"] / 2000 < 0.2


def test_two_choices_spread_the_load_far_better_than_one() -> None:
    chance = random.Random(3)
    load: Counter[str] = Counter()
    for _ in range(1000):
        name = chosen([one(f"w{n}", in_flight=load[f"w{n}"], slots=1000) for n in range(10)], draw=chance.random())
        assert name is not None
        load[name] += 1
    assert max(load.values()) - min(load.values()) < 25


@given(
    flights=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    paces=st.lists(st.floats(0, 500), min_size=6, max_size=6),
    queued=st.integers(0, 50),
    draw=st.floats(0, 1),
)
def test_a_chosen_backend_is_always_eligible_and_free(
    flights: list[int], paces: list[float], queued: int, draw: float
) -> None:
    tiers = itertools.cycle(TIER_ORDER)
    fleet = [
        one(f"b{n}", tier, in_flight=flight, slots=2, speed=speed(rate))
        for n, (tier, flight, rate) in enumerate(zip(tiers, flights, paces, strict=False))
    ]
    need = SONG._replace(queued=queued)
    found = forecast(fleet, need, lambda: draw)
    assert found.tier is not None
    if found.backend is not None:
        backend = next(c for c in fleet if c.name == found.backend)
        assert backend.is_free
        assert why_ineligible(backend, need) is None
        above = [c for c in fleet if TIER_ORDER.index(c.tier) < TIER_ORDER.index(backend.tier)]
        assert not any(c.is_free for c in above)


def test_a_backend_that_asked_for_two_seconds_of_rest_is_waited_for_two_seconds() -> None:
    found = forecast([one("b", backoff_s=2.0), one("space", "gpu_space", speed=speed(5.0))], SONG, lambda: 0.0)
    assert (found.tier, found.backend, found.eta_s) == ("managed", None, 17.0)


def test_more_formats_take_longer_and_are_reckoned_with() -> None:
    slow, need = one("a", speed=speed(60.0)), SONG._replace(work_factor=3.0)
    found = [forecast([slow], each, lambda: 0.0).eta_s for each in (SONG, need)]
    assert found == [pytest.approx(180.0), pytest.approx(540.0)]
    assert why_ineligible(slow, need._replace(deadline_s=500.0)) == "too slow for the time that is left"
    assert why_ineligible(slow, SONG._replace(deadline_s=500.0)) is None
