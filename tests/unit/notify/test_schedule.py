"""When it is tried again."""

from __future__ import annotations

import random

import pytest

from callmeter_processors.notify.schedule import MAX_RETRY_AFTER_S, Retry, retry_after_s

NOW_US = 1_445_412_480_000_000  # 2015-10-21 07:28:00 UTC


def test_delays_double_with_jitter_up_to_the_cap() -> None:
    retry, rng = Retry(attempts=20, base_s=1, cap_s=60), random.Random(1)
    for tries in range(1, 20):
        full = min(60, 2 ** (tries - 1))
        for _ in range(50):
            assert full / 2 <= retry.delay_s(tries, rng) <= full
    assert len({retry.delay_s(5, rng) for _ in range(20)}) > 10


def test_a_receiver_may_ask_for_more_and_never_for_less() -> None:
    rng = random.Random(1)
    assert Retry().delay_s(1, rng, 40.0) == 40.0
    assert Retry().delay_s(9, rng, 0.1) >= 128


def test_attempts_are_bounded() -> None:
    assert not Retry(attempts=3).is_over(2)
    assert Retry(attempts=3).is_over(3)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("999999999", MAX_RETRY_AFTER_S),
        ("soon", None),
        ("-5", None),
        ("²", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text, NOW_US) == seconds
