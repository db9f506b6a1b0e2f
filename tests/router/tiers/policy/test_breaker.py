"""The circuit breaker: every rule by itself, and all of them together against a model in random order."""

from __future__ import annotations

import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st

from router.tiers.policy import breaker
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.breaker import Breaker, Ticket


def healthy(draw: float = 0.5) -> Breaker:
    made = Breaker(0.0, lambda: draw)
    made.probe_answered(0.0)
    return made


def opened(draw: float = 0.5, at_s: float = 0.0) -> Breaker:
    made = healthy(draw)
    made.probe_failed(at_s, "silent")
    made.probe_failed(at_s, "silent")
    assert made.state is BackendState.OPEN
    return made


def half_open(draw: float = 0.5) -> Breaker:
    made = opened(draw)
    made.tick(1000.0)
    assert made.state is BackendState.HALF_OPEN
    return made


def test_a_backend_nobody_has_asked_gets_no_work() -> None:
    assert not Breaker(0.0, lambda: 0.5).admits()


def test_the_first_good_answer_makes_it_healthy_at_full_weight() -> None:
    made = healthy()
    assert (made.state, made.admits(), made.weight(0.0)) == (BackendState.HEALTHY, True, 1.0)


def test_one_failed_probe_makes_it_suspect_and_the_second_opens_it() -> None:
    made = healthy()
    made.probe_failed(1.0, "silent")
    assert (made.state, made.admits(), made.since_s, made.reason) == (BackendState.SUSPECT, True, 1.0, "silent")
    made.probe_failed(3.0, "silent")
    assert (made.state, made.admits()) == (BackendState.OPEN, False)


def test_a_good_probe_clears_a_suspicion() -> None:
    made = healthy()
    made.probe_failed(1.0, "silent")
    made.probe_answered(3.0)
    made.probe_failed(5.0, "silent")
    assert made.state is BackendState.SUSPECT


def test_a_backend_that_never_answered_opens_at_its_second_failed_probe() -> None:
    made = Breaker(0.0, lambda: 0.5)
    made.probe_failed(1.0, "refused")
    assert made.state is BackendState.UNKNOWN
    made.probe_failed(2.0, "refused")
    assert made.state is BackendState.OPEN


@pytest.mark.parametrize("later_s", [0.0, 1000.0])
def test_one_that_was_only_not_there_yet_is_healthy_by_its_first_answer_without_a_trial(later_s: float) -> None:
    """As a worker that is started together with the router."""
    made = Breaker(0.0, lambda: 0.5)
    made.probe_failed(1.0, "silent")
    made.probe_failed(3.0, "silent")
    made.tick(4.0 + later_s)
    assert made.state is (BackendState.HALF_OPEN if later_s else BackendState.OPEN)
    made.probe_answered(4.0 + later_s)
    assert (made.state, made.openings, made.weight(5.0), made.admits()) == (BackendState.HEALTHY, 0, 1.0, True)
    made.probe_failed(1010.0, "silent")
    made.probe_failed(1012.0, "silent")
    made.probe_answered(1013.0)
    assert made.state is BackendState.OPEN


def test_a_broken_connection_and_a_failed_instant_probe_open_it() -> None:
    made = healthy()
    made.failed(made.begin(), 1.0, "reset", broken=True)
    assert made.state is BackendState.SUSPECT
    made.probe_failed(1.0, "refused")
    assert made.state is BackendState.OPEN


def test_a_broken_connection_alone_does_not_open_it() -> None:
    made = healthy()
    made.failed(made.begin(), 1.0, "reset", broken=True)
    made.probe_answered(1.0)
    assert made.state is BackendState.HEALTHY


def test_three_failures_in_a_row_open_it_and_a_success_between_starts_the_count_anew() -> None:
    made = healthy()
    for outcome in ("bad", "bad", "good", "bad"):
        ticket = made.begin()
        made.succeeded(ticket, 1.0) if outcome == "good" else made.failed(ticket, 1.0, "500")
    assert made.state is BackendState.HEALTHY

    made = healthy()
    for _ in range(breaker.FAILURES_IN_A_ROW - 1):
        made.failed(made.begin(), 1.0, "500")
        assert made.state is BackendState.HEALTHY
    made.failed(made.begin(), 1.0, "500")
    assert made.state is BackendState.OPEN


