from voicechat.runtime.fallback.circuit_breaker import (
    ENOUGH,
    MAX_REST_S,
    TRIAL_S,
    WINDOW,
    CircuitBreaker,
    CircuitState,
)
from voicechat.runtime.fallback.policy import ServicePolicy

POLICY = ServicePolicy(
    breaker_failures=3, breaker_ratio=0.5, breaker_pause_s=2, breaker_max_pause_s=10
)


def opened(probed: bool = False) -> CircuitBreaker:
    """Opened at 0 s."""
    breaker = CircuitBreaker(POLICY, probed=probed)
    assert [breaker.record_failure(0, trial=breaker.begin_use(0)) for _ in range(3)] == [
        False,
        False,
        True,
    ]
    return breaker


def test_so_many_failures_in_a_row_open_it_for_a_pause() -> None:
    breaker = opened()
    assert breaker.state is CircuitState.OPEN
    assert not breaker.allows(1.9)
    assert breaker.allows(2)


def test_a_success_in_between_begins_the_count_anew() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(3):
        breaker.record_failure(0, trial=False)
        breaker.record_failure(0, trial=False)
        breaker.record_success(trial=False)
        if breaker.state is CircuitState.OPEN:
            break
    assert len(breaker._outcomes) == 9, "so many uses are too few for a share"
    assert breaker.state is CircuitState.CLOSED


def test_half_of_the_last_uses_failing_opens_it_too() -> None:
    breaker = CircuitBreaker(POLICY)
    for use in range(ENOUGH):
        assert breaker.state is CircuitState.CLOSED
        if use % 2:
            breaker.record_failure(0, trial=False)
        else:
            breaker.record_success(trial=False)
    assert breaker.state is CircuitState.OPEN


def test_what_is_long_ago_does_not_count() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(2):
        breaker.record_failure(0, trial=False)
    for _ in range(WINDOW):
        breaker.record_success(trial=False)
    for _ in range(2):
        breaker.record_failure(0, trial=False)
    assert breaker.state is CircuitState.CLOSED


def test_one_trial_at_a_time_decides() -> None:
    breaker = opened()
    assert breaker.begin_use(2)
    assert not breaker.allows(2), "one is enough"
    breaker.record_success(trial=True)
    assert breaker.state is CircuitState.CLOSED
    assert breaker.allows(2)


def test_the_pause_doubles_with_every_failed_trial_up_to_a_bound_until_a_success() -> None:
    breaker, now_s = opened(), 0.0
    pauses = []
    for _ in range(5):
        pauses.append(breaker.ready_at_s - now_s)
        now_s = breaker.ready_at_s
        assert breaker.record_failure(now_s, trial=breaker.begin_use(now_s))
    assert pauses == [2, 4, 8, 10, 10]
    breaker.record_success(trial=breaker.begin_use(breaker.ready_at_s))
    for _ in range(3):
        breaker.record_failure(100, trial=False)
    assert breaker.ready_at_s == 102


def test_what_began_before_it_opened_tells_nothing() -> None:
    breaker = opened()
    assert not breaker.record_failure(1, trial=False)
    assert breaker.ready_at_s == 2
    breaker.record_success(trial=False)
    assert breaker.state is CircuitState.OPEN


def test_an_abandoned_trial_may_be_held_again() -> None:
    breaker = opened()
    breaker.record_abandoned(3, trial=breaker.begin_use(2))
    assert breaker.allows(3)
    assert breaker.begin_use(3)


def test_a_trial_that_shows_nothing_does_not_keep_others_from_being_one() -> None:
    breaker = opened()
    breaker.begin_use(2)
    assert not breaker.allows(2 + TRIAL_S - 0.1)
    assert breaker.allows(2 + TRIAL_S)


def test_a_service_that_asks_for_rest_gets_it_within_reason() -> None:
    breaker = CircuitBreaker(POLICY)
    breaker.rest_until(7, 0)
    assert breaker.state is CircuitState.CLOSED
    assert not breaker.allows(6.9)
    assert breaker.allows(7)
    breaker.rest_until(1e9, 7)
    assert breaker.allows(7 + MAX_REST_S)


def test_one_that_is_probed_waits_for_the_answer() -> None:
    breaker = opened(probed=True)
    assert not breaker.allows(1000)
    breaker.lengthen(1000)
    assert breaker.ready_at_s == 1004
    breaker.recovered(1004)
    assert breaker.allows(1004)
    assert breaker.begin_use(1004)
    breaker.record_failure(1004, trial=True)
    assert not breaker.allows(2000), "after a failed trial it is probed again"


def test_one_that_did_not_start_waits_for_its_start_and_then_is_as_any_other() -> None:
    breaker = CircuitBreaker(POLICY)
    breaker.keep_out(0)
    assert not breaker.allows(1000)
    breaker.lengthen(1000)
    assert not breaker.allows(2000), "nor after a start that failed again"
    breaker.recovered(2000)
    assert breaker.allows(2000)
    breaker.record_success(trial=breaker.begin_use(2000))
    for _ in range(3):
        breaker.record_failure(3000, trial=False)
    assert breaker.state is CircuitState.OPEN
    assert breaker.allows(3002), "nobody asks after it now"
