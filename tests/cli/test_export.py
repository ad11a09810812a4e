"""`trimode export`: a run becomes a checkpoint folder, or one sentence says why not."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.saves import FACTS, make_base, new
from trimode.cli import app
from trimode.errors import InvalidInput
from trimode.models.checkpoint import load_model
from trimode.training.checkpoint import Checkpoints

pytestmark = pytest.mark.medium


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "joint"
    make_base(folder / "base")
    for step in (1, 2):
        Checkpoints(folder / "checkpoints").save(step, *new(), FACTS)
    return folder


def test_a_run_or_a_stage_is_exported(stage: Path, tmp_path: Path) -> None:
    for run, more in ((stage, []), (stage.parent, ["--average", "2"]), (stage, ["--step", "1"])):
        out = tmp_path / "-".join(["out", *more])
        done = CliRunner().invoke(app, ["export", str(run), "--out", str(out), *more])
        assert done.exit_code == 0, done.output
        assert done.stdout == ""
        assert "step-00000001" in done.stderr or not more
        assert load_model(out).config.n_layers == 2


def test_what_cannot_be_exported_is_one_sentence(stage: Path, tmp_path: Path) -> None:
    for more, sentence in ((["--average", "3"], "holds 2 complete checkpoints"), (["--step", "9"], "of step 9")):
        done = CliRunner().invoke(app, ["export", str(stage), "--out", str(tmp_path / "out"), *more])
        assert isinstance(done.exception, InvalidInput)
        assert sentence in str(done.exception)
