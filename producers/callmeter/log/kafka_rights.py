"""What the principal of a connection is allowed on a prefix: asked, never tried out.

Brokers say it of topics (Metadata, from version 8) and groups (DescribeGroups, from version 3) as a
bit for each operation; without an authorizer every bit is set. Of transactional ids they say only
whether they may be looked up, which needs Describe; Write implies that, so an id that may not be
looked up may not be written with either. Kafka's protocol guide: https://kafka.apache.org/protocol
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

from callmeter.log.kafka_clients import started_admin
from callmeter.log.kafka_errors import kafka_errors
from callmeter.log.kafka_settings import KafkaSettings

#: Bit of an operation in a broker's answer.
_BITS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
_GROUP, _TRANSACTION = 0, 1
_TRIES = 20
_AGAIN_S = 0.25
_TEXT = String("utf-8")


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(
            ("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT),
        )),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        ("topics", Array(
            ("error_code", Int16), ("name", _TEXT), ("is_internal", Boolean),
            ("partitions", Array(
                ("error_code", Int16), ("partition", Int32), ("leader", Int32),
                ("leader_epoch", Int32), ("replicas", Array(Int32)), ("isr", Array(Int32)),
                ("offline_replicas", Array(Int32)),
            )),
            ("authorized_operations", Int32),
        )),
        ("cluster_authorized_operations", Int32),
    )  # fmt: skip


class _MetadataRequest(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(_TEXT)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _AskTopics(Request[_MetadataRequest]):
    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        return request_struct_class(self._topics, False, False, True)


class _GroupsResponse(Response):
    API_KEY = 15
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("groups", Array(
            ("error_code", Int16), ("group", _TEXT), ("state", _TEXT), ("protocol_type", _TEXT),
            ("protocol", _TEXT),
            ("members", Array(
                ("member_id", _TEXT), ("client_id", _TEXT), ("client_host", _TEXT),
                ("member_metadata", Bytes), ("member_assignment", Bytes),
            )),
            ("authorized_operations", Int32),
        )),
    )  # fmt: skip


class _GroupsRequest(RequestStruct):
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = _GroupsResponse
    SCHEMA = Schema(("groups", Array(_TEXT)), ("include_authorized_operations", Boolean))


class _AskGroups(Request[_GroupsRequest]):
    API_KEY = 15

    def __init__(self, groups: Iterable[str]) -> None:
        self._groups = list(groups)

    def build(self, request_struct_class: type[_GroupsRequest]) -> _GroupsRequest:
        return request_struct_class(self._groups, True)


@dataclass(frozen=True, slots=True)
class Rights:
    """Operations by name of topic and group, without the prefix; and the transactional ids that
    may be used.
    """

    topics: Mapping[str, frozenset[str]]
    groups: Mapping[str, frozenset[str]]
    transactional_ids: Collection[str]


async def read_rights(
    settings: KafkaSettings,
    topics: Iterable[str],
    groups: Iterable[str],
    transactional_ids: Iterable[str],
) -> Rights:
    """What is allowed on these names of the prefix. ``UnreachableError``, ``ConfigError``."""
    async with started_admin(settings) as admin:
        with kafka_errors(settings):
            return Rights(
                await _topics(admin, settings.prefix, topics),
                {group: await _group(admin, f"{settings.prefix}.{group}") for group in groups},
                [
                    one
                    for one in transactional_ids
                    if await _may_transact(admin, f"{settings.prefix}.{one}")
                ],
            )


async def _topics(admin: Any, prefix: str, names: Iterable[str]) -> dict[str, frozenset[str]]:
    full = {f"{prefix}.{name}": name for name in names}
    answer = await admin._send_request(_AskTopics(full))
    return {
        full[name]: frozenset() if error else _operations(bits)
        for error, name, _, _, bits in answer.topics
    }


async def _group(admin: Any, name: str) -> frozenset[str]:
    """A group that may not be looked up has no rights at all."""
    coordinator = await _coordinator(admin, name, _GROUP)
    if coordinator is None:
        return frozenset()
    answer = await admin._send_request_to_node(coordinator, _AskGroups([name]))
    error, *_, bits = answer.groups[0]
    return frozenset() if error else _operations(bits)


async def _may_transact(admin: Any, name: str) -> bool:
    return await _coordinator(admin, name, _TRANSACTION) is not None


async def _coordinator(admin: Any, name: str, kind: int) -> int | None:
    """The broker that looks after a group or an id; None if it may not be looked up."""
    for _ in range(_TRIES):
        try:
            return int(await admin.find_coordinator(name, kind))
        except (GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed):
            return None
        except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError):
            # A broker that has never had a group makes its topic for them when first asked.
            await asyncio.sleep(_AGAIN_S)
    raise TimeoutError


def _operations(bits: int) -> frozenset[str]:
    return frozenset(name for name, bit in _BITS.items() if bits >> bit & 1)
