"""What --tasks names."""

import pytest

from trimode.errors import InvalidInput
from trimode.evaluation.suites import PUBLISHED, suites
from trimode.evaluation.tasks import TASKS, split_of

pytestmark = pytest.mark.medium


def test_a_group_is_its_tasks_and_nothing_comes_twice() -> None:
    assert [suite.name for suite in suites(["procedural"])] == list(TASKS)
    assert [suite.name for suite in suites(["wide"])] == [f"{task}:wide" for task in TASKS]
    assert [suite.name for suite in suites(["json", "csv", "json", "json:wide"])] == ["json", "csv", "json:wide"]


@pytest.mark.parametrize("name", ["yodel", "yodel:wide", "gsm8k:wide", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"task is {name!r}, allowed are procedural, wide.*json.*{PUBLISHED[0]}"):
        suites([name])


@pytest.mark.parametrize("name", [*TASKS, *(f"{task}:wide" for task in TASKS)])
def test_items_are_the_same_for_the_same_seed_unseen_by_training_and_right_in_their_reference(name: str) -> None:
    (suite,) = suites([name])
    items = suite.items(3, 1000)
    assert items == suite.items(3, 1000)
    assert [item.prompt for item in items] != [item.prompt for item in suite.items(3, 1001)]
    assert suite.items(2, 1000) == items[:2]
    for item in items:
        assert item.task == name
        assert isinstance(item.prompt, str)
        assert split_of(item.prompt) == "heldout"
        assert suite.judge(item, item.reference or "") is True
        assert suite.judge(item, "") is False


def test_a_procedural_task_needs_a_limit() -> None:
    with pytest.raises(InvalidInput, match="never ends"):
        suites(["json"])[0].items(None, 0)
