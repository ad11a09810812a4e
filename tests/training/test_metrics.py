"""Numbers of a run on disk and on the screen: strict JSON, each step once, never a reason to fail."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trimode.training.metrics import FILE, Metrics, clock, drop_after

LINE = {"step": 2, "epoch": 0.5, "loss": 3.0, "ar": 1.0, "diffusion": 2.0, "norm": 0.5, "rate": 0.1, "tokens": 100,
        "tokens_per_second": 50.0, "seconds": 4.0}  # fmt: skip


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines, as strict JSON: no NaN and no Infinity."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    text = (folder / FILE).read_text("utf-8")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_logged_step_is_one_line_of_json_and_one_for_a_reader(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Metrics(tmp_path, "joint", steps=10) as metrics:
        metrics.log(LINE)
        metrics.log(LINE | {"step": 4, "seconds": 8.0})
    assert read(tmp_path) == [LINE, LINE | {"step": 4, "seconds": 8.0}]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "joint 2/10  loss 3.000 (ar 1.000, diffusion 2.000)  norm 0.50  50 tokens/s  0:00:16 left",
        "joint 4/10  loss 3.000 (ar 1.000, diffusion 2.000)  norm 0.50  50 tokens/s  0:00:12 left",
    ]


def test_a_number_that_is_none_never_reaches_the_file(tmp_path: Path) -> None:
    with Metrics(tmp_path, "joint", steps=10) as metrics, pytest.raises(ValueError, match="JSON compliant"):
        metrics.log(LINE | {"loss": float("nan")})
    assert not (tmp_path / FILE).exists()


def test_a_resumed_run_leaves_each_step_once(tmp_path: Path) -> None:
    for start in (0, 4):
        with Metrics(tmp_path, "joint", steps=10, start=start) as metrics:
            for step in range(start + 1, start + 7):
                metrics.log(LINE | {"step": step, "tokens": start})
    assert [line["step"] for line in read(tmp_path)] == list(range(1, 11))
    assert [line["tokens"] for line in read(tmp_path)] == [0] * 4 + [4] * 6


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"step": 1}\n{"step": 2}\n{"ste', "utf-8")
    drop_after(tmp_path / FILE, 5)
    assert read(tmp_path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("bad", [b"\0\0\0\xff\n", b"{\n", b"3\n", b"{}\n", b'{"step": "x"}\n'])
def test_a_damaged_line_is_dropped_and_no_other(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / FILE).write_bytes(b'{"step": 1}\n' + bad + b'{"step": 2}\n')
    drop_after(tmp_path / FILE, 5)
    assert read(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Metrics(tmp_path, "joint", steps=10) as metrics:
        metrics.advance(1)
        metrics.log(LINE)
        assert metrics.bar is not None
        assert metrics.bar.tasks[0].completed == 2


@pytest.mark.medium
def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with Metrics(tmp_path, "joint", steps=10, tensorboard=True) as metrics:
        metrics.log(LINE)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(2, 3.0)]
    assert set(board.Tags()["scalars"]) == set(LINE)


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_run_goes_on_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_broken: bool) -> None:
    if is_broken:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with Metrics(tmp_path, "joint", steps=10, tensorboard=True) as metrics:
        metrics.log(LINE)
    assert read(tmp_path) == [LINE]


def test_time_is_told_in_hours_minutes_and_seconds() -> None:
    assert [clock(seconds) for seconds in (0, 59.5, 3723)] == ["0:00:00", "0:01:00", "1:02:03"]
