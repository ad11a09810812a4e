"""Two processes start once for all tests of what two processes save."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.saves import FACTS, make_base, new, run, whole
from trimode.training.checkpoint import Checkpoints


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left (saves.two), with a checkpoint of one process beside it."""
    folder = tmp_path_factory.mktemp("pair")
    make_base(folder / "base")
    model, optims = new()
    run(model, optims, 0, 5)
    Checkpoints(folder / "one").save(5, model, optims, FACTS)
    run(model, optims, 5, 10)
    torch.save(whole(model), folder / "expected.pt")
    command = [sys.executable, "-m", "tests.training.saves"]
    both = [
        subprocess.Popen([*command, str(rank), str(folder)], stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    try:
        for process in both:
            _, talk = process.communicate(timeout=100)
            assert process.returncode == 0, talk
    finally:
        for process in both:
            process.kill()
    return folder
