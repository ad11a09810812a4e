"""Tokens per second and peak memory of one joint training step: our forms of attention beside a plain implementation.

    python scripts/bench_training.py [--length 1024] [--block 32] [--streams 1] [--repeats 9] [--size bundled]
                                     [--layers N] [--dtype float32 bfloat16] [--variants split recomputed dense naive]
                                     [--device cpu] [--compile] [--peak TFLOPS] [--out FILE.md]

A step is forward, backward and AdamW on `--streams` random texts of `--length` clean tokens, each with a noised canvas
per block, so on twice as many rows; tokens are the clean ones. `scripts/bench/training_step.py` says what the variants
are. Weights are random and float32, bfloat16 is autocast. The repeats go round all variants and dtypes in one process;
memory is that of a step in a process of its own, above weights, gradients and optimiser.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.bench.floor import Step, clock, measure_rates
from scripts.bench.geometry import SHAPES, describe
from scripts.bench.machine import REST, words
from scripts.bench.report import table
from scripts.bench.spreads import coverage, spread
from scripts.bench.training_step import (
    VARIANTS,
    batch_of,
    fields,
    loss_of,
    memory,
    random_model,
    sample,
    step_flops,
    step_of,
)
from trimode.models.transformer import Transformer

LAST = "naive"  # what the others are compared with
DTYPES = ("float32", "bfloat16")


def seconds(options: argparse.Namespace) -> tuple[dict[tuple[str, str], list[float]], float]:
    """Seconds of every repeat by dtype and variant, and the operations of a step."""
    device, model = torch.device(options.device), model_of(options)
    optim = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    samples = [sample(options.length, options.block, model.config, seed) for seed in range(options.streams)]

    def step(variant: str, dtype: str) -> Callable[[], None]:
        loss = loss_of(variant, model, batch_of(samples, variant, model.config, device))
        return lambda: step_of(loss, optim, device, dtype)

    steps = {(d, v): Step(run=step(v, d), prepare=rest) for d in options.dtype for v in options.variants}
    for one in (*steps.values(), *steps.values()):
        clock(one, device)
    rounds = [{key: clock(one, device) for key, one in steps.items()} for _ in range(options.repeats)]
    return {key: [once[key] for once in rounds] for key in steps}, step_flops(model.config, samples)


def model_of(options: argparse.Namespace) -> Transformer:
    model = random_model(fields(options.size, options.layers), torch.float32, torch.device(options.device))
    if options.compile:
        model.compile()
    return model


def rest() -> None:
    time.sleep(REST)


def peaks(options: argparse.Namespace) -> dict[tuple[str, str], dict[str, int]]:
    """Bytes by dtype and variant, each from a process of its own."""
    found = {}
    for dtype in options.dtype:
        for variant in options.variants:
            command = [sys.executable, __file__, *sys.argv[1:], "--child", dtype, variant]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{dtype}, {variant}: the process that measures memory failed:\n{done.stderr}")
            found[dtype, variant] = json.loads(done.stdout)
    return found


def rows_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per dtype and variant. Ratios are of the repeats that stood next to each other."""
    bytes_of = peaks(options)  # first: later this process is large
    times, flops = seconds(options)
    best = {dtype: peak(options, dtype) for dtype in options.dtype}
    tokens, rows = options.streams * options.length, []
    for (dtype, variant), spent in times.items():
        row = {"dtype": dtype, "variant": variant, "bytes": bytes_of[dtype, variant],
               "tokens_per_second": asdict(spread([tokens / s for s in spent])),
               "flops_per_second": flops / spread(spent).middle,
               "of_peak": flops / spread(spent).middle / best[dtype]}  # fmt: skip
        if LAST in options.variants:
            other = times[dtype, LAST]
            row["speed_ratio"] = asdict(spread([b / a for a, b in zip(spent, other, strict=True)]))
            row["bytes_ratio"] = bytes_of[dtype, variant]["step"] / bytes_of[dtype, LAST]["step"]
        rows.append(row)
    return rows


def peak(options: argparse.Namespace, dtype: str) -> float:
    """Operations per second that utilisation is a share of: as given, else those of a large product here and now."""
    if options.peak:
        return 1e12 * float(options.peak)
    side = 8192 if options.device == "cuda" else 1024
    return measure_rates(2**20, getattr(torch, dtype), torch.device(options.device), side).flops


def markdown(rows: Sequence[dict[str, Any]], setting: str) -> str:
    head = ["dtype", "variant", "tokens/s (range)", f"times {LAST} (range)", "MiB of a step", f"of {LAST}", "TFLOP/s",
            "of peak"]  # fmt: skip
    cells = [
        [
            row["dtype"], row["variant"], interval(row["tokens_per_second"], 0), interval(row.get("speed_ratio"), 2),
            f"{row['bytes']['step'] / 2**20:.0f}", f"{row['bytes_ratio']:.2f}" if "bytes_ratio" in row else "-",
            f"{row['flops_per_second'] / 1e12:.3g}", f"{100 * row['of_peak']:.0f} %",
        ]
        for row in rows
    ]  # fmt: skip
    return f"{setting}\n\n{table(head, cells)}\n"


def interval(values: dict[str, float] | None, digits: int) -> str:
    if values is None:
        return "-"
    return f"{values['middle']:.{digits}f} ({values['low']:.{digits}f}-{values['high']:.{digits}f})"


def describe_setting(options: argparse.Namespace) -> str:
    peak_words = f"{options.peak} TFLOP/s as given" if options.peak else "a large product of the dtype, measured here"
    return (
        f"Joint training steps on {options.streams} x {options.length} clean tokens, blocks of {options.block}, "
        f"{options.size}: {describe(fields(options.size, options.layers))}, random weights"
        f"{', compiled' if options.compile else ''}; {options.repeats} interleaved repeats, in brackets lowest "
        f"and highest, which hold the median with probability {coverage(options.repeats):.4f}. MiB of a step: the peak "
        f"of a process of its own above weights, gradients and optimiser. Peak: {peak_words}. {options.device}, "
        f"{words()}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--size", default="bundled", choices=["bundled", *SHAPES])
    parser.add_argument("--layers", type=int, help="fewer layers than the size has")
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="default: those the device can train")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the data sheet, for the utilisation")
    parser.add_argument("--out", type=Path, help="Markdown file; the numbers go next to it as .json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.variants = options.variants or [v for v in VARIANTS if v != "flex" or options.device == "cuda"]
    if options.child:
        dtype, variant = options.child
        print(json.dumps(memory(variant, dtype, model_of(options), options.length, options.block, options.streams)))
        return
    rows = rows_of(options)
    text = markdown(rows, describe_setting(options))
    print(text)
    if options.out:
        options.out.write_text(text, "utf-8")
        options.out.with_suffix(".json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
