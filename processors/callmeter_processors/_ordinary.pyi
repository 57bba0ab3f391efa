from collections.abc import Callable
from typing import Any

from callmeter.schema.events import CallEnd
from callmeter_processors._call_line import CallLine
from callmeter_processors.foldrow import Alike
from callmeter_processors.worth import Pricer

class OrdinaryReader(CallLine):
    def __init__(
        self,
        opening: bytes,
        fields: list[tuple[bytes, int, int, int, Any]],
        required: list[bytes],
        row_key: list[bytes],
        at_a_time: int,
        unset: Any,
    ) -> None: ...
    def count(self, value: bytes) -> int: ...
    def read(
        self,
        value: bytes,
        fence_us: int,
        known: dict[bytes, Alike],
        meet: Callable[[CallEnd], Alike],
        pricer: Pricer,
    ) -> list[bytes | list[bytes]]: ...
