"""`trimode convert` as a user meets it: a report on stdout, one sentence for what cannot be done."""

from pathlib import Path

import pytest

from tests.cli.test_cli import trimode
from tests.models.bases import write_base
from trimode.api import load

pytestmark = pytest.mark.medium


def test_a_conversion_prints_its_report_and_the_result_writes_what_the_base_writes(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", special=("<unk>", "<s>", "</s>", "<|user|>", "<x>"))
    done = trimode("convert", str(base), "--out", str(tmp_path / "out"), "--block-size", "8", "--mask-token", "<x>")
    assert done.returncode == 0, done.stderr
    assert b"<x> = 4, named by mask_token" in done.stdout
    assert done.stderr == b""
    base_llm, llm = (load(folder, backend="torch") for folder in (base, tmp_path / "out"))
    expected = base_llm.generate("w9 w10", max_tokens=12).text
    assert [llm.generate("w9 w10", max_tokens=12, mode=mode).text for mode in ("ar", "self_speculation")] == [
        expected
    ] * 2


def test_a_refusal_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    done = trimode("convert", str(base), "--out", str(base))
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().startswith("trimode: out is ")
    assert done.stderr.count(b"\n") == 1


def test_the_flags_are_these() -> None:
    shown = trimode("convert", "--help").stdout.decode()
    for flag in ("--out", "--mask-token", "--block-size", "--layout", "--dtype"):
        assert flag in shown
