import random

import pytest

from ratelimiter.quotas.pulse import Pulse

LATENCY_S = 0.002


def felt(
    pulse: Pulse,
    rate: float,
    share: float,
    start_s: float,
    seconds: float,
    told: float,
    chance: random.Random,
) -> tuple[float, float] | None:
    """When and how a pulse that is at `rate` is found to be off from `told`, or None."""
    now_s = start_s
    while now_s < start_s + seconds:
        if pulse.waits_since_s is None:
            pulse.wait(now_s)
        gap_s = chance.expovariate(rate * share) if rate else 10.0
        step_s = min(gap_s, 0.02)
        now_s += step_s + LATENCY_S
        if gap_s <= 0.02:
            pulse.saw(now_s, LATENCY_S)
            now_s += 0.04 - step_s
        found = pulse.moved_from(told, now_s)
        if found is not None:
            return now_s - start_s, found
    return None


@pytest.mark.parametrize(("before", "after"), [(20, 400), (400, 20), (400, 0), (50, 300)])
def test_demand_that_moves_is_noticed_within_a_second(before: float, after: float) -> None:
    pulse = Pulse(0.4)
    pulse.is_known = True
    found = felt(pulse, after, 0.4, 100.0, 5.0, told=before, chance=random.Random(7))
    assert found is not None
    assert found[0] < 1.0
    assert (found[1] > before) == (after > before)


@pytest.mark.parametrize("rate", [20, 100, 400])
def test_steady_demand_is_hardly_ever_taken_for_another(rate: float) -> None:
    alarms = 0
    chance = random.Random(7)
    for _ in range(20):
        pulse = Pulse(0.4)
        alarms += felt(pulse, rate, 0.4, 100.0, 5.0, told=rate, chance=chance) is not None
    assert alarms <= 2


def test_a_pulse_that_nobody_has_felt_says_nothing() -> None:
    assert Pulse(0.5).moved_from(100, 10.0) is None