def test_half_of_five_within_a_minute_open_it_but_old_ones_do_not_count() -> None:
    spaced, dense = healthy(), healthy()
    for n in range(12):
        for made, every_s in ((spaced, 20.0), (dense, 1.0)):
            if not made.admits():
                continue
            ticket = made.begin()
            made.failed(ticket, n * every_s, "500") if n % 2 else made.succeeded(ticket, n * every_s)
    assert (spaced.state, dense.state) == (BackendState.HEALTHY, BackendState.OPEN)


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_the_opening_doubles_up_to_five_minutes_spread_by_a_fifth(draw: float, factor: float) -> None:
    made, now, seen = healthy(draw), 0.0, []
    made.probe_failed(now, "silent")
    for _ in range(9):
        made.probe_failed(now, "silent")
        seen.append(made.reopens_in_s(now))
        now += made.reopens_in_s(now)
        made.tick(now)
        assert made.state is BackendState.HALF_OPEN
    assert seen == pytest.approx([factor * s for s in (5, 10, 20, 40, 80, 160, 300, 300, 300)])
    assert made.openings == 9


def test_it_stays_open_until_its_time_whatever_its_probes_say() -> None:
    made = opened()
    for answer in (
        made.probe_answered,
        lambda now: made.probe_failed(now, "x"),
        lambda now: made.probe_warming(now, "x"),
    ):
        answer(1.0)
        made.tick(4.9)
        assert made.state is BackendState.OPEN
    made.tick(5.0)
    assert made.state is BackendState.HALF_OPEN


def test_the_last_one_left_is_tried_after_five_seconds_at_the_most() -> None:
    made, now = opened(), 0.0
    for _ in range(6):  # by now it would stay open for five minutes
        now += 5.0
        made.tick(now, alone=True)
        assert made.state is BackendState.HALF_OPEN
        made.probe_failed(now, "silent")
    made.tick(now + 4.9, alone=True)
    assert made.state is BackendState.OPEN


def test_half_open_admits_one_canary_and_only_after_a_probe() -> None:
    made = half_open()
    assert not made.admits()
    made.probe_answered(1001.0)
    assert made.admits()
    assert made.begin().canary
    assert not made.admits()


def test_two_canaries_close_it_and_it_starts_slowly() -> None:
    made = half_open()
    made.probe_answered(1001.0)
    made.succeeded(made.begin(), 1002.0)
    assert made.state is BackendState.HALF_OPEN
    made.succeeded(made.begin(), 1003.0)
    assert made.state is BackendState.HEALTHY
    assert [round(made.weight(1003.0 + s), 2) for s in (0, 15, 30, 300)] == [0.1, 0.55, 1.0, 1.0]
    assert made.openings == 0


def test_a_canary_that_fails_opens_it_for_longer() -> None:
    made = half_open()
    made.probe_answered(1001.0)
    made.failed(made.begin(), 1002.0, "500")
    assert (made.state, made.reopens_in_s(1002.0)) == (BackendState.OPEN, pytest.approx(10.0))


def test_a_canary_that_says_nothing_about_health_leaves_room_for_the_next() -> None:
    made = half_open()
    made.probe_answered(1001.0)
    made.ended(made.begin())
    assert (made.state, made.admits()) == (BackendState.HALF_OPEN, True)


def test_a_failed_probe_ends_half_open() -> None:
    made = half_open()
    made.probe_failed(1001.0, "silent")
    assert made.state is BackendState.OPEN


def test_what_a_job_did_that_fails_everywhere_is_taken_back() -> None:
    made = healthy()
    for job in ("poison", "poison"):
        made.failed(made.begin(), 1.0, "died", job=job)
    made.take_back("poison", 2.0)
    for _ in range(2):
        made.failed(made.begin(), 3.0, "died", job="honest")
    assert made.state is BackendState.HEALTHY
    made.failed(made.begin(), 3.0, "died", job="honest")
    assert made.state is BackendState.OPEN
    made.take_back("another", 4.0)
    assert made.state is BackendState.OPEN


