"""lm-eval's options become ours with its meaning, or are refused by name."""

from pathlib import Path

import pytest

from tests.models.checkpoints import refuses
from trimode.errors import InvalidInput
from trimode.evaluation.harness_words import (
    AUTO,
    check_flags,
    device_here,
    generation_options,
    new_file,
    requests_at_once,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, dict(stop=[], max_tokens=9, temperature=0.0)),
        ({"until": "\n", "max_gen_toks": 5}, dict(stop=["\n"], max_tokens=5, temperature=0.0)),
        ({"until": ["a", "", "b"], "max_new_tokens": 7}, dict(stop=["a", "b"], max_tokens=7, temperature=0.0)),
        ({"until": None, "max_tokens": 3, "max_gen_toks": 4}, dict(stop=[], max_tokens=4, temperature=0.0)),
        ({"do_sample": False, "temperature": 0.7}, dict(stop=[], max_tokens=9, temperature=0.0)),
        ({"temperature": 0.7}, dict(stop=[], max_tokens=9, temperature=0.7)),
        ({"do_sample": True, "temperature": 1, "top_p": 0.9, "seed": 4},
         dict(stop=[], max_tokens=9, temperature=1, top_p=0.9, seed=4)),
    ],
)  # fmt: skip
def test_generation_kwargs_mean_what_they_mean_to_lm_eval(given: dict[str, object], expected: object) -> None:
    assert generation_options(given, 9) == expected


def test_a_generation_kwarg_that_is_not_known_is_refused_with_those_that_are() -> None:
    with refuses(InvalidInput, "num_beams", "until", "max_gen_toks", "temperature", "top_k"):
        generation_options({"until": ["\n"], "num_beams": 4}, 9)


@pytest.mark.parametrize("given", [{"do_sample": True}, {"do_sample": True, "temperature": 0.0}])
def test_sampling_without_a_temperature_is_refused(given: dict[str, object]) -> None:
    with refuses(InvalidInput, "do_sample", "temperature"):
        generation_options(given, 9)


@pytest.mark.parametrize(
    ("given", "most", "expected"), [(3, None, 3), ("8", None, 8), ("auto", None, AUTO), ("auto:4", 16, 16)]
)
def test_a_batch_size_is_a_number_or_auto(given: int | str, most: int | None, expected: int) -> None:
    assert requests_at_once(given, most) == expected


@pytest.mark.parametrize("given", [0, -1, "many", "0", 2.5])
def test_another_batch_size_is_refused(given: int | str) -> None:
    with refuses(InvalidInput, "batch_size", given):
        requests_at_once(given, None)


def test_a_flag_that_is_neither_true_nor_false_is_refused() -> None:
    check_flags(truncate=True, add_bos_token=None)
    with refuses(InvalidInput, "truncate", "yes"):
        check_flags(truncate="yes")


@pytest.mark.parametrize("has_cuda", [True, False])
def test_lm_evals_default_device_means_the_best_there_is(monkeypatch: pytest.MonkeyPatch, has_cuda: bool) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_cuda)
    assert device_here("cuda:0") == ("cuda:0" if has_cuda else None)
    assert (device_here("cuda:1"), device_here("cpu"), device_here(None)) == ("cuda:1", "cpu", None)


def test_statistics_go_to_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    assert new_file(tmp_path / "stats.jsonl") == tmp_path / "stats.jsonl"
    (tmp_path / "old.jsonl").write_text("kept")
    for path in (tmp_path / "old.jsonl", tmp_path / "nowhere" / "stats.jsonl"):
        with refuses(InvalidInput, "stats", path):
            new_file(path)
