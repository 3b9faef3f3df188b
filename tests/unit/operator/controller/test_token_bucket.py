"""The token bucket."""

from __future__ import annotations

from finetune_operator.controller.token_bucket import TokenBucket


def test_permits_a_burst_and_then_one_operation_per_interval() -> None:
    bucket = TokenBucket(capacity=3, interval=2)
    assert [bucket.take(100.0) for _ in range(4)] == [0, 0, 0, 2]
    assert bucket.take(101.5) == 0.5
    assert [bucket.take(102.0), bucket.take(102.0)] == [0, 2]
    assert [bucket.take(1000.0) for _ in range(4)] == [0, 0, 0, 2], "no more than the capacity is saved up"
