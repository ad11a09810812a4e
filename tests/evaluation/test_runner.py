"""An evaluation with a model of random weights: every mode once per item, kept, resumed, reported."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.adapters import random_adapter
from tests.evaluation.stand_ins import letters, random_llm
from trimode.api import LLM
from trimode.decoding import OWN_MODES
from trimode.errors import InvalidInput
from trimode.evaluation import results, runner
from trimode.evaluation.likelihood import likelihood
from trimode.evaluation.plan import Plan
from trimode.evaluation.records import GENERATIONS
from trimode.evaluation.results import LIKELIHOOD, REPORT, TABLE
from trimode.evaluation.runner import Silent, evaluate
from trimode.numerics.sampling import Sampling

pytestmark = pytest.mark.medium

PLAN = Plan(likelihood=False)
TIMES = ("seconds", "tokens_per_second", "characters_per_second", "speeds")


class Heard(Silent):
    def __init__(self) -> None:
        self.notes, self.steps = list[str](), list[tuple[int, int, str]]()

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def advance(self, done: int, total: int, task: str) -> None:
        self.steps.append((done, total, task))


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / GENERATIONS).read_text("utf-8").split("\n")[:-1]]


def untimed(rows: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def by_setting(report: Any, task: str) -> dict[str, Any]:
    return {row["setting"]: row for row in report["rows"] if row["task"] == task}


def test_every_item_is_answered_in_all_modes_one_after_the_other(tmp_path: Path) -> None:
    heard = Heard()
    evaluate(random_llm(), PLAN, tmp_path, own=[letters(2), letters(1, name="more")], tell=heard)
    asked = [(row["task"], row["key"], row["mode"]) for row in lines(tmp_path)]
    items = [("letters", "1000/0"), ("letters", "1000/1"), ("more", "1000/0")]
    assert asked == [(*item, mode) for item in items for mode in OWN_MODES]
    total = 3 * len(OWN_MODES)
    assert heard.steps == [(i + 1, total, task) for i, (task, _, _) in enumerate(asked)]


def test_a_record_is_the_whole_answer_with_its_verdict(tmp_path: Path) -> None:
    evaluate(random_llm(), PLAN, tmp_path, own=[letters()])
    for row in lines(tmp_path):
        assert 1 <= row["completion_tokens"] == len(row["token_ids"]) <= 12
        assert sum(n for kind, n in row["forwards"].items() if kind != "total") == row["forwards"]["total"]
        assert row["verdict"] == (len(row["text"]) % 2 == 0)
        assert len(row["seconds"]) == 1
        assert (row["acceptance_length"] is None) == ("verify" not in row["forwards"])


def test_figures_are_sums_over_the_records(tmp_path: Path) -> None:
    report = evaluate(random_llm(), PLAN, tmp_path, own=[letters(3)])
    here = by_setting(report, "letters")
    for mode, row in here.items():
        own = [record for record in lines(tmp_path) if record["mode"] == mode]
        tokens, forwards = (sum(values) for values in zip(*costs(own), strict=True))
        assert row["n"] == row["n_judged"] == 3
        assert row["accuracy"]["value"] == sum(record["verdict"] for record in own) / 3
        assert row["accuracy"]["low"] < row["accuracy"]["value"] + 1e-9 < row["accuracy"]["high"] + 2e-9
        assert (row["tokens"], row["forwards"]["total"]) == (tokens, forwards)
        assert row["tokens_per_forward"]["value"] == pytest.approx(tokens / forwards)
        assert row["tokens_per_second"] == pytest.approx(tokens / sum(record["seconds"][0] for record in own))
    assert here["ar"]["tokens_per_forward"]["value"] == 1.0
    assert here["ar"]["identical_to_ar"] is None
    assert here["self_speculation"]["identical_to_ar"]["value"] == 1.0
    assert here["self_speculation"]["difference_to_ar"]["value"] == 0.0
    assert here["diffusion"]["threshold"] == 0.9


def costs(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(row["completion_tokens"], row["forwards"]["total"]) for row in rows]


@pytest.mark.parametrize("n_lines", [0, 1, 5, 11])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(tmp_path: Path, n_lines: int) -> None:
    suite, heard = letters(3), Heard()
    whole = evaluate(random_llm(), PLAN, tmp_path, own=[suite])
    path = tmp_path / GENERATIONS
    raw = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(raw[:n_lines]) + raw[n_lines][:20])
    again = evaluate(random_llm(), PLAN, tmp_path, own=[suite], tell=heard)
    assert path.read_bytes().splitlines(keepends=True)[:n_lines] == raw[:n_lines]
    assert untimed(lines(tmp_path)) == untimed(map(json.loads, raw))
    assert untimed(again["rows"]) == untimed(whole["rows"])
    assert "torn" in heard.notes[0]
    assert len(heard.steps) == len(raw) - n_lines


def test_nothing_that_is_there_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(random_llm(), PLAN, tmp_path, own=[letters()])

    def never(*_: object) -> None:
        raise AssertionError("it was run again")

    monkeypatch.setattr(runner, "ask", never)
    monkeypatch.setattr(runner, "warm", never)
    assert evaluate(random_llm(), PLAN, tmp_path, own=[letters()]) == first


def test_another_checkpoint_plan_or_data_is_never_mixed_in(tmp_path: Path) -> None:
    evaluate(random_llm(), PLAN, tmp_path, own=[letters()])
    before = (tmp_path / GENERATIONS).read_bytes()
    others: list[tuple[int, Plan, Any, str]] = [
        (1, PLAN, letters(), "its weights_sha256 is"),
        (0, replace(PLAN, seed=7), letters(), "its seed is 1000, now it is 7"),
        (0, replace(PLAN, modes=("ar",)), letters(), "its modes is"),
        (0, replace(PLAN, max_tokens=3), letters(), "its max_tokens is null, now it is 3"),
        (0, PLAN, letters(room=13), "its prompts_sha256 is"),
        (0, PLAN, letters(name="others"), "its tasks is"),
    ]
    for seed, plan, suite, sentence in others:
        with pytest.raises(InvalidInput, match=f"holds another evaluation: .*{sentence}"):
            evaluate(random_llm(seed), plan, tmp_path, own=[suite])
    assert (tmp_path / GENERATIONS).read_bytes() == before


def test_a_batch_writes_the_tokens_of_one_at_a_time(tmp_path: Path) -> None:
    suites = [letters(5), letters(2, name="more")]
    for batch in (1, 3):
        evaluate(random_llm(), replace(PLAN, batch=batch), tmp_path / str(batch), own=suites)
    answers = [{(row["mode"], row["task"], row["key"]): row["token_ids"] for row in lines(tmp_path / b)} for b in "13"]
    assert answers[0] == answers[1]


def test_repeats_change_times_alone(tmp_path: Path) -> None:
    once = evaluate(random_llm(), PLAN, tmp_path / "1", own=[letters()])
    thrice = evaluate(random_llm(), replace(PLAN, repeats=3), tmp_path / "3", own=[letters()])
    assert untimed(thrice["rows"]) == untimed(once["rows"])
    assert {len(row["seconds"]) for row in lines(tmp_path / "3")} == {3}
    for row in thrice["rows"]:
        assert row["tokens_per_second"] == sorted(row["speeds"])[1]


def test_a_prompt_the_context_cannot_hold_is_refused_and_counts_as_wrong(tmp_path: Path) -> None:
    suite = letters(3)
    first, *rest = suite.items(None, 0)
    long = replace(suite, items=lambda limit, seed: [replace(first, prompt="x" * 256), *rest])
    report = evaluate(random_llm(), PLAN, tmp_path / "judged", own=[long])
    for row in report["rows"]:
        right = sum(record["verdict"] for record in lines(tmp_path / "judged") if record["mode"] == row["setting"])
        assert (row["n"], row["refused"], row["accuracy"]["value"]) == (3, 1, right / 3)  # type: ignore[index]
    assert "the prompt has 256 tokens, the context holds 256" in (tmp_path / "judged" / GENERATIONS).read_text()
    unjudged = replace(long, judge=lambda item, text: None)
    report = evaluate(random_llm(), PLAN, tmp_path / "unjudged", own=[unjudged])
    assert {(row["n"], row["n_judged"], row["refused"], row["accuracy"]) for row in report["rows"]} == {(2, 0, 1, None)}
    none = replace(suite, items=lambda limit, seed: [replace(first, prompt="x" * 256)])
    with pytest.raises(InvalidInput, match="'letters' cannot be asked: the prompt has 256 tokens"):
        evaluate(random_llm(), PLAN, tmp_path / "none", own=[none])


def test_a_task_of_which_nothing_could_be_asked_has_its_row_too(tmp_path: Path) -> None:
    suite = letters(3)
    first, *rest = suite.items(None, 0)
    long = replace(first, task="long", prompt="x" * 256)
    for judge in (suite.judge, lambda item, text: None):
        out = tmp_path / str(judge is suite.judge)
        own = replace(suite, items=lambda limit, seed: [long, *rest], judge=judge)
        report = evaluate(random_llm(), replace(PLAN, threshold_sweep=True), out, own=[own])
        for row in by_setting(report, "long").values():
            assert (row["refused"], row["tokens"], row["forwards"], row["speeds"]) == (1, 0, {}, [])
            assert row["tokens_per_forward"] is row["tokens_per_second"] is None
            assert (row["accuracy"] or {"value": 0.0})["value"] == 0.0
        assert "(1 refused)" in (out / TABLE).read_text("utf-8")
        assert "long" not in report["aup"]


def test_suites_without_items_or_with_one_twice_are_refused(tmp_path: Path) -> None:
    suite = letters()
    twice = replace(suite, items=lambda limit, seed: [*suite.items(limit, seed), *suite.items(limit, seed)])
    for bad, sentence in ((replace(suite, items=lambda limit, seed: []), "no items"), (twice, "two items")):
        with pytest.raises(InvalidInput, match=sentence):
            evaluate(random_llm(), PLAN, tmp_path, own=[bad])
    assert not (tmp_path / GENERATIONS).exists()


def test_groups_join_what_is_judged_and_unjudged_tasks_stand_alone(tmp_path: Path) -> None:
    suites = [letters(2), letters(2, name="more"), letters(2, name="speed", judged=False)]
    report = evaluate(random_llm(), PLAN, tmp_path, own=suites)
    assert list(dict.fromkeys(row["task"] for row in report["rows"])) == ["letters", "more", "speed", "all"]
    assert {row["n"] for row in report["rows"] if row["task"] == "all"} == {4}
    assert all(row["accuracy"] is None for row in report["rows"] if row["task"] == "speed")


def test_a_sweep_gives_the_area_under_its_accuracies(tmp_path: Path) -> None:
    plan = replace(PLAN, modes=("ar",), threshold_sweep=True)
    report = evaluate(random_llm(), plan, tmp_path, own=[letters(4)])
    assert [row["threshold"] for row in report["rows"]] == [None, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]
    assert set(report["aup"]) == {"letters"}


def test_turns_are_asked_by_the_template_or_as_text(tmp_path: Path) -> None:
    llm, suite = random_llm(), letters(1)
    turns = replace(suite.items(None, 0)[0], prompt=({"role": "user", "content": "hi"},))
    for item in (turns, replace(turns, prompt="hi")):
        asked = runner.asked(llm, suite, item, True)
        assert asked.tokens == tuple(llm.chat_prompt("hi"))
    assert llm.tokenizer.decode(runner.asked(llm, suite, turns, False).tokens) == "hi\n"


def test_likelihood_is_that_of_the_references(tmp_path: Path) -> None:
    plan = Plan(modes=("ar",), block_sizes=(1, 4), draws=2)
    report = evaluate(random_llm(), plan, tmp_path, own=[letters(2), letters(1, name="more")])
    assert [(row["task"], row["n"]) for row in report["likelihood"]] == [("letters", 2), ("more", 1)]
    for row in report["likelihood"]:
        assert row["ar"]["n_tokens"] == row["n"] * len("yes 0")
        assert [bound["block_size"] for bound in row["bounds"]] == [1, 4]
    assert "NELBO, blocks of 4" in (tmp_path / TABLE).read_text("utf-8")


def test_what_is_known_of_likelihoods_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [letters(2), letters(1, name="more")]
    computed = list[int]()

    def counting(llm: Any, pairs: Any, *rest: Any, **more: Any) -> Any:
        computed.append(len(pairs))
        if len(computed) == 2:
            raise KeyboardInterrupt
        return likelihood(llm, pairs, *rest, **more)

    monkeypatch.setattr(results, "likelihood", counting)
    plan = Plan(modes=("ar",), draws=2)
    with pytest.raises(KeyboardInterrupt):
        evaluate(random_llm(), plan, tmp_path, own=own)
    first, again = (evaluate(random_llm(), plan, tmp_path, own=own) for _ in range(2))
    assert computed == [2, 1, 1]
    assert first == again == json.loads((tmp_path / REPORT).read_text("utf-8"))
    assert [row["bounds"][0]["draws"] for row in evaluate(random_llm(), replace(plan, draws=3), tmp_path, own=own)[
        "likelihood"]] == [3, 3]  # fmt: skip
    (tmp_path / LIKELIHOOD).write_text("{")
    assert evaluate(random_llm(), plan, tmp_path, own=own) == first


def test_what_a_checkpoint_asks_for_by_itself_does_not_hold(tmp_path: Path) -> None:
    llm, plain = random_llm(), random_llm()
    asking = LLM(llm.model, llm.tokenizer, Sampling(temperature=1.0, repetition_penalty=3.0, min_tokens=9))
    for name, each in (("plain", plain), ("asking", asking)):
        evaluate(each, replace(PLAN, modes=("ar",)), tmp_path / name, own=[letters()])
    first, second = (untimed(lines(tmp_path / name)) for name in ("plain", "asking"))
    assert first == second


def test_adapter_and_drafter_are_a_part_of_what_a_run_depends_on(tmp_path: Path) -> None:
    base = random_llm()
    random_adapter(base.model.config, 1).save(tmp_path / "law", "base")
    random_adapter(base.model.config, 2, 3.0, ("o_proj",), draft=True).save(tmp_path / "swift", "base")
    llm = LLM(base.model, base.tokenizer)
    plan = replace(PLAN, modes=("ar", "self_speculation"))
    evaluate(llm, plan, tmp_path / "plain", own=[letters()])
    llm.load_drafter(tmp_path / "swift")
    with pytest.raises(InvalidInput, match="its drafter_sha256 is null, now it is"):
        evaluate(llm, plan, tmp_path / "plain", own=[letters()])
    evaluate(llm, plan, tmp_path / "drafted", own=[letters()])
    llm.load_adapter(tmp_path / "law")
    with pytest.raises(InvalidInput, match="adapter is 'med', loaded are: law"):
        evaluate(llm, replace(plan, adapter="med"), tmp_path / "none", own=[letters()])
    report = evaluate(llm, replace(plan, adapter="law"), tmp_path / "adapted", own=[letters()])
    plain, drafted, adapted = (lines(tmp_path / name) for name in ("plain", "drafted", "adapted"))
    assert [row["token_ids"] for row in plain] == [row["token_ids"] for row in drafted]
    assert [row["forwards"] for row in plain] != [row["forwards"] for row in drafted]
    assert [row["token_ids"] for row in plain] != [row["token_ids"] for row in adapted]
    assert report["checkpoint"] == "in memory, adapter law, drafter swift"
    text = (tmp_path / "adapted" / TABLE).read_text("utf-8")
    assert f"- adapter: SHA-256 {report['about']['adapter_sha256']}" in text
    assert f"- drafter: SHA-256 {report['about']['drafter_sha256']}" in text


def test_the_report_says_where_its_numbers_come_from(tmp_path: Path) -> None:
    report = evaluate(random_llm(), PLAN, tmp_path, own=[letters()], command="trimode eval x")
    assert json.loads((tmp_path / REPORT).read_text("utf-8")) == report
    about = report["about"]
    assert len(about["weights_sha256"]) == 64
    for name in ("version", "checkpoint", "dtype", "backend", "threads", "machine", "seed", "date", "command"):
        assert about[name] is not None
    text = (tmp_path / TABLE).read_text("utf-8")
    for part in (about["weights_sha256"], about["machine"], "trimode eval x", "seed 1000", "x prompt_lookup"):
        assert part in text


def test_plots_that_cannot_be_drawn_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'trimode\[train\]'"):
        evaluate(random_llm(), replace(PLAN, plots=True), tmp_path / "out", own=[letters()])
    assert not (tmp_path / "out").exists()


@pytest.mark.medium
def test_plots_lie_beside_the_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    evaluate(random_llm(), replace(PLAN, plots=True), tmp_path, own=[letters()])
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"accuracy-letters.png", "acceptance-letters.png", "tasks.png"} <= names
