"""A recipe is read as it is written, or refused with the place and what is known there."""

from pathlib import Path
from typing import Any

import pytest

from trimode.errors import InvalidInput
from trimode.models.adapter_config import TARGETS
from trimode.training.recipe import Lora, Recipe, Stage, read_recipe

TEXT = """
out = "run"
seed = 7
[model]
config = "config.json"
tokenizer = "words"
[data]
train = ["data/*.jsonl", "/all/*.parquet"]
[defaults]
rows = 96
noise = { block_sizes = [8] }
[[stage]]
name = "ar"
kind = "ar"
steps = 3
[[stage]]
name = "joint"
data = { strict = true }
learning_rate = 1
[stage.weights]
diffusion = 1.0
[stage.noise]
block_sizes = [4, 8]
"""


def recipe(folder: Path, text: str = TEXT, *changes: str) -> Recipe:
    (folder / "recipe.toml").write_text(text, "utf-8")
    return read_recipe(folder / "recipe.toml", changes)


def test_stages_have_the_defaults_unless_they_say_otherwise(tmp_path: Path) -> None:
    ar, joint = recipe(tmp_path).stages
    assert (ar.kind, ar.steps, ar.rows, ar.noise.block_sizes) == ("ar", 3, 96, (8,))
    assert (joint.kind, joint.steps, joint.rows, joint.noise.block_sizes) == ("joint", 1000, 96, (4, 8))
    assert (joint.weights.ar, joint.weights.diffusion, joint.learning_rate) == (1.0, 1.0, 1)


def test_data_of_a_stage_is_the_recipes_with_what_it_says_itself(tmp_path: Path) -> None:
    ar, joint = recipe(tmp_path).stages
    assert ar.data.train == joint.data.train == (str(tmp_path / "data/*.jsonl"), "/all/*.parquet")
    assert (ar.data.strict, joint.data.strict) == (False, True)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    assert (made.out, made.seed) == (tmp_path / "run", 7)
    assert (made.model.config, made.model.tokenizer) == (tmp_path / "config.json", tmp_path / "words")


def test_a_source_is_a_folder_where_there_is_one_and_else_a_name_of_the_hub(tmp_path: Path) -> None:
    text = TEXT.replace('config = "config.json"\ntokenizer = "words"', 'source = "me/base"')
    assert recipe(tmp_path, text).model.source == "me/base"
    (tmp_path / "me" / "base").mkdir(parents=True)
    assert recipe(tmp_path, text).model.source == str(tmp_path / "me" / "base")


def test_changes_reach_the_recipe_every_stage_or_one(tmp_path: Path) -> None:
    made = recipe(tmp_path, TEXT, "seed=8", "steps=5", "stage.joint.noise.block_sizes=[2]", "schedule=cosine")
    ar, joint = made.stages
    assert (made.seed, ar.steps, joint.steps, ar.schedule) == (8, 5, 5, "cosine")
    assert (ar.noise.block_sizes, joint.noise.block_sizes) == ((8,), (2,))