def test_an_opening_that_needed_such_a_job_is_undone_and_the_next_probe_decides() -> None:
    made = healthy()
    for job in ("poison", "poison", "honest"):
        made.failed(made.begin(), 1.0, "died", job=job)
    assert (made.state, made.openings) == (BackendState.OPEN, 1)
    made.take_back("poison", 2.0)
    assert (made.state, made.openings, made.admits()) == (BackendState.SUSPECT, 0, True)
    made.probe_answered(3.0)
    assert made.state is BackendState.HEALTHY


def test_an_opening_that_had_enough_other_reasons_stays() -> None:
    made = healthy()
    tickets = [made.begin() for _ in range(9)]
    for at_s, ticket in enumerate(tickets[:5]):  # successes between: the window opens it, not three in a row
        made.succeeded(ticket, float(at_s))
    made.failed(tickets[5], 5.0, "died", job="poison")
    made.succeeded(tickets[6], 5.5)
    for job in ("a", "b", "c", "d", "e", "f"):
        made.failed(made.begin(), 6.0, "died", job=job)
        if made.state is BackendState.OPEN:
            break
    assert made.state is BackendState.OPEN
    made.take_back("poison", 7.0)
    assert made.state is BackendState.OPEN


def test_a_canary_that_was_such_a_job_leaves_the_trial_as_it_was() -> None:
    made = half_open()
    made.probe_answered(1000.0)
    made.failed(made.begin(), 1001.0, "died", job="poison")
    assert made.state is BackendState.OPEN
    made.take_back("poison", 1002.0)
    assert (made.state, made.openings, made.admits()) == (BackendState.HALF_OPEN, 1, True)


def test_an_opening_of_an_earlier_generation_is_not_undone() -> None:
    made = healthy()
    for _ in range(3):
        made.failed(made.begin(), 1.0, "died", job="poison")
    made.tick(1000.0)
    assert made.state is BackendState.HALF_OPEN
    made.take_back("poison", 1001.0)
    assert made.state is BackendState.HALF_OPEN


def test_late_answers_of_an_older_generation_change_nothing() -> None:
    made = healthy()
    early = [made.begin() for _ in range(4)]
    made.probe_failed(1.0, "silent")
    made.probe_failed(1.0, "silent")
    made.tick(10.0)
    made.probe_answered(10.0)
    before = (made.state, made.generation, made.admits())
    made.succeeded(early[0], 11.0)
    made.succeeded(early[1], 11.0)
    made.failed(early[2], 11.0, "500")
    made.ended(early[3])
    assert (made.state, made.generation, made.admits()) == before


def test_a_success_forgives_earlier_openings() -> None:
    made = half_open()
    made.probe_warming(1001.0, "loading")
    made.probe_answered(1002.0)
    assert made.openings == 1
    made.succeeded(made.begin(), 1003.0)
    assert made.openings == 0


def test_a_warming_backend_gets_no_work_then_starts_slowly() -> None:
    made = Breaker(0.0, lambda: 0.5)
    made.probe_warming(1.0, "loading")
    made.probe_warming(2.0, "loading")
    assert (made.state, made.admits(), made.since_s) == (BackendState.WARMING, False, 1.0)
    made.probe_answered(5.0)
    assert (made.state, made.weight(5.0)) == (BackendState.HEALTHY, pytest.approx(0.1))


def test_a_warming_backend_that_falls_silent_opens_at_the_second_failed_probe() -> None:
    made = Breaker(0.0, lambda: 0.5)
    made.probe_warming(1.0, "loading")
    made.probe_failed(2.0, "silent")
    assert made.state is BackendState.WARMING
    made.probe_failed(3.0, "silent")
    assert made.state is BackendState.OPEN


