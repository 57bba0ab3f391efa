"""What the doctor says of a principal's rights."""

from __future__ import annotations

from callmeter.cli.doctor_finding import State
from callmeter.cli.doctor_rights import PARTS, finding_of
from callmeter.log.kafka_rights import Rights

ALL = frozenset({"Read", "Write", "Describe"})
TOPICS = {name: ALL for part in PARTS.values() for name in part.topics}
GROUPS = {group: ALL for part in PARTS.values() for group in part.groups}
IDS = [f"{stage}.{n}" for stage in ("meter", "watch") for n in range(3)]


def test_who_may_do_all_is_well() -> None:
    found = finding_of(Rights(TOPICS, GROUPS, IDS), 3)
    assert found.state is State.OK
    assert found.detail == "may work as collector, meter, watch, sink, notify"


def test_what_is_missing_is_named_by_part() -> None:
    read = {**TOPICS, "metered": frozenset({"Read", "Describe"})}
    found = finding_of(Rights(read, {**GROUPS, "watch": frozenset()}, IDS[:1]), 3)
    assert found.state is State.NOTICE
    assert found.detail == (
        "may work as collector, sink, notify; meter lacks Write on topic metered, "
        "Write on transactional id meter.1 and 1 more; watch lacks Read and Describe on group "
        "watch, Write on transactional id watch.0 and 2 more"
    )


def test_who_may_do_nothing_is_told_so() -> None:
    found = finding_of(Rights({}, {}, ()), 3)
    assert found.state is State.NOTICE  # the doctor may have a principal of its own
    assert found.detail.startswith("may work as no part; collector lacks Write and Describe on")
