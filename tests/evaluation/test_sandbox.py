"""Programs that a model wrote: each ends in the verdict it deserves, and reaches nothing of the machine it runs on."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trimode.errors import InvalidInput, StorageError
from trimode.evaluation import sandbox
from trimode.evaluation.sandbox import Limits, Verdict, run

pytestmark = pytest.mark.medium

SMALL = Limits(cpu_seconds=1, wall_seconds=10.0, memory_mb=96, file_mb=1, processes=4, open_files=16)
isolated = pytest.mark.skipif(
    os.name != "posix" or sandbox.reason_against() is not None,
    reason="the kernel gives no namespaces here, so nothing can be isolated",
)
EVERY_DESCRIPTOR = """import os
for n in range(3, 16):
    try: os.write(n, {})
    except OSError: pass"""
ways = pytest.mark.parametrize("isolate", [pytest.param(True, marks=isolated), False], ids=["isolated", "limits alone"])


@pytest.fixture
def unisolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "reason_against", lambda: "it is a test")


def ran(program: str, checks: str, isolate: bool, monkeypatch: pytest.MonkeyPatch, limits: Limits = SMALL) -> Verdict:
    monkeypatch.setattr(sandbox, "reason_against", lambda: None if isolate else "it is a test")
    return run(program, checks, limits, allow_unsandboxed=True)


# Verdicts


@ways
@pytest.mark.parametrize(
    ("program", "checks", "verdict"),
    [
        ("def f(x): return x + 1", "assert f(1) == 2", Verdict(outcome="passed")),
        ("def f(x): return x", "x = 1\nassert f(x) == 2", Verdict(outcome="failed", detail="assert f(x) == 2")),
        ("raise 3 from", "", Verdict(outcome="error", detail="SyntaxError: invalid syntax (<program>, line 1)")),
        ("f = 3", "assert f(1)", Verdict(outcome="error", detail="TypeError: 'int' object is not callable")),
        ("assert False, 'here'", "", Verdict(outcome="error", detail="AssertionError: here")),
        ("import os\nos.kill(os.getpid(), 11)", "", Verdict(outcome="error", detail="ended by signal 11")),
    ],
    ids=["right", "wrong", "no Python", "raises", "asserts itself", "crashes"],
)  # fmt: skip
def test_a_verdict_says_how_a_program_ended(
    program: str, checks: str, verdict: Verdict, isolate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ran(program, checks, isolate, monkeypatch) == verdict


def test_text_that_is_no_unicode_and_checks_beyond_a_pipe_are_only_text(unisolated: None) -> None:
    many = "assert f(1) == 2 #" + "x" * 200_000
    assert run("x = '\ud800'", "", SMALL, allow_unsandboxed=True).outcome == "error"
    assert run("def f(x): return x + 1", many, SMALL, allow_unsandboxed=True).outcome == "passed"


@pytest.mark.medium
@ways
def test_a_program_without_end_is_ended(isolate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran("while True: pass", "", isolate, monkeypatch).outcome == "timeout"
    brief = Limits(wall_seconds=0.3)
    asleep = ran("import time\ntime.sleep(60)", "", isolate, monkeypatch, brief)
    assert asleep == Verdict(outcome="timeout", detail="more than 0.3 s")
    stubborn = "import signal, time\nfor n in (2, 15, 24): signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)"
    assert ran(stubborn, "", isolate, monkeypatch, brief).outcome == "timeout"


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", "MemoryError"),
        ("x = []\nwhile True: x = [x, x]", "MemoryError"),
        ("x = 'a' * (1 << 40)", "MemoryError"),
        ("open('big', 'wb').write(bytes(64 << 20))", "OSError"),
        ("x = [open('f', 'w') for _ in range(999)]", "OSError"),
    ],
    ids=["blocks", "small parts", "at once", "file", "descriptors"],
)
def test_more_than_the_limits_is_a_verdict_of_its_own(program: str, named: str) -> None:
    verdict = run(program, "", SMALL, allow_unsandboxed=True)
    assert (verdict.outcome, verdict.detail.partition(":")[0]) == ("resource", named)


@isolated
@pytest.mark.parametrize(
    "bomb",
    ["import os\nwhile True: os.fork()",
     "from threading import Event, Thread\nwhile True: Thread(target=Event().wait).start()"],
    ids=["processes", "threads"],
)  # fmt: skip
def test_a_fork_bomb_meets_its_limit_and_leaves_nothing(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_COMMAND", (*sandbox._COMMAND[:-1], "a-bomb", sandbox._COMMAND[-1]))
    assert run(bomb, "", SMALL).outcome == "resource"
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"a-bomb" in content(path)]


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ended meanwhile
        return b""


@isolated
def test_many_files_do_not_fill_the_disk() -> None:
    program = "for i in range(9999): open(str(i), 'wb').write(bytes(1 << 16))"
    assert run(program, "", SMALL).outcome == "resource"


def test_what_is_printed_goes_nowhere() -> None:
    program = "import sys\nfor _ in range(20): print('x' * (1 << 20)); print('y' * (1 << 20), file=sys.stderr)"
    assert run(program, "assert True", SMALL, allow_unsandboxed=True).outcome == "passed"


def test_what_the_watcher_reads_is_bounded() -> None:
    program = "\n".join([EVERY_DESCRIPTOR.format("b'x' * (1 << 16)")] * 3)
    assert run(program, "", Limits(wall_seconds=0.5), allow_unsandboxed=True).outcome == "timeout"


# A pass is earned


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "raise SystemExit",
        "import os\nos._exit(0)",
        "def f(x):\n    import os\n    os._exit(0)",
        "def f(x): exit_ = __import__('sys').exit(0)",
        "import atexit\natexit.register(print, 'passed')\nraise SystemExit(0)",
        "import sys\nsys.modules['program'] = sys.modules['__main__'] = None\nprint('passed')\nsys.exit()",
        EVERY_DESCRIPTOR.format(r"""b'"defined"\n["passed", "", ""]\n'""") + "\nos._exit(0)",
        "import builtins\nbuiltins.exec = builtins.compile = lambda *a: None",
        "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.BaseException = ValueError",
        "import json, os, struct\njson.loads = json.dumps = struct.unpack = lambda *a, **k: ''",
        "import os\nos.read = lambda *a: b''\nos.getpid = lambda: 1",
        "__builtins__ = {}",
        "import sys\ndef skip(*a):\n    a[0].f_trace_opcodes = True\n    return None\nsys.settrace(skip)",
        "import os\nif os.fork() == 0: f = lambda x: 2",
    ],
    ids=["sys.exit", "SystemExit", "_exit", "_exit in a call", "exit in a call", "atexit", "sys.modules", "forged",
         "exec", "AssertionError", "json", "os", "__builtins__", "trace", "fork"],
)  # fmt: skip
def test_nothing_but_checks_that_hold_is_a_pass(program: str) -> None:
    assert run(program, "assert f(1) == 2", SMALL, allow_unsandboxed=True).outcome in ("failed", "error")


# What it can reach


@isolated
def test_a_program_sees_no_environment_no_files_no_other_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIMODE_SECRET", "1")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    program = "import os, signal, sys\n"
    checks = f"""
