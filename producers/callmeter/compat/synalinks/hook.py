"""The base of hooks, as Synalinks' modules call them."""

from __future__ import annotations

from typing import Any


class Hook:
    """Told when a module call begins and ends. ``set_module`` names the module it watches."""

    def __init__(self) -> None:
        self.params: Any = None
        self._module: Any = None

    def set_params(self, params: Any) -> None:
        """What the module's hook list hands over."""
        self.params = params

    def set_module(self, module: Any) -> None:
        """The module whose calls are reported."""
        self._module = module

    @property
    def module(self) -> Any:
        """The module whose calls are reported; None before ``set_module``."""
        return self._module

    def on_call_begin(self, call_id: str, inputs: Any = None, **more: Any) -> None:
        """A call begins. Does nothing here."""

    def on_call_end(
        self, call_id: str, outputs: Any = None, exception: Any = None, **more: Any
    ) -> None:
        """A call has ended. Does nothing here."""
