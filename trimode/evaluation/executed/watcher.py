"""The process that watches over a program: isolates itself, starts the runner, ends it at its deadline, and judges."""

import json
import os
import select
import signal
import time
from contextlib import suppress
from typing import Any, NoReturn

from .isolation import die_with_parent, isolate
from .messages import message, receive
from .program import attempt, confine

Job = dict[str, Any]
SAID = 1 << 16  # bytes that are read of what the runner reports


def main() -> None:
    """A job, then its checks, from standard input; one verdict to standard output."""
    job = json.loads(receive(0))
    die_with_parent()
    if job["isolate"]:
        try:
            isolate(os.getcwd(), job["file_mb"])
        except OSError as error:
            return print(json.dumps({"outcome": "refused", "detail": str(error)}))
    answers, answering = os.pipe()
    asked, asking = os.pipe()
    watcher, child = os.getpid(), os.fork()
    if child == 0:
        os.close(answers)
        os.close(asking)
        begin(job, watcher, asked, answering)
    os.close(asked)
    os.close(answering)
    outcome, detail = watch(child, answers, asking, job)
    print(json.dumps({"outcome": outcome, "detail": detail}))


def begin(job: Job, watcher: int, asked: int, answering: int) -> NoReturn:
    """The first process: becomes the runner, or, of a namespace, has one and ends with it."""
    os.setsid()
    die_with_parent()
    if os.getppid() not in (watcher, 0):  # 0: it is outside the namespace
        os._exit(1)
    runner = os.fork() if job["isolate"] else 0
    while runner:
        ended, status = os.wait()
        if ended == runner:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
    confine(job)
    attempt(job.pop("program"), asked, answering)


def watch(child: int, answers: int, asking: int, job: Job) -> tuple[str, str]:
    """The verdict on a program: hands out checks and token when it is defined, ends it at the deadline."""
    checks, token = receive(0), os.urandom(16).hex()
    deadline, said, to_say = time.monotonic() + job["wall_seconds"], b"", message(checks) + message(token)
    os.set_blocking(asking, False)  # nobody may ever read it
    while time.monotonic() < deadline:
        said = listen(answers, said)
        if b"\n" in said:
            to_say = to_say[push(asking, to_say) :]
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            end_all(child, job)
            return verdict(listen(answers, said), token, status, used.ru_utime + used.ru_stime, job)
    end_all(child, job)
    os.waitpid(child, 0)
    return "timeout", f"more than {job['wall_seconds']:g} s"


def listen(answers: int, said: bytes) -> bytes:
    """`said` and what came within a hundredth of a second; not more than SAID bytes, whoever talks."""
    if len(said) < SAID and select.select([answers], [], [], 0.01)[0]:
        piece = os.read(answers, SAID)
        if piece:
            return said + piece
    time.sleep(0.001)  # at the end of all talk, select no longer waits
    return said


def push(asking: int, to_say: bytes) -> int:
    """Bytes that the pipe took."""
    try:
        return os.write(asking, to_say)
    except (BlockingIOError, BrokenPipeError):
        return 0


def end_all(child: int, job: Job) -> None:
    """Kill what is left. Where the child is the first of its namespace, the kernel ends the others with it."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL) if job["isolate"] else os.killpg(child, signal.SIGKILL)


def verdict(said: bytes, token: str, status: int, seconds: float, job: Job) -> tuple[str, str]:
    """From what the runner said last, or else from how it ended."""
    with suppress(ValueError, TypeError, LookupError, RecursionError):  # anybody can have written this
        outcome, detail, shown = json.loads(said.split(b"\n")[1])
        if outcome == "passed" and shown != token:
            return "error", "said that it passed before its checks were through"
        if outcome in ("passed", "failed", "error", "resource"):
            return outcome, str(detail)
    code = os.waitstatus_to_exitcode(status)
    number = -code if code < 0 else code - 128
    if number == signal.SIGXCPU or (number == signal.SIGKILL and seconds >= job["cpu_seconds"]):
        return "timeout", f"more than {job['cpu_seconds']} s of processor time"
    if number > 0:
        return "error", f"ended by signal {number}"
    return "error", f"ended before its checks were through (exit status {code})"
