"""A program that a test starts never holds the test up."""

import time

import pytest

from tests.support.processes import run_python

LEAVES_ANOTHER = """
import subprocess, sys, time
print("here", file=sys.stderr, flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session={apart})
time.sleep({seconds})
"""


def test_what_outlives_a_program_holds_nobody_up() -> None:
    start = time.perf_counter()
    run_python("-c", LEAVES_ANOTHER.format(apart=True, seconds=0))
    assert time.perf_counter() - start < 25


@pytest.mark.parametrize("apart", [False, True])
def test_a_program_that_hangs_fails_its_test(apart: bool) -> None:
    start = time.perf_counter()
    with pytest.raises(pytest.fail.Exception, match=r"runs for 5 s(.|\n)*\nhere\n"):
        run_python("-c", LEAVES_ANOTHER.format(apart=apart, seconds=60), timeout=5)
    assert time.perf_counter() - start < 25


def test_another_return_code_fails_its_test() -> None:
    with pytest.raises(AssertionError, match="only this"):
        run_python("-c", "import sys; sys.exit('only this')")
    run_python("-c", "import sys; sys.exit(7)", expect=7)
