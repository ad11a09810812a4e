"""What a report holds is what is drawn, and a picture says of what it is."""

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trimode.errors import InvalidInput, StorageError
from trimode.evaluation import plots
from trimode.evaluation.metrics import Answer, Row, measured
from trimode.evaluation.plots import draw

pytestmark = pytest.mark.medium  # the first picture loads matplotlib
PNG = b"\x89PNG\r\n\x1a\n"


def row(task: str, setting: str, *, speed: int = 1, threshold: float | None = None, drafts: bool = False,
        n: int = 4, is_judged: bool = True) -> Row:  # fmt: skip
    kind = "verify" if drafts else "decode"
    answers = [
        Answer(
            tokens=12 * speed + i, forwards={kind: 12},
            correct=i > 0 if is_judged else None,
            verify_tokens=12 * speed + i if drafts else 0, positions=((12, 12, 9), (8, 6, 5)) if drafts else (),
        )
        for i in range(n)
    ]  # fmt: skip
    placing = {"task": task, "setting": setting, "mode": setting.partition(":")[0], "placement": None}
    return Row(**placing, threshold=threshold, **measured(answers))  # type: ignore[typeddict-item]


def settings(task: str, **more: Any) -> list[Row]:
    sweep = {0.5: 6, 0.9: 3, 0.99: 2}
    return [
        row(task, "ar", **more),
        row(task, "self_speculation", speed=5, drafts=True, **more),
        row(task, "diffusion", speed=3, threshold=0.9, **more),
        *(row(task, f"diffusion:confidence_threshold={t}", speed=s, threshold=t, **more) for t, s in sweep.items()),
    ]


def report(*rows: Row) -> dict[str, Any]:
    return {"checkpoint": "some/model", "rows": list(rows), "about": "what plots ignore"}


FULL = report(*settings("json"), *settings("sql", n=6), *settings("all", n=10), *settings("speed", is_judged=False))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The figures that are painted, by the names of their files, which are not written."""
    from matplotlib.figure import Figure

    painted: dict[str, Any] = {}

    def keep(out: Path, size: tuple[float, float], paint: Any) -> Path:
        painted[out.name] = Figure(figsize=size)
        paint(painted[out.name])
        return out

    monkeypatch.setattr(plots, "_picture", keep)
    yield painted


def test_every_picture_that_has_numbers_is_written(tmp_path: Path) -> None:
    made = draw(FULL, tmp_path / "plots")
    assert [path.name for path in made] == [
        "accuracy-all.png",
        "acceptance-all.png",
        "acceptance-speed.png",
        "tasks.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in made)


def test_without_sums_every_task_has_its_pictures(figures: dict[str, Any]) -> None:
    draw(report(row("json:wide", "ar")), Path("plots"))
    assert list(figures) == ["accuracy-json-wide.png", "tasks.png"]
    assert draw(report(), Path("plots")) == []


def test_a_sweep_is_one_line_with_each_threshold_once_and_the_rest_are_points(figures: dict[str, Any]) -> None:
    draw(FULL, Path("plots"))
    (axis,) = figures["accuracy-all.png"].axes
    lines = {each.get_label(): each.lines[0].get_xydata() for each in axis.containers}
    assert {name: len(points) for name, points in lines.items()} == {
        "ar": 1, "self_speculation": 1, "diffusion, by confidence_threshold": 3,
    }  # fmt: skip
    expected = [next(r for r in settings("all", n=10) if r["threshold"] == t) for t in (0.5, 0.9, 0.99)]
    speeds = [r["tokens_per_forward"]["value"] for r in expected]
    assert lines["diffusion, by confidence_threshold"][:, 0].tolist() == pytest.approx(speeds)
    assert lines["ar"][0, 1] == pytest.approx(90.0)
    assert [text.get_text() for text in axis.texts] == ["0.5", "0.9", "0.99"]
    assert "some/model, n = 10" in axis.get_title()


def test_acceptance_is_drawn_of_all_drafts_and_of_those_that_came_so_far(figures: dict[str, Any]) -> None:
    draw(FULL, Path("plots"))
    (axis,) = figures["acceptance-all.png"].axes
    of_drafts, of_reached = (line.get_ydata().tolist() for line in axis.lines)
    assert of_drafts == pytest.approx([75.0, 100 * 5 / 12])
    assert of_reached == pytest.approx([75.0, 100 * 5 / 6])


def test_bars_stand_for_a_sweep_by_its_usual_threshold_sums_first(figures: dict[str, Any]) -> None:
    draw(FULL, Path("plots"))
    speed, right = figures["tasks.png"].axes
    labels = [label.get_text() for label in speed.get_yticklabels()]
    assert labels == ["all (n = 10)", "json (n = 4)", "sql (n = 6)", "speed (n = 4)"]
    drawn = {bars.get_label(): len(bars) for bars in speed.containers if hasattr(bars, "patches")}
    assert drawn == {"ar": 4, "self_speculation": 4, "diffusion": 4}
    assert [text.get_text() for text in right.texts] == ["not judged"]
    del figures["tasks.png"]
    draw(report(*settings("json")[3:]), Path("plots"))
    assert [b.get_label() for b in figures["tasks.png"].axes[0].containers if hasattr(b, "patches")] == [
        "diffusion:confidence_threshold=0.9"
    ]


def test_more_settings_than_colours_are_still_told_apart() -> None:
    looks = plots._looks([row("json", f"self_speculation:draft_length={i}") for i in range(20)])
    assert len({(look.colour, look.marker) for look in looks.values()}) == 20
    assert len({(look.colour, look.hatch) for look in looks.values()}) == 20


def test_other_options_of_a_sweep_stay_in_its_name() -> None:
    spelled = "diffusion:block_size=8,confidence_threshold=0.5,rule=entropy"
    assert plots._key(row("json", spelled)) == "diffusion:block_size=8,rule=entropy"
    assert plots._key(row("json", "diffusion:block_size=8,confidence_threshold=0.5")) == "diffusion:block_size=8"


def test_a_sweep_does_not_run_through_what_has_no_threshold(figures: dict[str, Any]) -> None:
    none = row("all", "diffusion:block_size=8,confidence_threshold=none", speed=2)
    draw(report(*settings("all"), none), Path("plots"))
    (axis,) = figures["accuracy-all.png"].axes
    points = {each.get_label(): len(each.lines[0].get_xydata()) for each in axis.containers}
    assert points["diffusion, by confidence_threshold"] == 3
    assert points[none["setting"]] == 1


def test_what_was_never_run_has_no_point_and_no_bar(figures: dict[str, Any]) -> None:
    refused = measured([Answer(tokens=0, forwards={}, correct=False)])
    rows = [row("json", "ar"), row("long", "ar") | refused, row("speed", "ar", is_judged=False) | measured([])]
    draw(report(*rows), Path("plots"))  # type: ignore[arg-type]
    assert list(figures) == ["accuracy-json.png", "tasks.png"]
    speed, right = figures["tasks.png"].axes
    assert [[len(bars) for bars in axis.containers if hasattr(bars, "patches")] for axis in (speed, right)] == [
        [1],
        [2],
    ]
    del rows[:2]
    draw(report(*rows), Path("plots"))  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("a file")
    with pytest.raises(StorageError, match=r"plots.*cannot be written"):
        draw(report(row("json", "ar")), tmp_path / "plots")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def hidden(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", hidden)
    with pytest.raises(InvalidInput, match=r"plots need matplotlib: pip install 'trimode\[train\]'"):
        draw(report(row("json", "ar")), tmp_path)
