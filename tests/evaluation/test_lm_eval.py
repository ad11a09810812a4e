"""lm-eval runs local tasks on the modes, offline, and finds the likelihoods its own class finds in the same folder."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.models.bases import write_base
from tests.texts import causal_logits
from trimode import LLM, load
from trimode.api import BUNDLED
from trimode.evaluation.harness import model_class, register

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'trimode[harness]'")
pytestmark = [pytest.mark.medium, pytest.mark.filterwarnings("ignore")]  # importing lm-eval takes seconds, and warns

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
CONTEXT = 24
PAIRS = [
    ("w5 w6 w7", " w8 w9"), ("w5 w6 w7", " w8"), ("w5 w6 w7 ", "w8 w9"), ("", "w5 w6 w7"), ("", "w9"), ("w4", " w4 w4"),
    (" ".join(f"w{4 + i % 57}" for i in range(20)), " w44 w45 w46"), ("what is this", " w10 is"),
]  # fmt: skip
TEXTS = ["w5 w6 w7", "w9", "", " ".join(f"w{4 + i * i % 57}" for i in range(60))]


@dataclass
class Asked:
    """As lm-eval's Instance."""

    args: tuple[Any, ...]
    task_name: str = "some_task"
    doc_id: int = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("llama") / "base", max_position_embeddings=CONTEXT, **LLAMA)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Any:
    return model_class()(pretrained=str(folder), batch_size=4)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)


def test_likelihoods_are_those_of_lm_evals_own_class(ours: Any, theirs: Any) -> None:
    (written,) = ours.generate_until([Asked(("w5 w6 w7", {"max_gen_toks": 3}))], disable_tqdm=True)
    asked = [Asked(pair) for pair in [*PAIRS, ("w5 w6 w7", f" {written}")]]
    found, expected = (model.loglikelihood(asked, disable_tqdm=True) for model in (ours, theirs))
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert found[-1][1]


def test_rolling_likelihoods_are_those_of_lm_evals_own_class(ours: Any, theirs: Any) -> None:
    asked = [Asked((text,)) for text in TEXTS]
    found, expected = (model.loglikelihood_rolling(asked, disable_tqdm=True) for model in (ours, theirs))
    assert found == pytest.approx(expected, abs=1e-4)
    assert found[2] == 0.0


def test_greedy_texts_are_those_of_lm_evals_own_class(ours: Any, theirs: Any) -> None:
    asked = [Asked((text, {"max_gen_toks": 8, "until": ["w2 "]})) for text, _ in PAIRS[:3]]
    assert ours.generate_until(asked, disable_tqdm=True) == theirs.generate_until(asked, disable_tqdm=True)


# Local tasks through the command line

WRITE = """
task: local_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 12, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
CHOOSE = """
task: local_choose
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: choices
doc_to_target: 0
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
PROMPTS = ["def add(a, b):\n    return", "1, 2, 3, 4,", '{"name": "Ada", "age":']


def write_tasks(folder: Path, llm: LLM) -> None:
    """Documents whose answer is what `ar` writes, but the last, whose answer is what it does not."""
    answers = [llm.generate(prompt, mode="ar", max_tokens=12, stop=["\n\n"]).text for prompt in PROMPTS]
    answers[-1] = "never this"
    rows = [{"prompt": p, "answer": a, "choices": [a, " zebra \u2603"]} for p, a in zip(PROMPTS, answers, strict=True)]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("write", WRITE), ("choose", CHOOSE)):
        (folder / f"{name}.yaml").write_text(text.format(data=data))


def run(folder: Path, model_args: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line on the bundled checkpoint in a process of its own, offline, its caches in `folder`."""
    command = [
        sys.executable, "-m", "trimode.evaluation.harness", "--model_args", f"pretrained={BUNDLED},{model_args}",
        "--include_path", str(folder), "--output_path", str(folder / "out"), "--log_samples", *arguments,
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.timeout(600)
def test_local_tasks_run_offline_through_the_command_line(tmp_path: Path) -> None:
    llm = load()
    write_tasks(tmp_path, llm)
    model_args = f"mode=self_speculation,placement=linear,stats={tmp_path / 'stats.jsonl'}"
    ran = run(tmp_path, model_args, "--tasks", "local_write,local_choose", "--batch_size", "2")
    assert ran.returncode == 0, ran.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(file.read_text("utf-8"))["results"]
    assert results["local_write"]["exact_match,none"] == pytest.approx(2 / 3)
    (file,) = (tmp_path / "out").rglob("samples_local_choose_*.jsonl")
    for line in rows(file):
        found = [float(answer[0][0]) for answer in line["resps"]]
        expected = [by_hand(llm, line["doc"]["prompt"], choice) for choice in line["doc"]["choices"]]
        assert found == pytest.approx(expected, abs=1e-3)
        assert line["acc"] == (expected[0] > expected[1])
    stats = rows(tmp_path / "stats.jsonl")
    assert [(line["task"], line["mode"], line["placement"]) for line in stats] == [
        ("local_write", "self_speculation", "linear")
    ] * 3
    assert all(line["tokens_per_forward"] == line["completion_tokens"] / line["forwards"]["total"] for line in stats)


@pytest.mark.timeout(600)
def test_a_chat_template_reaches_the_model_as_markup(tmp_path: Path) -> None:
    llm = load()
    write_tasks(tmp_path, llm)
    ran = run(tmp_path, "mode=ar", "--tasks", "local_write", "--apply_chat_template")
    assert ran.returncode == 0, ran.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob("samples_*.jsonl")
    written = {line["doc"]["prompt"]: line["resps"][0][0] for line in rows(file)}
    assert written == {p: llm.chat(p, mode="ar", max_tokens=12, stop=["\n\n"]).text for p in PROMPTS}


@pytest.mark.timeout(600)
def test_bad_model_args_end_the_command_line_with_one_sentence(tmp_path: Path) -> None:
    write_tasks(tmp_path, load())
    ran = run(tmp_path, "mode=ar,placement=linear", "--tasks", "local_write")
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("trimode: placement is not a parameter of mode 'ar'")


def test_trimode_is_a_model_among_lm_evals_own() -> None:
    from lm_eval.api.registry import get_model

    register()
    register()
    assert get_model("trimode") is model_class()
    assert get_model("dummy").__name__ == "DummyLM"


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def by_hand(llm: LLM, context: str, continuation: str) -> float:
    """log p of a continuation as lm-eval cuts it: behind the context's tokens, the whole text's from there on."""
    before = llm.tokenizer.encode(context)
    start, tokens = len(before), [*before, *llm.tokenizer.encode(context + continuation)[len(before) :]]
    log_p = causal_logits(llm.model, tokens).log_softmax(-1)
    return sum(log_p[i - 1, tokens[i]].item() for i in range(start, len(tokens)))
