"""The process that executes a program and its checks under limits. What it says is trusted only with the token."""

import builtins
import errno
import json
import os
import random
import resource
import sys
import types
from contextlib import suppress
from typing import Any, NoReturn

from .isolation import die_with_parent, drop_privileges
from .messages import receive

Job = dict[str, Any]
MIB = 1 << 20
RESERVE = 4 * MIB  # given back when memory runs out, so that this can still be said
WANTED_MORE = (errno.EFBIG, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)


def confine(job: Job) -> None:
    """No input, output, environment; limits, and no privilege left that could lift them."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    os.environ.clear()
    if job["isolate"]:
        os.setsid()
        drop_privileges()
        die_with_parent()
    processes = job["processes"] + (2 if job["isolate"] else running())
    limits = (
        ("CORE", 0), ("CPU", job["cpu_seconds"]), ("AS", job["memory_mb"] * MIB), ("FSIZE", job["file_mb"] * MIB),
        ("NOFILE", job["open_files"]), ("NPROC", processes),
    )  # fmt: skip
    for name, most in limits:
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(ValueError):  # systems without namespaces lack some of these limits too
            resource.setrlimit(kind, (soft, soft + 1 if name == "CPU" and soft != hard else soft))


def running() -> int:
    """Processes and threads that this user has already, where /proc says so: the limit counts them all."""
    n = 0
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with suppress(OSError):
            n += len(os.listdir(f"/proc/{name}/task")) if os.stat(f"/proc/{name}").st_uid == os.getuid() else 0
    return n


def attempt(program: str, asked: int, answering: int) -> NoReturn:
    """Execute program and checks in one module, and report: a line when the program is through, a line at the end.

    What is used after the program is bound before it, for a program can put anything in the place of anything.
    """
    run, translate, take, tell, end, me = exec, compile, receive, say, os._exit, os.getpid
    untrace, unprofile, ending, anything, owner = sys.settrace, sys.setprofile, end_of, BaseException, me()
    own, names, before, checks = types.ModuleType("program"), vars(builtins), dict(vars(builtins)), ""
    sys.modules["program"] = own
    for name in [name for name in sys.modules if name.partition(".")[0] == __name__.partition(".")[0]]:
        del sys.modules[name]
    scope, reserve = own.__dict__, bytearray(RESERVE)
    random.seed(0)
    try:
        run(translate(program, "<program>", "exec"), scope)
        if me() != owner:
            end(0)
        tell(answering, "defined")
        checks = take(asked)
        untrace(None)
        unprofile(None)
        names.clear()
        names.update(before)
        scope["__builtins__"] = builtins
        run(translate(checks, "<checks>", "exec"), scope)
        if me() != owner:
            end(0)
        report = ["passed", "", take(asked)]
    except anything as error:
        del reserve
        report = [*ending(error, checks), ""]
        if me() == owner and not checks:
            tell(answering, "undefined")
    if me() == owner:
        tell(answering, report)
    end(0)


def say(descriptor: int, content: Any) -> None:
    """A line of JSON."""
    os.write(descriptor, json.dumps(content).encode() + b"\n")


def end_of(error: BaseException, checks: str) -> tuple[str, str]:
    """Outcome and detail of what was raised, by the program or, where there are any, by the checks."""
    if isinstance(error, MemoryError):
        error.__traceback__ = None  # and with it all that the program still holds
        return "resource", "MemoryError"
    detail = f"{type(error).__name__}: {text_of(error)}"[:200]
    if isinstance(error, AssertionError) and checks:
        return "failed", line_of(error, checks) or detail
    no_thread = isinstance(error, RuntimeError) and "can't start new thread" in detail
    if no_thread or (isinstance(error, OSError) and error.errno in WANTED_MORE):
        return "resource", detail
    return "error", detail


def text_of(error: BaseException) -> str:
    """What an error says; its class may be the program's."""
    try:
        return str(error)
    except BaseException:  # the program's own code runs here
        return ""


def line_of(error: BaseException, checks: str) -> str:
    """The line of the checks that did not hold."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == "<checks>" else line
        trace = trace.tb_next
    return checks.split("\n")[line - 1].strip()[:200] if line else ""
