"""What a run wrote is what is drawn: every stage, every part, nothing of a damaged line."""

import builtins
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trimode.errors import InvalidInput
from trimode.training.plot import parse, plot, read

PNG = b"\x89PNG\r\n\x1a\n"


def line(step: int, **parts: float) -> str:
    facts = {"step": step, "epoch": step / 10, "norm": 1.0, "rate": 1e-3, "tokens": step * 100}
    return json.dumps(facts | {"tokens_per_second": 500.0, "seconds": step, "loss": sum(parts.values())} | parts)


def write(stage: Path, lines: Sequence[str]) -> None:
    stage.mkdir(parents=True, exist_ok=True)
    (stage / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def some_run(folder: Path) -> Path:
    write(folder / "warm", [line(step, ar=5 - step / 10) for step in (1, 2, 3)])
    write(folder / "both", [line(2, ar=4.0, diffusion=6.0), line(4, ar=3.5, diffusion=5.0, heldout_ar=3.6)])
    for stage in ("warm", "both"):
        (folder / stage / "recipe.toml").write_text('[[stage]]\nname = "warm"\n[[stage]]\nname = "both"\n')
    return folder


def drawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[float], list[float]]]:
    """(label, steps, values) of every curve of the picture."""
    from matplotlib.axes import Axes

    curves, original = [], Axes.plot

    def keep(self: Any, steps: Any, values: Any, *rest: Any, **look: Any) -> Any:
        curves.append((look.get("label", "-"), list(steps), list(values)))
        return original(self, steps, values, *rest, **look)

    monkeypatch.setattr(Axes, "plot", keep)
    plot(run, run / "curves.png")
    return curves


@pytest.mark.medium
def test_a_run_becomes_a_png(tmp_path: Path) -> None:
    picture = plot(some_run(tmp_path), tmp_path / "curves.png")
    assert picture.path.read_bytes().startswith(PNG)
    assert picture.stages == ("warm", "both")
    assert picture.notes == ()


@pytest.mark.medium
def test_stages_stand_one_after_the_other_with_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = drawn(some_run(tmp_path), monkeypatch)
    assert ("ar", [1, 2, 3], [4.9, 4.8, 4.7]) in curves
    assert ("ar", [5, 7], [4.0, 3.5]) in curves
    assert ("diffusion", [5, 7], [6.0, 5.0]) in curves
    assert ("heldout ar", [7], [3.6]) in curves
    assert curves.count(("-", [1, 2, 3], [500.0] * 3)) == 1


def test_without_a_recipe_stages_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    run = some_run(tmp_path)
    for recipe in run.glob("*/recipe.toml"):
        recipe.write_text("not toml [")
    assert [stage.name for stage in read(run)] == ["both", "warm"]


def test_stages_of_several_recipes_are_in_the_order_in_which_they_ended(tmp_path: Path) -> None:
    for ended, name in enumerate(("causal", "both", "adapter")):
        write(tmp_path / name, [line(1, ar=1.0)])
        os.utime(tmp_path / name / "metrics.jsonl", (ended, ended))
        (tmp_path / name / "recipe.toml").write_text(f'[[stage]]\nname = "{name}"\n')
    assert [stage.name for stage in read(tmp_path)] == ["causal", "both", "adapter"]


def test_the_folder_of_a_stage_is_a_run_of_one_stage(tmp_path: Path) -> None:
    assert [stage.name for stage in read(some_run(tmp_path) / "both")] == ["both"]


def test_a_step_done_again_counts_as_it_was_done_last() -> None:
    stage = parse("s", "\n".join([line(1, ar=5.0), line(2, ar=4.0), line(2, ar=3.0)]).encode())
    assert stage.of("ar") == ([1, 2], [5.0, 3.0])


@pytest.mark.parametrize(
    "bad", [b'{"step": 2, "lo', b"\xff\xfe\x00", b"[1, 2]", b'{"loss": 1.0}', b'{"step": "x"}', b""]
)
def test_a_damaged_line_is_skipped_and_told(bad: bytes) -> None:
    stage = parse("s", b"\n".join([line(1, ar=5.0).encode(), bad, line(3, ar=4.0).encode()]))
    assert stage.of("ar") == ([1, 3], [5.0, 4.0])
    assert stage.damaged == (2,)


@pytest.mark.medium
def test_the_note_names_file_and_lines(tmp_path: Path) -> None:
    run = some_run(tmp_path)
    with (run / "both" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss"')
    assert plot(run, tmp_path / "x.png").notes == ("both/metrics.jsonl: skipped 1 damaged line: 3",)


def test_no_metrics_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no metrics; a run writes"):
        plot(tmp_path, tmp_path / "x.png")
    write(tmp_path / "s", ["damaged"])
    with pytest.raises(InvalidInput, match="no metrics; a run writes"):
        plot(tmp_path, tmp_path / "x.png")
    with pytest.raises(InvalidInput, match="no such run folder"):
        plot(tmp_path / "nowhere", tmp_path / "x.png")


@pytest.mark.medium
def test_an_unknown_kind_of_picture_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"curves.xyz: allowed endings are .*\.png"):
        plot(some_run(tmp_path), tmp_path / "curves.xyz")


def test_without_matplotlib_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InvalidInput) as error:
        plot(some_run(tmp_path), tmp_path / "x.png")
    assert str(error.value) == "plotting needs matplotlib: pip install 'trimode[train]'"
