"""What the doctor says of the installation."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from callmeter.cli.doctor_finding import State
from callmeter.cli.doctor_local import look_at_installation


def test_a_module_without_a_spec_is_installed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # Faust puts an object of its own in the place of its module, without a spec.
    stranger = ModuleType("faust")
    stranger.__spec__ = None
    monkeypatch.setitem(sys.modules, "faust", stranger)
    states = {finding.piece: finding.state for finding in look_at_installation()}
    assert states["processors"] is State.OK


def test_what_is_missing_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "chdb", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = {finding.piece: finding for finding in look_at_installation()}
    assert found["embedded"].state is State.UNASKED
    assert "callmeter[embedded]" in found["embedded"].detail


def test_pure_python_is_worth_a_look_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callmeter_processors.ordinary.compiled", lambda: False)
    monkeypatch.setattr("callmeter.sdk.hot.compiled", lambda: False)
    found = {finding.piece: finding for finding in look_at_installation()}["compiled"]
    assert found.state is State.NOTICE
    assert found.detail == (
        "pure Python; the meter takes twice the CPU; a traced call takes half as long again; "
        "install a C compiler and reinstall"
    )
    assert found.guide == "deploy.md#what-to-install"


def test_compiled_code_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callmeter_processors.ordinary.compiled", lambda: True)
    monkeypatch.setattr("callmeter.sdk.hot.compiled", lambda: True)
    found = {finding.piece: finding for finding in look_at_installation()}["compiled"]
    assert found.state is State.OK
    assert "compiled" in found.detail


def test_half_of_it_is_worth_a_look_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callmeter_processors.ordinary.compiled", lambda: True)
    monkeypatch.setattr("callmeter.sdk.hot.compiled", lambda: False)
    found = {finding.piece: finding for finding in look_at_installation()}["compiled"]
    assert found.state is State.NOTICE
    assert "a traced call" in found.detail
    assert "the meter" not in found.detail
