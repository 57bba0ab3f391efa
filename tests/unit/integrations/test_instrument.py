"""``instrument``: by name, idempotent, undoable."""

import importlib.util

import openai
import pytest

import callmeter
from callmeter.errors import ConfigError, MissingExtraError, UsageError
from callmeter.integrations import INSTRUMENTS


def test_a_name_without_an_instrument() -> None:
    with pytest.raises(UsageError, match=r"no instrument for 'abacus'; .*: anthropic, l"):
        callmeter.instrument("abacus")


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INSTRUMENTS, "absent", ("no_such_library", "none", "absent"))
    with pytest.raises(MissingExtraError, match=r"pip install 'callmeter\[absent\]'"):
        callmeter.instrument("absent")


@pytest.mark.skipif(importlib.util.find_spec("litellm") is not None, reason="LiteLLM is there")
def test_a_library_without_an_extra_is_named_itself() -> None:
    with pytest.raises(ConfigError, match=r"pip install litellm$"):
        callmeter.instrument("litellm")


def test_instrumenting_twice_is_once_and_undo_puts_everything_back() -> None:
    before = [vars(cls).copy() for cls in openai.OpenAI.__mro__]
    undo = callmeter.instrument()
    again = callmeter.instrument("openai")
    assert "openai" in undo.names
    assert again.names == ()
    assert [vars(cls).copy() for cls in openai.OpenAI.__mro__] != before
    again()
    with undo:
        pass
    undo()
    assert [vars(cls).copy() for cls in openai.OpenAI.__mro__] == before
