"""The process that watches over a program: isolates itself, starts the runner, ends it at its deadline, and judges."""

import json
import os
import select
import signal
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

from .isolation import die_with_parent, isolate
from .messages import receive, send
from .program import attempt, confine

Job = dict[str, Any]
SAID = 1 << 16  # bytes that are read of what the runner reports


def main() -> None:
    """A job, then its checks, from standard input; one verdict to standard output."""
    job = receive(0)
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
    deadline, said, is_asked, is_open = time.monotonic() + job["wall_seconds"], b"", False, True
    while True:
        if is_open and select.select([answers], [], [], 0.01)[0]:
            piece = os.read(answers, 4096)
            said, is_open = said + piece, bool(piece) and len(said) < SAID
        elif not is_open:
            time.sleep(0.001)
        if b"\n" in said and not is_asked:
            is_asked = True
            # The pipe may be smaller than the checks, and nobody may ever read it.
            threading.Thread(target=hand_out, args=(asking, checks, token), daemon=True).start()
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            end_all(child, job)
            return verdict(said + rest(answers), token, status, used.ru_utime + used.ru_stime, job)
        if time.monotonic() > deadline:
            end_all(child, job)
            os.waitpid(child, 0)
            return "timeout", f"more than {job['wall_seconds']:g} s"


def hand_out(asking: int, checks: str, token: str) -> None:
    with suppress(OSError):
        send(asking, checks)
        send(asking, token)


def end_all(child: int, job: Job) -> None:
    """Kill what is left. Where the child is the first of its namespace, the kernel ends the others with it."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL) if job["isolate"] else os.killpg(child, signal.SIGKILL)


def rest(answers: int) -> bytes:
    """What stands in the pipe already."""
    os.set_blocking(answers, False)
    try:
        return os.read(answers, SAID)
    except BlockingIOError:
        return b""


def verdict(said: bytes, token: str, status: int, seconds: float, job: Job) -> tuple[str, str]:
    """From what the runner said last, or else from how it ended."""
    with suppress(ValueError, TypeError, KeyError):
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