def test_an_adapter_has_the_targets_of_its_kind_unless_they_are_named() -> None:
    assert Stage(name="a", kind="lora").targets == TARGETS
    assert Stage(name="a", kind="drafter").targets == ("o_proj",)
    assert Stage(name="a", kind="drafter", lora=Lora(targets=("q_proj",))).targets == ("q_proj",)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("steps = 3", "step = 3", "stage 'ar' has an unknown key 'step': did you mean 'steps'?"),
        ("seed = 7", "speed = 7", "the recipe has an unknown key 'speed': did you mean 'seed'?"),
        (
            "seed = 7",
            "zzz = 7",
            "the recipe has an unknown key 'zzz': known are out, seed, model, data",
        ),
        ("diffusion = 1.0", "difusion = 1.0", "stage 'joint': weights has an unknown key 'difusion'"),
        ("steps = 3", "steps = 0", "stage 'ar': steps is 0, allowed is at least 1"),
        ("steps = 3", "steps = true", "stage 'ar': steps is True, of the type int is expected"),
        ("strict = true", "strict = 1", "stage 'joint': data: strict is 1, of the type bool is expected"),
        ('kind = "ar"', 'kind = "chat"', "stage 'ar': kind is 'chat', allowed are ar, joint, sft, lora, drafter"),
        ('name = "ar"', 'name = "joint"', "the stages joint, joint must have different names"),
        ('name = "ar"', 'name = "../ar"', "what can name a folder"),
        ('name = "ar"', "", "stage 1 lacks 'name'"),
        ('out = "run"', "", "the recipe lacks 'out'"),
        ('tokenizer = "words"', "", "either source, or both config and tokenizer"),
        ("noise = { block_sizes = [8] }", "noise = 8", "stage 'ar': noise is 8, a table is expected"),
        ("block_sizes = [8]", "block_sizes = 8", "block_sizes is 8, a list is expected"),
        ("steps = 3", 'lora = { targets = ["o_prj"] }', "stage 'ar': lora: targets is ['o_prj'], allowed are q_proj"),
        ("steps = 3", "lora = { targets = [] }", "stage 'ar': lora: targets is [], allowed are q_proj"),
        ("[stage.noise]", "[stage.noise]\ndrafts = true", "noise.drafts is for kind 'drafter' alone"),
        ("[defaults]", "[default]", "the recipe has an unknown key 'default': did you mean 'defaults'?"),
        ("[defaults]", "[defaults", "not readable as TOML"),
        ("seed = 7", "seed = 99999999999999999999", "the recipe: seed is 99999999999999999999, allowed is 0 to"),
        (
            '[model]\nconfig = "config.json"\ntokenizer = "words"',
            'model = "base"',
            "[model], [data] and [defaults] are",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in TEXT
    with pytest.raises(InvalidInput) as refused:
        recipe(tmp_path, TEXT.replace(old, new))
    assert sentence in str(refused.value)


@pytest.mark.parametrize("change", ["steps", "=3", "stage.joint=3", "stage.other.steps=3", "stage.joint.stepz=3"])
def test_a_change_that_reaches_nothing_is_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(InvalidInput):
        recipe(tmp_path, TEXT, change)


@pytest.mark.parametrize(
    ("text", "change"),
    [
        (TEXT, "stage.ar.steps.x=3"),
        (TEXT, "seed.x=3"),
        (TEXT, "stage.joint.noise.block_sizes.x=3"),
        (TEXT.partition("[[stage]]")[0] + '[stage]\nname = "ar"', "steps=3"),
        ('stage = ["ar"]' + TEXT.partition("[[stage]]")[0], "steps=3"),
        (TEXT, "model=3"),
    ],
)
def test_a_change_of_what_has_no_parts_is_a_sentence(tmp_path: Path, text: str, change: str) -> None:
    with pytest.raises(InvalidInput, match=r"has no parts|are tables"):
        recipe(tmp_path, text, change)


MAKES = """
[[data.make]]
name = "tasks"
kind = "procedural"
rows = 5
[[data.make]]
name = "code"
kind = "stdlib"
[[stage]]"""


def with_makes(folder: Path, train: str = "make:tasks", *changes: str) -> Recipe:
    text = TEXT.replace("[[stage]]", MAKES, 1).replace("data/*.jsonl", train)
    return recipe(folder, text, *changes)


def test_data_to_be_made_is_read_and_named_beside_files(tmp_path: Path) -> None:
    made = with_makes(tmp_path)
    tasks, code = made.makes
    assert (tasks.name, tasks.kind, tasks.fields, tasks.folder) == ("tasks", "procedural", {"rows": 5}, tmp_path)
    assert (code.name, code.fields) == ("code", {})
    assert {stage.data.train for stage in made.stages} == {("make:tasks", "/all/*.parquet")}
    assert with_makes(tmp_path, "make:code", "make.tasks.rows=9").makes[0].fields == {"rows": 9}


@pytest.mark.parametrize(
    ("train", "change", "sentence"),
    [
        ("make:task", "seed=1", "stage 'ar': data.make has an unknown key 'task': did you mean 'tasks'?"),
        ("make:tasks", "make.tsks.rows=1", "the recipe has no such make"),
        ("make:tasks", "make.tasks=1", "write it as name=value"),
        ("make:tasks", "make.tasks.name=code", "the names code, code must be different"),
        ("make:tasks", "make.tasks.name=../x", "a name is '../x', allowed is what can name a file"),
        ("make:tasks", "make.code.kind=3", "[[data.make]] number 2 lacks 'kind', a text"),
        ("make:tasks", "data.make=3", "data to be made is written as [[data.make]]"),
        ("make:tasks", "stage.ar.name=data", "a stage's name is 'data', which is the folder of the data that is made"),
    ],
)
def test_what_is_wrong_with_data_to_be_made_is_named(tmp_path: Path, train: str, change: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        with_makes(tmp_path, train, change)
    assert sentence in str(refused.value)


def test_the_text_that_is_kept_has_the_changes_and_is_a_recipe(tmp_path: Path) -> None:
    made = recipe(tmp_path, TEXT, "seed=8", "stage.joint.steps=5\n")
    assert "# --set 'seed=8'\n" in made.text
    assert recipe(tmp_path, made.text).seed == 7


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_recipe(tmp_path)


def test_a_missing_recipe_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such recipe"):
        read_recipe(tmp_path / "none.toml")


def test_every_number_of_a_stage_has_a_range() -> None:
    from dataclasses import fields

    numbers: list[Any] = [item for item in fields(Stage) if item.type in (int, float)]
    assert numbers
    assert all(item.metadata.get("low") is not None for item in numbers)
