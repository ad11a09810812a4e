"""The command line as a user meets it: results on stdout, talk on stderr, one sentence for bad input, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trimode.cli.flags import canonical_mode
from trimode.decoding import MODES, OWN_MODES, options
from trimode.numerics.parameters import PARAMETERS

TRIMODE = (sys.executable, "-m", "trimode")
PROMPT = "Write a Python function.\nsignature: scale(a, b)\nbehaviour: returns a times b\nAnswer:\n"


def trimode(*arguments: str, text: str | bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own."""
    data = text.encode() if isinstance(text, str) else text
    return subprocess.run([*TRIMODE, *arguments], input=data, capture_output=True, timeout=100, check=False)


@pytest.mark.medium
@pytest.mark.parametrize("mode", MODES)
def test_json_holds_text_counts_and_time(mode: str) -> None:
    done = trimode("generate", PROMPT, "--mode", mode, "--max-tokens", "20", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert set(row) == {
        "text", "token_ids", "finish_reason", "stop_reason", "mode", "placement", "prompt_tokens", "completion_tokens",
        "forwards", "tokens_per_forward", "acceptance_length", "acceptance", "seconds",
        "cached_tokens", "logprobs", "prompt_logprobs",
    }  # fmt: skip
    assert row["mode"] == mode
    assert (row["acceptance"] is None) == ("verify" not in row["forwards"])
    assert row["completion_tokens"] == len(row["token_ids"]) <= 20
    assert sum(n for kind, n in row["forwards"].items() if kind != "total") == row["forwards"]["total"]
    assert row["tokens_per_forward"] == pytest.approx(row["completion_tokens"] / row["forwards"]["total"])


@pytest.mark.medium
def test_text_goes_to_stdout_and_counts_to_stderr_and_a_dash_reads_stdin() -> None:
    asked = trimode("generate", PROMPT, "--max-tokens", "12")
    piped = trimode("generate", "-", "--max-tokens", "12", text=PROMPT)
    assert asked.stdout == piped.stdout != b""
    assert b"forwards" in asked.stderr
    assert b"forwards" not in asked.stdout


@pytest.mark.medium
def test_other_spellings_of_a_mode_are_understood() -> None:
    done = trimode("generate", "x", "--mode", "LinearSpec", "--max-tokens", "2", "--json")
    assert json.loads(done.stdout)["mode"] == "self_speculation"
    for name in ("prompt-lookup", "ngram", "Prompt_Lookup_Decoding"):
        assert canonical_mode(name) == "prompt_lookup"


BAD = [
    (["--mode", "foo"], "mode is 'foo', allowed are ar, diffusion, self_speculation"),
    (["--mode", "diffusion", "--block-size", "0"], "block_size is 0, allowed is 1 to 1024"),
    (["--draft-length", "-3"], "draft_length is -3, allowed is 1 to 1024"),
    (["--mode", "diffusion", "--confidence-threshold", "nan"], "confidence_threshold is nan"),
    (["--mode", "diffusion", "--confidence-threshold", "high"], "confidence_threshold is 'high'"),
    (["--mode", "diffusion", "--anchor", "left"], "anchor is 'left', allowed are fused, canvas, none"),
    (["--mode", "ar", "--anchor", "none"], "anchor is not a parameter of mode 'ar'"),
    (["--placement", "cubic"], "placement is 'cubic', allowed are linear, chained, pruned, quadratic"),
    (["--temperature", "nan"], "temperature is nan"),
    (["--temperature", "-1"], "temperature is -1.0"),
    (["--seed", "-1"], "seed is -1"),
    (["--top-p", "0"], "top_p is 0.0, allowed is above 0.0 and at most 1.0"),
    (["--logit-bias", "5"], "logit_bias is '5', allowed is ID=BIAS"),
    (["--logit-bias", "x=1"], "logit_bias holds 'x': 1.0"),
    (["--banned-token-ids", "4", "--banned-token-ids", "9999"], "banned_token_ids names token 9999, allowed is 0 to"),
    (["--min-tokens", "300"], "min_tokens is 300, allowed is 0 to 256"),
    (["--max-tokens", "0"], "max_tokens is 0"),
    (["--stop", ""], "stop holds ''"),
    (["--dtype", "int4"], "dtype is 'int4', allowed are float32, bfloat16, float16"),
    (["--model", "/nowhere"], "/nowhere: no such folder"),
    (["--device", "gpu0"], "device is 'gpu0'"),
]


@pytest.mark.medium
@pytest.mark.parametrize(("flags", "sentence"), BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_inside(["generate", PROMPT, *flags], monkeypatch) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("trimode: ")
    assert sentence in output.err
    assert output.err.count("\n") == 1


def run_inside(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The same entry point without a new process."""
    from trimode.cli import main

    monkeypatch.setattr(sys, "argv", ["trimode", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.mark.medium
@pytest.mark.parametrize("prompt", ["", "word " * 5000])
def test_an_empty_and_a_too_long_prompt_are_refused_with_the_counts(
    prompt: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_inside(["generate", prompt], monkeypatch) == 2
    assert ("empty" in (err := capsys.readouterr().err)) == (prompt == "")
    assert ("2048" in err) == (prompt != "")


@pytest.mark.medium
def test_stdin_that_is_not_utf8_is_refused() -> None:
    done = trimode("generate", "-", text=b"\xff\xfe\x00")
    assert (done.returncode, done.stderr) == (2, b"trimode: standard input is not UTF-8 text\n")


@pytest.mark.medium
def test_help_does_not_load_torch_and_every_option_is_a_flag() -> None:
    code = "import sys, trimode.cli.flags; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    text = subprocess.run(
        [*TRIMODE, "generate", "--help"], capture_output=True, env=os.environ | {"COLUMNS": "200"}, check=True
    ).stdout.decode()
    for mode in MODES:
        for name in options(mode):
            assert "--" + name.replace("_", "-") in text
    for name in PARAMETERS:
        assert "--" + name.replace("_", "-") in text


@pytest.mark.medium
def test_an_interrupt_keeps_the_text_so_far_and_exits_130() -> None:
    listening = (  # a parent in the background has handed down that interrupts are ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from trimode.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", listening, "generate", "import os", "--mode", "ar", "--max-tokens", "1900"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert first + out
    assert b"cancelled" in err
    assert b"Traceback" not in err


@pytest.mark.medium
def test_chat_answers_every_line_and_ends_with_the_input() -> None:
    done = trimode("chat", "--max-tokens", "5", text="hello\n\nagain\n")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"forwards") == 2


@pytest.mark.medium
def test_demo_prints_a_table_of_every_mode() -> None:
    done = trimode("demo", "--prompt", PROMPT, "--max-tokens", "16")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert all(mode in text for mode in OWN_MODES)
    for line in ("tokens per forward", "acceptance length", "characters/s", "identical to ar"):
        assert line in text


def rows(path: Path) -> dict[int, dict[str, object]]:
    """The rows of an output by the line they answer."""
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len({row["index"] for row in found}) == len(found)
    return {row["index"]: row for row in found}


LINES = [
    b'{"prompt": "one", "id": "a"}', b'{"prompt": "two", "mode": "ar", "max_tokens": 3}', b"", b"not json",
    b'{"prompt": ""}', b'{"prompt": "x", "block_size": 0, "mode": "diffusion"}', b'{"prompt": "x", "colour": 1}',
    b'{"messages": [{"role": "user", "content": "hi"}]}', b'"just text"', b"\xff\xfe", b'{"prompt": [4, 40, 50]}',
    b'{"prompt": [3]}', b'{"prompt": 7}', b'{"prompt": [[1]]}', b'{"messages": "hi"}',
    b'{"prompt": "x", "temperature": 0.7, "top_p": 0.9, "logit_bias": {"50": 100}, "min_tokens": 6}',
    b'{"prompt": "x", "top_p": 0}',
]  # fmt: skip
BAD_LINES = {3, 4, 5, 6, 8, 9, 11, 12, 13, 16}


@pytest.mark.medium
def test_a_batch_answers_every_line_and_says_what_is_wrong_with_bad_ones(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\n".join(LINES) + b"\n")
    done = trimode("generate", "--input", str(source), "--output", str(target), "--max-tokens", "6")
    assert done.returncode == 0, done.stderr
    answers = rows(target)
    assert set(answers) == set(range(len(LINES))) - {2}
    assert {index for index, row in answers.items() if "error" in row} == BAD_LINES
    assert answers[0]["id"] == "a"
    assert answers[1]["mode"] == "ar"
    assert answers[1]["completion_tokens"] == 3
    assert "colour" in str(answers[6]["error"])
    assert answers[15]["token_ids"] == [50] * 6
    assert "top_p" in str(answers[16]["error"])


@pytest.mark.medium
def test_a_killed_batch_goes_on_where_it_was_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    source, whole, torn = (tmp_path / name for name in ("in.jsonl", "whole.jsonl", "torn.jsonl"))
    source.write_text("".join(json.dumps({"prompt": f"Sort: {i}, {i * 7 % 10}\n"}) + "\n" for i in range(60)))
    arguments = ["generate", "--input", str(source), "--max-tokens", "40", "--output"]
    process = subprocess.Popen([*TRIMODE, *arguments, str(torn)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not torn.exists() or torn.stat().st_size < 2000):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    kept = torn.read_bytes().count(b"\n")
    with torn.open("ab") as file:
        file.write(b'{"index": 59, "te')  # a row cut off in the middle
    again = trimode(*arguments, str(torn))
    assert again.returncode == 0, again.stderr
    assert f"{kept} kept".encode() in again.stderr
    assert trimode(*arguments, str(whole)).returncode == 0
    ids = [{index: row["token_ids"] for index, row in rows(path).items()} for path in (whole, torn)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 60


@pytest.mark.medium
def test_a_batch_never_mixes_with_a_foreign_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a"}\n')
    target.write_text('{"some": "other file"}\n')
    arguments = ["generate", "--max-tokens", "2", "--input", str(source), "--output", str(target)]
    assert run_inside(arguments, monkeypatch) == 2
    assert target.read_text() == '{"some": "other file"}\n'
    target.write_text('{"index": 0, "line_sha256": "0000"}\n')
    assert run_inside(arguments, monkeypatch) == 2
    assert "answers another input" in capsys.readouterr().err


@pytest.mark.medium
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a Linux device")
def test_a_full_disk_is_a_sentence_and_exit_code_1(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n')
    done = trimode("generate", "--max-tokens", "2", "--input", str(source), "--output", "/dev/full")
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr
