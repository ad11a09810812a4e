"""The mask is a token that nothing else writes, and the tokenizer's files name it, to us and to transformers."""

import json
from pathlib import Path

import pytest

from tests.models.bases import RESERVED, SPECIAL, TEMPLATE, assert_refused, write_base, write_tokenizer
from tests.models.checkpoints import refuses
from trimode.errors import CheckpointError
from trimode.models.checkpoint import read_config, read_json
from trimode.models.convert import convert
from trimode.tokenizer import Tokenizer


def test_a_reserved_token_is_taken_and_no_row_added(tmp_path: Path) -> None:
    report = convert(write_base(tmp_path / "base", special=RESERVED), tmp_path / "out")
    assert (report.mask.id, report.mask.is_new, report.has_fresh_row) == (4, False, False)
    assert (tmp_path / "base/tokenizer.json").read_bytes() == (tmp_path / "out/tokenizer.json").read_bytes()
    assert read_config(tmp_path / "out").vocab_size == 61


@pytest.mark.parametrize(
    ("special", "settings", "wanted", "expected"),
    [
        ((*SPECIAL, "<x>", "<SPECIAL_7>", "[MASK]"), {}, None, "[MASK]"),
        ((*SPECIAL, "<SPECIAL_7>", "<SPECIAL_100>"), {}, None, "<SPECIAL_100>"),
        ((*SPECIAL, "<SPECIAL_7>", "<SPECIAL_8>"), {}, None, "<SPECIAL_7>"),
        ((*SPECIAL, "<SPECIAL_7>", "<SPECIAL_8>"), {"pad_token": "<SPECIAL_7>"}, None, "<SPECIAL_8>"),
        ((*SPECIAL, "<x>", "[MASK]"), {"mask_token": {"content": "<x>"}}, None, "<x>"),
        ((*SPECIAL, "<x>", "[MASK]"), {"chat_template": TEMPLATE + "[MASK]"}, None, "<|mask|>"),
        ((*SPECIAL, "<x>", "[MASK]"), {}, "<x>", "<x>"),
        ((*SPECIAL, "<|mask|>"), {"chat_template": "<|mask|>"}, None, "<|mask_1|>"),
    ],
)
def test_the_mask_is_the_one_named_else_one_that_nothing_writes_else_a_new_one(
    special: tuple[str, ...], settings: dict[str, object], wanted: str | None, expected: str, tmp_path: Path
) -> None:
    base = write_tokenizer(write_base(tmp_path / "base"), special=special, **settings)
    report = convert(base, tmp_path / "out", mask_token=wanted)
    assert report.mask.text == expected
    assert Tokenizer.load(tmp_path / "out").special[expected] == report.mask.id
    assert read_json(tmp_path / "out" / "tokenizer_config.json")["mask_token"] == expected


@pytest.mark.medium
def test_an_added_token_survives_the_way_through_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = write_base(tmp_path / "base")
    (base / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    (base / "added_tokens.json").write_text('{"<s>": 1}')
    settings = read_json(base / "tokenizer_config.json")
    old = {"added_tokens_decoder": {"1": {"content": "<s>", "special": True}}}
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, **old}))
    convert(base, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (theirs.mask_token, theirs.mask_token_id, len(theirs)) == ("<|mask|>", 61, 62)
    theirs.save_pretrained(tmp_path / "again")
    for folder in (tmp_path / "out", tmp_path / "again"):
        ours = Tokenizer.load(folder)
        assert ours.special["<|mask|>"] == 61
        assert ours.decode([9, 61, 10]).split() == ["w9", "w10"]
        assert 61 in ours.reserved
    assert 61 not in Tokenizer.load(tmp_path / "out").encode("<|mask|> w9")


ODD = [
    ({"mask_token": "<nowhere> w5"}, ("'<nowhere> w5'", "2 tokens", "<|reserved_special_token_0|>")),
    ({"mask_token": "w9"}, ("'w9'", "an ordinary word")),
    ({"mask_token": ""}, ("''", "no token")),
    ({"mask_token": "<|user|>"}, ("'<|user|>'", "the chat template writes")),
    ({"mask_token": "</s>"}, ("'</s>'", "is an eos_token")),
    ({"mask_token": "<s>"}, ("'<s>'", "is the bos_token")),
]


@pytest.mark.parametrize(("options", "names"), ODD, ids=lambda value: str(value)[:40])
def test_a_token_that_cannot_be_a_mask_is_refused_with_those_that_can(
    options: dict[str, object], names: tuple[str, ...], tmp_path: Path
) -> None:
    assert_refused(tmp_path, options, names)


def test_ids_that_are_left_out_before_an_added_token_are_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", n_texts=50)
    tokens = json.loads((base / "tokenizer.json").read_text())
    del tokens["model"]["vocab"]["w20"]
    (base / "tokenizer.json").write_text(json.dumps(tokens))
    with refuses(CheckpointError, "tokenizer.json", "mask_token"):
        convert(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