def test_tripping_opens_it_at_once_and_only_once() -> None:
    made = healthy()
    made.trip(1.0, "refused the signature")
    made.trip(2.0, "again")
    assert (made.state, made.since_s, made.openings) == (BackendState.OPEN, 1.0, 1)


class Breakers(stateful.RuleBasedStateMachine):
    """Probes, attempts and time in any order: what must hold whatever came before."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(0.0, lambda: 0.5)
        self.tickets: list[Ticket] = []
        self.canaries_ok = 0
        self.generation = 0
        self.has_answered = False

    @stateful.rule(seconds=st.floats(0, 400))
    def time_passes(self, seconds: float) -> None:
        due = self.breaker.state is BackendState.OPEN and self.breaker.reopens_in_s(self.now) <= seconds
        self.now += seconds
        self.breaker.tick(self.now)
        if due:
            assert self.breaker.state is BackendState.HALF_OPEN
            self.canaries_ok = 0

    @stateful.rule(kind=st.sampled_from(["answered", "failed", "warming"]))
    def probe(self, kind: str) -> None:
        before = self.breaker.state
        match kind:
            case "answered":
                self.breaker.probe_answered(self.now)
                is_closed_to_probes = before in (BackendState.OPEN, BackendState.HALF_OPEN) and self.has_answered
                assert not is_closed_to_probes or self.breaker.state is before
                self.has_answered = True
            case "failed":
                self.breaker.probe_failed(self.now, "silent")
                assert self.breaker.state is not BackendState.HEALTHY
            case _:
                self.breaker.probe_warming(self.now, "loading")
                assert self.breaker.state in (BackendState.WARMING, BackendState.OPEN)

    @stateful.precondition(lambda self: self.breaker.admits())
    @stateful.rule()
    def begin(self) -> None:
        ticket = self.breaker.begin()
        self.tickets.append(ticket)
        assert ticket.canary == (self.breaker.state is BackendState.HALF_OPEN)

    @stateful.precondition(lambda self: self.tickets)
    @stateful.rule(how=st.sampled_from(["ok", "fail", "broken", "nothing"]), which=st.integers(0, 10_000))
    def end(self, how: str, which: int) -> None:
        ticket = self.tickets.pop(which % len(self.tickets))
        late = ticket.generation != self.breaker.generation
        before = (self.breaker.state, self.breaker.generation, self.breaker.admits())
        match how:
            case "ok":
                self.canaries_ok += ticket.canary and not late
                self.breaker.succeeded(ticket, self.now)
            case "nothing":
                self.breaker.ended(ticket)
                assert (self.breaker.state, self.breaker.generation) == before[:2]
            case _:
                self.breaker.failed(ticket, self.now, "500", broken=how == "broken")
                assert not (ticket.canary and not late) or self.breaker.state is BackendState.OPEN
        if late:
            assert (self.breaker.state, self.breaker.generation, self.breaker.admits()) == before
        if before[0] is BackendState.HALF_OPEN and self.breaker.state is BackendState.HEALTHY:
            assert self.canaries_ok >= breaker.CANARIES_TO_CLOSE

    @stateful.invariant()
    def open_admits_nothing_and_always_ends(self) -> None:
        left = self.breaker.reopens_in_s(self.now)
        assert 0 <= left <= breaker.OPEN_LONGEST_S * breaker.OPEN_SPREAD[1]
        if self.breaker.state in (BackendState.OPEN, BackendState.UNKNOWN, BackendState.WARMING):
            assert not self.breaker.admits()

    @stateful.invariant()
    def one_canary_of_this_generation_at_most(self) -> None:
        out = [t for t in self.tickets if t.canary and t.generation == self.breaker.generation]
        assert len(out) <= 1

    @stateful.invariant()
    def generations_only_grow_and_weights_stay_in_range(self) -> None:
        assert self.breaker.generation >= self.generation
        self.generation = self.breaker.generation
        assert breaker.SLOW_START_WEIGHT <= self.breaker.weight(self.now) <= 1.0
        assert self.breaker.since_s <= self.now


TestBreakersInAnyOrder = Breakers.TestCase
TestBreakersInAnyOrder.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