assert dict(os.environ) == {{}}
assert os.listdir('.') == []
assert not os.path.exists({str(secret)!r}) and not os.path.exists('/proc') and not os.path.exists('/home')
assert os.getuid() != 0 and sys.stdin.read() == ''
try: open(os.path.dirname(os.__file__) + '/x', 'w')
except OSError: pass
else: assert False, 'writes where Python is'
for target in (os.getppid(), {os.getpid()}):
    try: os.kill(target, signal.SIGKILL)
    except OSError: pass
open('mine', 'w').write('x')
import ctypes, json, math, re, sqlite3, zlib
assert ctypes.CDLL(None).unshare(0x10000000) == -1
"""
    assert run(program, checks, Limits(processes=4)) == Verdict(outcome="passed")


@isolated
def test_a_program_reaches_no_network_not_even_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        verdict = run(program, "")
    assert (verdict.outcome, "unreachable" in verdict.detail) == ("error", True)


@ways
def test_a_program_that_kills_its_parent_has_no_other_verdict_to_give(
    isolate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import os\ntry: os.kill(os.getppid(), 9)\nexcept OSError: pass"
    outcome = ran(program, "assert True", isolate, monkeypatch).outcome
    assert outcome == ("passed" if isolate else "error")  # in isolation, the signal arrives nowhere


def test_a_verdict_is_the_same_every_time() -> None:
    program = "import random\nx = (''.join(set('abcdefgh')), random.random())"
    told = {run(program, "raise ValueError(x)", SMALL, allow_unsandboxed=True).detail for _ in range(2)}
    assert len(told) == 1


@ways
def test_no_child_and_no_folder_is_left(isolate: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def remembered(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remembered)
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    program = "import os\nopen('f', 'w').write('x')\nif os.fork() == 0:\n    import time\n    time.sleep(60)"
    assert ran(program, "assert True", isolate, monkeypatch).outcome == "passed"
    assert [child.returncode for child in started] == [0]
    assert list(tmp_path.iterdir()) == []


# Where there is none


def test_without_a_sandbox_nothing_runs_unless_it_is_allowed(unisolated: None) -> None:
    with pytest.raises(InvalidInput, match=r"no sandbox.*it is a test.*--allow-unsandboxed"):
        run("x = 1", "")
    assert run("x = 1", "assert x == 1", allow_unsandboxed=True).outcome == "passed"


def test_a_sandbox_that_breaks_is_not_the_programs_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "reason_against", lambda: None)
    monkeypatch.setattr(sandbox, "_launch", lambda *a, **k: {"outcome": "refused", "detail": "unshare: no room"})
    with pytest.raises(StorageError, match="no room"):
        run("x = 1", "")


def test_the_reason_against_is_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_launch", lambda *a, **k: {"outcome": "refused", "detail": "unshare: not permitted"})
    expected = "unshare: not permitted" if sys.platform == "linux" else f"{sys.platform} has no namespaces"
    assert sandbox.reason_against.__wrapped__() == expected


def test_limits_have_ranges() -> None:
    with pytest.raises(InvalidInput, match="memory_mb is 1"):
        Limits(memory_mb=1)
