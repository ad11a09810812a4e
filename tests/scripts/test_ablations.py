"""Ablations: one thing at a time, the same tokens for all, verdicts by their rule, nothing said that was not run."""

import os
import random
import signal
import sys
import threading
import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from scripts.ablation.claims import CLAIMS, MARGIN, verdict
from scripts.ablation.layout import Plan, equal_rows, n_packs, read_plan, recipe, write_base, write_plan, write_run
from scripts.ablation.measure import run_of, write_results
from scripts.ablation.running import Crew, Stopped, Work, cores
from scripts.ablation.settings import BASELINE, BY_NAME, RUNS, SETTINGS, Run, modes, phases
from scripts.ablation.tables import MODES, NOT_YET, difference, read_results, written
from trimode.decoding import build
from trimode.errors import InvalidInput
from trimode.evaluation.intervals import Interval
from trimode.models.checkpoint import read_config
from trimode.training.parallel import joined
from trimode.training.recipe import parse, read_recipe
from trimode.training.stages import run as train

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
TINY = Plan(
    ar_steps=1, joint_steps=1, drafter_steps=1, rows=512, streams=1, examples=60, answers=2, vocabulary=512, prompts=1,
    longest=6, draws=1,
)  # fmt: skip


def test_every_setting_differs_from_the_baseline_in_one_thing() -> None:
    labels = {"name", "group", "value", "is_headline"}
    for setting in SETTINGS[1:]:
        changed = [f.name for f in fields(setting) if getattr(setting, f.name) != getattr(BASELINE, f.name)]
        assert len(set(changed) - labels) == 1, setting.name
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)


def test_runs_come_after_what_they_start_from_and_names_that_mean_nothing_are_refused() -> None:
    ar, joint, drafters = phases()
    assert {run.name for run in (*joint, *drafters)} == {run.name for run in RUNS}
    assert [run.name for run in ar] == ["ar-s0", "ar-s1"]
    ar, joint, drafters = phases(["drafter", "shifted-s1"])
    assert [run.name for run in (*ar, *joint, *drafters)] == [
        "ar-s0", "ar-s1", "baseline-s0", "shifted-s1", "drafter-s0",
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match=r"w-2: no such run, known are .*w-0\.1"):
        phases(["w-2"])
    assert [run_of(run.name) for run in RUNS] == list(RUNS)


def test_recipes_say_what_the_settings_are() -> None:
    for run in RUNS:
        (stage,) = parse(tomllib.loads(recipe(run, TINY, 512)), Path("x")).stages
        setting = run.setting
        assert setting is not None
        assert stage.noise.block_sizes == (setting.block_size,)
        if run.stage == "joint":
            assert (stage.weights.ar, stage.weights.diffusion) == (1.0, setting.w_diffusion)
            assert stage.noise.all_masked_share == setting.all_masked_share
            assert stage.noise.half_life == setting.half_life
        assert stage.kind == run.stage


def test_a_folder_keeps_its_plan(tmp_path: Path) -> None:
    write_plan(tmp_path, TINY)
    write_plan(tmp_path, TINY)
    assert read_plan(tmp_path) == TINY
    with pytest.raises(InvalidInput, match=r"another plan: joint_steps 2 \(was 1\)"):
        write_plan(tmp_path, Plan(**asdict(TINY) | {"joint_steps": 2}))


def interval(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("sign", "ends", "said"),
    [
        (1, [(1, 2)], "agree"), (1, [(1, 2), (0.1, 3)], "agree"), (1, [(1, 2), (-0.1, 3)], "too small to tell"),
        (1, [(-3, -1)], "disagree"), (-1, [(-3, -1)], "agree"), (1, [(1, 2), (-2, -1)], "seeds differ"),
        (0, [(-MARGIN, MARGIN)], "agree"), (0, [(-MARGIN, MARGIN + 0.1)], "too small to tell"),
        (0, [(MARGIN + 0.1, 9)], "disagree"), (None, [(1, 2)], "higher"), (None, [(-2, -1)], "lower"),
        (None, [(-1, 1)], "too small to tell"), (1, [(0, 1)], "too small to tell"), (1, [], NOT_YET),
        (None, [(1, 2), (-2, -1)], "seeds differ"), (0, [(-1, 1), (3, 4)], "seeds differ"),
        (0, [(-1, 1), (1, 4)], "too small to tell"), (0, [(3, 4), (-4, -3)], "disagree"),
    ],
)  # fmt: skip
def test_a_verdict_needs_the_intervals_of_all_seeds(sign: int | None, ends: list[Any], said: str) -> None:
    assert verdict([interval(*pair) for pair in ends], sign) == said


def made_up(seed: int, n: int = 40, lift: float = 0.0) -> dict[str, Any]:
    rng = random.Random(seed)

    def one() -> dict[str, Any]:
        tokens, forwards = rng.randint(10, 30), rng.randint(3, 9)
        return {"right": rng.random() < 0.5 + lift, "tokens": tokens, "forwards": forwards, "verified": forwards - 2,
                "gained": tokens - 3, "same": True}  # fmt: skip

    return {
        "run": "x", "parameters": 1, "machine": "M", "trained": {"tokens": 7}, "answer_tokens": [9] * n,
        "modes": {mode: [one() for _ in range(n)] for mode in MODES},
        "nll": [rng.random() for _ in range(n)], "nelbo": [rng.random() for _ in range(n)],
    }  # fmt: skip


