"""Ablations of joint training: many small models, each trained and measured in every mode, by one resumable command.

    python scripts/ablations.py OUT [--minutes 10 --ar-minutes 30 | --joint-steps N --ar-steps N] [--jobs 2]
    python scripts/ablations.py OUT --tables-only

One AR stage per seed; from it one joint stage per setting, which differs from the baseline in one thing, through
`trimode train`; a drafter on the baseline. Every run is a folder of OUT with recipe.toml, run/ and results.json: the
same command skips what is done and goes on with what was cut off. --minutes are turned into steps once, by a trial on
this machine, and kept in OUT/plan.json. Each run has one thread and a core of its own. Writes docs/ablations.md.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.ablation.layout import Plan, read_plan, recipe, write_base, write_plan, write_run, write_start
from scripts.ablation.running import Crew, Stopped, Work
from scripts.ablation.settings import BASELINE, Run, phases
from scripts.ablation.tables import read_results, written
from trimode.errors import TrimodeError

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "ablations.md"
TRIAL, WARM = 14, 4  # steps of a trial, and how many of them are not timed


def trimode_train(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "trimode", "train", str(path), "--device", "cpu", *more]


def work(out: Path, run: Run, plan: Plan) -> Work:
    """Lay out, train, measure; each only where it is not done."""
    folder = out / run.name
    folder.mkdir(exist_ok=True)
    measure = [sys.executable, "-m", "scripts.ablation.measure", str(out), run.name]

    def missing(path: Path, command: Callable[[], list[str]]) -> Callable[[], list[str] | None]:
        return lambda: None if path.exists() else command()

    parts = [
        missing(folder / "run" / run.stage / "final", lambda: trimode_train(write_run(out, run, plan))),
        missing(folder / "results.json", lambda: measure),
    ]
    if run.stage == "drafter":
        parts.insert(0, missing(folder / "answers.jsonl", lambda: [*measure, "answers"]))
    return Work(name=run.name, log=folder / "log.txt", parts=parts)


def seconds_per_step(out: Path, run: Run, plan: Plan) -> float:
    """By a short training of a stage, alone on its core."""
    folder = out / "trial" / run.stage
    folder.mkdir(parents=True, exist_ok=True)
    text = recipe(run, plan, plan.rows).replace("../data", "../../data").replace("../base", "../../base")
    (folder / "recipe.toml").write_text(text, "utf-8")
    if run.setting is not None:
        write_start(out / "trial" / "ar" / "run" / "ar" / "final", folder / "start", run.setting)
    changes = [word for change in (f"steps={TRIAL}", "log_every=1", "warmup=1") for word in ("--set", change)]
    command = trimode_train(folder / "recipe.toml", *changes)
    Crew(1).do([Work(name=f"trial of {run.stage}", log=folder / "log.txt", parts=[lambda: command])])
    lines = (folder / "run" / run.stage / "metrics.jsonl").read_text("utf-8").splitlines()
    first, last = json.loads(lines[WARM - 1])["seconds"], json.loads(lines[-1])["seconds"]
    return float(last - first) / (TRIAL - WARM)


def planned(out: Path, options: argparse.Namespace) -> Plan:
    """The plan of the folder; in a new one, from the options."""
    given = {item.name: getattr(options, item.name) for item in fields(Plan)}
    given = {name: value for name, value in given.items() if value is not None}
    kept = read_plan(out)
    if kept is not None:
        write_plan(out, Plan(**{item.name: getattr(kept, item.name) for item in fields(Plan)} | given))
        return kept
    plan = Plan(**given)
    if "ar_steps" in given and "joint_steps" in given:
        write_plan(out, plan)
        return plan
    out.mkdir(parents=True, exist_ok=True)
    write_base(out, plan)
    ar = seconds_per_step(out, Run(setting=None, seed=0), plan)
    joint = seconds_per_step(out, Run(setting=BASELINE, seed=0), plan)
    timed = {"ar_steps": options.ar_minutes * 60 / ar, "joint_steps": options.minutes * 60 / joint}
    plan = Plan(**({name: max(round(n), 1) for name, n in timed.items()} | given))
    write_plan(out, plan)
    return plan


def write_tables(out: Path, document: Path) -> None:
    plan, results = read_plan(out), read_results(out)
    document.write_text(written(document.read_text("utf-8"), plan, results), "utf-8")
    print(f"{document}: {len(results)} runs")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--minutes", type=float, default=10.0, help="of a joint stage")
    parser.add_argument("--ar-minutes", type=float, default=30.0, help="of the AR stage of a seed")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    parser.add_argument("--only", nargs="+", default=(), metavar="RUN", help="settings or runs, such as w-0 shifted-s1")
    parser.add_argument("--tables-only", action="store_true", help="run nothing, write the tables")
    for item in fields(Plan):
        kind: Any = item.type if isinstance(item.type, type) else str
        text = f"{item.metadata['help']} (default {item.default})"
        parser.add_argument("--" + item.name.replace("_", "-"), type=kind, default=None, help=text)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    out = options.out.resolve()
    try:
        if not options.tables_only:
            phases(options.only)  # a misspelled name, before anything else
            plan = planned(out, options)
            write_base(out, plan)
            for runs in phases(options.only):
                Crew(options.jobs).do([work(out, run, plan) for run in runs])
        write_tables(out, options.document)
    except Stopped:
        sys.exit("stopped as asked; the same command goes on from there")
    except (TrimodeError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
