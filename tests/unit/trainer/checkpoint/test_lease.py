"""When a run may take the lease of a storage, by the observer's own clock."""

from __future__ import annotations

import pytest

from finetune_trainer.checkpoint.lease import STALE_SECONDS, Decision, LeaseRecord, LeaseWatch, lost, parse_record, refused
from finetune_trainer.protocol.outcome import ConfigurationError, StorageError

THEIRS = LeaseRecord(owner="other", holder="the run team/other on host (process 7)", session="s")


@pytest.fixture
def watch() -> LeaseWatch:
    return LeaseWatch("mine")


def test_takes_a_free_lease_and_its_own(watch: LeaseWatch) -> None:
    assert watch.observe(None, 0) is Decision.TAKE
    assert watch.observe(LeaseRecord(owner="mine", holder="h", session="earlier", beat=9), 0) is Decision.TAKE


def test_refuses_a_lease_that_changes(watch: LeaseWatch) -> None:
    assert watch.observe(THEIRS, 1000) is Decision.WAIT
    assert watch.observe(THEIRS, 1004) is Decision.WAIT
    assert watch.observe(THEIRS.next_beat(), 1008) is Decision.REFUSE


def test_refuses_a_lease_that_another_observer_took(watch: LeaseWatch) -> None:
    watch.observe(THEIRS, 0)
    assert watch.observe(LeaseRecord(owner="third", holder="h", session="t"), 130) is Decision.REFUSE


def test_takes_a_lease_that_does_not_change_for_long(watch: LeaseWatch) -> None:
    assert watch.observe(THEIRS, 50) is Decision.WAIT
    assert watch.observe(THEIRS, 50 + STALE_SECONDS - 1) is Decision.WAIT
    assert watch.observe(THEIRS, 50 + STALE_SECONDS) is Decision.TAKE


def test_takes_a_lease_that_was_released_while_it_watched(watch: LeaseWatch) -> None:
    watch.observe(THEIRS, 0)
    assert watch.observe(None, 1) is Decision.TAKE


def test_an_outage_of_90_seconds_does_not_make_a_lease_stale(watch: LeaseWatch) -> None:
    last_beat = 0.0
    decisions = [watch.observe(THEIRS, last_beat + seconds) for seconds in range(0, 91, 2)]
    assert set(decisions) == {Decision.WAIT}
    assert watch.observe(THEIRS.next_beat(), 92) is Decision.REFUSE


def test_an_unreadable_lease_is_stale_if_it_stays(watch: LeaseWatch) -> None:
    assert watch.observe(parse_record(b"{"), 0) is Decision.WAIT
    assert watch.observe(parse_record(b"{"), STALE_SECONDS) is Decision.TAKE


def test_a_record_survives_its_encoding() -> None:
    record = THEIRS.next_beat()
    assert parse_record(record.model_dump_json().encode()) == record


def test_sentences_name_the_other_run() -> None:
    assert str(refused("s3://b/x", THEIRS)) == (
        "spec.checkpoint.storage: s3://b/x is in use by the run team/other on host (process 7), which is alive: wait until it "
        "ends, stop it, or choose another spec.checkpoint.storage"
    )
    by_another = lost("s3://b/x", THEIRS, "mine")
    assert isinstance(by_another, ConfigurationError), "a restart would not help"
    assert str(by_another).startswith("spec.checkpoint.storage: the run team/other on host (process 7) has taken over s3://b/x")
    by_itself = lost("s3://b/x", THEIRS, "other")
    assert isinstance(by_itself, StorageError)
    assert "a later attempt of this run" in str(by_itself)
