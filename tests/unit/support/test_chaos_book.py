"""The book of faults: a chaos test that injected nothing, or not every kind, fails."""

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]


def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, body: str, *args: str
) -> pytest.RunResult:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a child run starts in half the time
    pytester.makepyfile(f"def test_it(chaos):\n    {body}\n")
    return pytester.runpytest_subprocess("-p", "support.chaos", *args)


def test_what_was_injected_is_printed_with_its_seed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "chaos.expect('kill'); chaos.count('kill', chaos.pick(short=2, long=9))"
    result = run(pytester, monkeypatch, body, "--seed", "7")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*test_it  seed 7: kill 2"])
    result = run(pytester, monkeypatch, body, "--chaos", "long")
    result.stdout.fnmatch_lines(["*: kill 9"])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("pass", "*counts no faults*"),
        ("chaos.expect('kill', 'stop'); chaos.count('kill')", "*never injected: stop*"),
    ],
)
def test_a_run_without_its_faults_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    result = run(pytester, monkeypatch, body)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([why])


def test_the_same_seed_throws_the_same_dice(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "chaos.count('die', chaos.random.randrange(1, 10**9))"
    lines = {
        next(line for line in run(pytester, monkeypatch, body).outlines if "seed" in line)
        for _ in range(2)
    }
    assert len(lines) == 1
