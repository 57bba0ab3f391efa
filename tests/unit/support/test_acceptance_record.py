"""The record of proven rows: what counts, what does not, and which marks are refused."""

import json
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]

SUITE = """
    import pytest

    @pytest.mark.acceptance(1)
    def test_passes(): pass

    @pytest.mark.acceptance(2)
    def test_fails(): assert False

    @pytest.mark.acceptance(3)
    @pytest.mark.acceptance(4)
    def test_two_rows(): pass

    @pytest.mark.acceptance(5)
    def test_skips(): pytest.skip("not here")

    @pytest.mark.acceptance(6)
    @pytest.mark.xfail(reason="known")
    def test_expected_to_fail(): assert False

    @pytest.fixture
    def broken_end():
        yield
        raise RuntimeError("teardown")

    @pytest.mark.acceptance(7)
    def test_passes_and_then_breaks(broken_end): pass
"""


@pytest.fixture(autouse=True)
def plugin_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a child run starts in half the time


def run(pytester: pytest.Pytester, suite: str) -> tuple[pytest.RunResult, Path]:
    pytester.makeini("[pytest]\nmarkers =\n    acceptance(row)\n")
    pytester.makepyfile(suite)
    record = pytester.path / "record.json"
    plugin = ("-p", "support.acceptance")
    return pytester.runpytest_subprocess(*plugin, f"--acceptance-record={record}"), record


def test_only_a_test_that_passed_to_its_end_proves_a_row(pytester: pytest.Pytester) -> None:
    _, path = run(pytester, SUITE)
    record = json.loads(path.read_text())
    assert {row: set(tests.values()) for row, tests in record.items()} == {
        "1": {"passed"},
        "2": {"failed"},
        "3": {"passed"},
        "4": {"passed"},
        "5": {"skipped"},
        "6": {"skipped"},
        "7": {"failed"},
    }


@pytest.mark.parametrize("mark", ["0", "232", "'7'", "1, 2", "True", ""])
def test_a_mark_that_is_not_one_row_is_refused(pytester: pytest.Pytester, mark: str) -> None:
    suite = f"import pytest\n@pytest.mark.acceptance({mark})\ndef test_it(): pass\n"
    result, _ = run(pytester, suite)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it: acceptance takes one row, 1 to 231*"])
