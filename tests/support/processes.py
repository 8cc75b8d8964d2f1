"""Python programs that tests start as processes: each ends in time, or its test fails."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class Program:
    """A started program, ended when its context is left.

    It prints into files: processes that outlive it hold up nobody.
    """

    process: subprocess.Popen[str]
    out: IO[str]
    errors: IO[str]

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self._terminate()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # it, and what it started and left
        self.process.wait()
        self.out.close()
        self.errors.close()

    def end(self, *, expect: int = 0, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Wait for its end, ``expect`` its return code, give what it printed."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"runs for {timeout} s: {self.process.args}\n{_read(self.errors)}")
        out, errors = _read(self.out), _read(self.errors)
        assert code == expect, errors
        return subprocess.CompletedProcess(self.process.args, code, out, errors)

    def _terminate(self) -> None:
        self.process.terminate()  # torchrun ends its processes, in at most 30 s
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(40)


def start_python(
    *arguments: str, cwd: Path = ROOT, before: tuple[str, ...] = (), **variables: str
) -> Program:
    """Start Python, behind another command if one is given, with more environment variables."""
    out, errors = (tempfile.TemporaryFile("a+", errors="replace") for _ in range(2))  # noqa: SIM115
    process = subprocess.Popen(
        [*before, sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=errors,
        text=True,
        start_new_session=True,
    )
    return Program(process, out, errors)


def run_python(
    *arguments: str, expect: int = 0, timeout: float = 120, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end; see :func:`start_python` and :meth:`Program.end`."""
    with start_python(*arguments, cwd=cwd, **variables) as program:
        return program.end(expect=expect, timeout=timeout)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
