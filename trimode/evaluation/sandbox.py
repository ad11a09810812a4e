"""Runs a program that a model wrote in a child process of its own, and says how it ended. docs/sandbox.md has the rest.

This side starts the child (executed/, which imports nothing else of trimode) and reads one verdict from it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from trimode.errors import InvalidInput, StorageError
from trimode.evaluation.executed.messages import message
from trimode.options import check_options, option

Outcome = Literal["passed", "failed", "error", "timeout", "resource"]

_START = "import sys; sys.path.insert(0, sys.argv.pop()); from executed.watcher import main; del sys.path[0]; main()"
# As `-I`, which would ignore the hash seed too, and then a verdict could depend on the order of a set.
_COMMAND = ("-s", "-P", "-S", "-B", "-c", _START, str(Path(__file__).parent))
_GRACE = 10.0  # seconds beyond the child's own deadline until it is killed from here


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use; memory is that of each process, files those in its folder."""

    cpu_seconds: int = option(5, "processor seconds of a process", low=1)
    wall_seconds: float = option(20.0, "seconds from start to end", low=0.1)
    memory_mb: int = option(512, "address space of a process in MiB", low=64)
    file_mb: int = option(8, "size of a file in MiB, and of its folder", low=1)
    processes: int = option(8, "processes and threads at once", low=1)
    open_files: int = option(32, "descriptors open at once", low=8)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a program ended. `passed`: all checks ran and held; `failed`: one did not; `error`: something else was
    raised, or it ended early; `timeout`; `resource`: it wanted more than its limits."""

    outcome: Outcome
    detail: str = ""


DEFAULT = Limits()


def run(program: str, checks: str, limits: Limits = DEFAULT, *, allow_unsandboxed: bool = False) -> Verdict:
    """Execute `program`, then `checks` in the same module. Never raises for what the program does.

    Raises InvalidInput where the machine has no sandbox and `allow_unsandboxed` does not say to go without;
    StorageError where a sandbox that was to be had cannot be set up any more.
    """
    require(allow_unsandboxed)
    said = _launch(program, checks, limits, isolate=reason_against() is None)
    if said["outcome"] == "refused":
        raise StorageError(f"the sandbox could not be set up: {said['detail']}")
    return Verdict(**said)


def require(allow_unsandboxed: bool) -> None:
    """Raise InvalidInput if programs cannot be run here."""
    if os.name != "posix":
        raise InvalidInput("programs that a model wrote run on Linux and other POSIX systems alone")
    reason = None if allow_unsandboxed else reason_against()
    if reason is not None:
        raise InvalidInput(
            f"this machine has no sandbox for programs that a model wrote ({reason}); "
            "--allow-unsandboxed runs them with limits alone"
        )


@cache
def reason_against() -> str | None:
    """Why programs cannot be isolated here, found by isolating one; None where they can."""
    if sys.platform != "linux":
        return f"{sys.platform} has no namespaces"
    said = _launch("x = 1", "assert x == 1", DEFAULT, isolate=True)
    return None if said["outcome"] == "passed" else said["detail"]


def _launch(program: str, checks: str, limits: Limits, *, isolate: bool) -> dict[str, Any]:
    """Fields of a Verdict, or {outcome: refused, detail} where isolation failed."""
    job = {"program": program, "isolate": isolate, **asdict(limits)}
    with (
        tempfile.TemporaryDirectory(prefix="trimode-", ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            [sys.executable, *_COMMAND], cwd=folder, env={"PYTHONHASHSEED": "0"}, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as child,
    ):  # fmt: skip
        try:
            said, _ = child.communicate(
                message(json.dumps(job)) + message(checks), timeout=limits.wall_seconds + _GRACE
            )
        except subprocess.TimeoutExpired:
            return {"outcome": "timeout", "detail": f"more than {limits.wall_seconds:g} s"}
        finally:
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
    try:
        return dict(json.loads(said))
    except ValueError:
        return {"outcome": "error", "detail": "the process that watches over it ended before it did"}