def test_a_difference_of_ratios_is_that_of_the_sums_and_its_error_that_of_leaving_prompts_out() -> None:
    first, second = made_up(0, 200), made_up(1, 200)

    def rate(result: dict[str, Any], without: int | None = None) -> float:
        kept = [one for i, one in enumerate(result["modes"]["linear"]) if i != without]
        return sum(one["gained"] for one in kept) / sum(one["verified"] for one in kept)

    found = difference(first, second, "acceptance length", "linear")
    assert found is not None
    assert found.value == pytest.approx(rate(first) - rate(second))
    left_out = [rate(first, i) - rate(second, i) for i in range(200)]
    middle = sum(left_out) / 200
    jackknife = (199 / 200 * sum((x - middle) ** 2 for x in left_out)) ** 0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * jackknife, rel=0.02)
    same = difference(first, first, "NLL", "")
    assert same == Interval(value=0.0, low=0.0, high=0.0)


def test_the_page_says_what_was_run_and_no_more() -> None:
    page = (ROOT / "docs" / "ablations.md").read_text("utf-8")
    empty = written(page, None, {})
    assert empty.count(NOT_YET) == 2 * len(RUNS) + 2 * len(CLAIMS)
    results = {name: made_up(i, lift=0.4 * (name == "masked-100-s0"))
               for i, name in enumerate(("baseline-s0", "masked-100-s0", "masked-0-s0", "shifted-s0"))}  # fmt: skip
    full = written(page, TINY, results)
    assert written(full, TINY, results) == full
    assert "1 held-out prompts of each task" in full
    lines = full.splitlines()
    claimed = next(line for line in lines if "accuracy, diffusion: all-masked 100 % minus all-masked 0 %" in line)
    assert claimed.endswith(("| higher |", "| too small to tell |"))
    shifted = [line for line in lines if "minus shifted" in line]  # of its two seeds one is there
    assert shifted
    assert all(line.endswith(f"| {NOT_YET} | {NOT_YET} |") for line in shifted)
    assert written(full, None, {}) == empty


def test_a_crew_does_each_work_in_order_and_names_what_failed(tmp_path: Path) -> None:
    def say(word: str, code: int = 0) -> list[str]:
        return [sys.executable, "-S", "-c", f"print({word!r}, flush=True); raise SystemExit({code})"]

    def twice(name: str) -> Work:
        return Work(
            name=name, log=tmp_path / name, parts=[lambda: say(name + "1"), lambda: None, lambda: say(name + "2")]
        )

    Crew(2).do([twice("a"), twice("b")])
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a1\na2\n", "b1\nb2\n"]
    failing = Work(name="c", log=tmp_path / "c", parts=[lambda: say("c1", 3), lambda: say("c2")])
    with pytest.raises(RuntimeError, match=r"c: .*ended with 3, see .*/c"):
        Crew(1).do([failing, Work(name="d", log=tmp_path / "d", parts=[lambda: say("d")])])
    assert (tmp_path / "c").read_text() == "c1\n"
    assert not (tmp_path / "d").exists()
    assert len(cores(3)) == 3


def test_a_crew_that_is_asked_to_stop_asks_its_children(tmp_path: Path) -> None:
    waiting = [sys.executable, "-S", "-c", "import signal; print('up', flush=True); signal.pause()"]
    log = tmp_path / "log"

    def asked() -> None:
        while not log.exists() or "up" not in log.read_text():
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    works = [Work(name="a", log=log, parts=[lambda: waiting, lambda: waiting]),
             Work(name="b", log=tmp_path / "b", parts=[asked])]  # fmt: skip
    with pytest.raises(Stopped):
        Crew(2).do(works)
    assert log.read_text() == "up\n"  # ended, and its second part never begun
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.medium
def test_the_chain_from_words_to_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one step each: what is measured is complete, and blocks of 8 and 32 get as many packs as 16."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_plan(tmp_path, TINY)
    write_base(tmp_path, TINY)
    shifted = Run(setting=BY_NAME["shifted"], seed=0)
    for run in (Run(setting=None, seed=0), shifted):
        path = write_run(tmp_path, run, TINY)
        with joined("cpu") as world:
            assert train(read_recipe(path), world)
    write_results(tmp_path, shifted, TINY)
    config = read_config(tmp_path / shifted.name / "run" / "joint" / "final")
    assert (config.canvas_logits, config.commit_visibility, config.block_size) == ("shifted", "causal", 16)
    for options in modes(shifted.setting).values():
        build(config=config, **options)
    result = read_results(tmp_path)["shifted-s0"]
    assert result["parameters"] < 2_000_000
    assert result["trained"]["step"] == 1
    for mode in MODES:
        assert [set(one) for one in result["modes"][mode]] == [set(made_up(0, 1)["modes"]["ar"][0])] * 5
        assert mode == "diffusion" or all(one["same"] for one in result["modes"][mode])
    assert len(result["nelbo"]) == len(result["nll"]) == len(result["answer_tokens"]) == 5

    folder, found = tmp_path / shifted.name, {}
    packs = n_packs(folder, recipe(Run(setting=BASELINE, seed=0), TINY, TINY.rows))
    for name in ("block-8", "block-32"):
        run = Run(setting=BY_NAME[name], seed=0)
        found[name] = equal_rows(folder, run, TINY)
        assert n_packs(folder, recipe(run, TINY, found[name])) == packs
    assert found["block-8"] < TINY.rows < found["block-32"]
