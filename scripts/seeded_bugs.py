"""Breaks the code in one place at a time, in a scratch copy, and runs the tests that must notice.

    python scripts/seeded_bugs.py [WORDS OF A NAME ...]

Prints a table of bugs caught and survived. Exit code 1 if one survives, 2 if a patch no longer applies or the tests
fail without any.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = -1  # none of the tests can run here, for want of a compiler, say
SECONDS = 60  # for one test; a test that runs into it has noticed an endless loop

SPECULATION = "tests/decoding/test_self_speculation.py"
LOSSLESS = f"{SPECULATION}::test_speculation_writes_what_ar_writes_at_every_temperature"
REDRAFTING = "tests/decoding/test_redrafting.py"
REFERENCES = "tests/decoding/test_references.py"
DIFFUSION = f"{REFERENCES}::test_diffusion_equals_its_reference"
ENDINGS = "tests/engine/test_endings.py"
BATCHING = "tests/engine/test_batching.py"
CACHE = "tests/engine/test_cache.py"
PARTS = f"{BATCHING}::test_the_parts_of_a_prompt_are_as_large_as_the_rows_allow"
PREEMPTION = "tests/engine/test_preemption.py"
MEMORY = "tests/engine/test_memory.py"
VISIBILITY = "tests/numerics/test_visibility.py"
SAMPLING = "tests/numerics/test_sampling.py"
NATIVE = "tests/models/test_native.py::test_a_long_text_in_one_forward_is_that_of_torch"
NOISE = "tests/numerics/test_noise.py::test_the_expected_weight_of_every_slot_is_exactly_one"
PACKED = "tests/numerics/test_packed.py"
SAMPLES = "tests/training/test_samples.py"
ENCODING = "tests/training/test_encoding.py"
FEED = "tests/training/test_feed.py"
TRAINER = "tests/training/test_trainer.py"
RESUMED = "tests/training/test_stages.py::test_a_stopped_run_gone_on_with_is_as_never_stopped"
ADAPTERS = "tests/models/test_adapters.py"
CAUSAL = "limits=[(i // span.block + 1) * span.block for i in range(n)]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One piece of a file's text replaced by another, and the tests of which at least one must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def broken(self, text: str) -> str:
        """The file's text with the bug. Raises ValueError if the piece is not there exactly once."""
        if text.count(self.old) != 1:
            raise ValueError(f"bug {self.name!r}: {self.file} holds {text.count(self.old)} times: {self.old}")
        return text.replace(self.old, self.new)


def bug(name: str, file: str, old: str, new: str, *tests: str) -> Bug:
    return Bug(name=name, file=f"trimode/{file}", old=old, new=new, tests=tests)


BUGS = (
    bug("no rollback of the cache after verification", "decoding/self_speculation.py",
        "keep=state.length + accepted)", "keep=state.length + n)", LOSSLESS),
    bug("one row too many kept after a refused guess", "decoding/self_speculation.py",
        "keep=state.length + accepted)", "keep=state.length + accepted + (accepted < n))", LOSSLESS),
    bug("the bonus token is that of the last row", "decoding/self_speculation.py",
        "tokens = tuple(chosen[: accepted + 1])", "tokens = (*chosen[:accepted], chosen[-1])", LOSSLESS),
    bug("one guess too many accepted", "numerics/acceptance.py",
        "            return index\n", "            return min(index + 1, len(draft))\n",
        "tests/numerics/test_acceptance.py", LOSSLESS),
    bug("guesses looked up stay in the cache when refused", "decoding/prompt_lookup.py",
        "keep=state.length + accepted)", "keep=state.length + span.n_guesses)",
        "tests/decoding/test_prompt_lookup.py::test_it_writes_what_ar_writes_at_every_temperature_also_without_a_mask"),
    bug("a guess that is refused counts as accepted", "engine/request.py",
        "self.accepted.update(range(min(n_guesses, n_made - 1)))",
        "self.accepted.update(range(min(n_guesses, n_made)))",
        "tests/engine/test_counts.py"),
    bug("redraft from the wrong prefix", "decoding/self_speculation.py",
        "zip(span.canvases, picks.canvases, strict=True)", "zip(span.canvases, reversed(picks.canvases), strict=True)",
        REDRAFTING),
    bug("canvas keys and values stay in the cache", "engine/turn.py",
        "    tokens = request.take(step.tokens, span.kind)\n",
        "    tokens = request.take(step.tokens, span.kind)\n"
        "    request.cache.keep(max(step.keep, len(request.tokens) - 1))\n",
        CACHE),
    bug("a commit row sees one commit more", "spans.py", CAUSAL,
        "limits=[min(i + 2, n) for i in range(n)]", VISIBILITY),
    bug("a commit row sees one commit fewer", "spans.py", CAUSAL,
        "limits=[max(i, 1) for i in range(n)]", VISIBILITY),
    bug("a canvas does not see the last commit before it", "spans.py", "out.limits.extend([canvas.after] * width)",
        "out.limits.extend([max(canvas.after - 1, 0)] * width)", VISIBILITY),
    bug("canvases see each other", "spans.py", "out.stops.extend([start + width] * width)",
        "out.stops.extend([start + 2 * width] * width)", VISIBILITY),
    bug("canvas positions off by one", "spans.py", "out.offsets.extend(range(canvas.after, canvas.after + width))",
        "out.offsets.extend(range(canvas.after + 1, canvas.after + width + 1))", DIFFUSION),
    bug("noise keyed by the row of the span", "engine/runner.py", "found = [draw(job.sampling, past + i + 1, 0)",
        "found = [draw(job.sampling, i + 1, 0)", LOSSLESS),
    bug("noise keyed by the slot of the canvas", "engine/runner.py", "draw(job.sampling, first + slot, canvas.round",
        "draw(job.sampling, slot, canvas.round", DIFFUSION),
    bug("every look at a canvas has the same noise", "engine/runner.py",
        "draw(job.sampling, first + slot, canvas.round", "draw(job.sampling, first + slot, 0", DIFFUSION),
    bug("confidence tempered", "numerics/sampling.py", "scores_SV = logits_SV.float()\n",
        "scores_SV = logits_SV.float() / (draws[0].temperature or 1.0)\n", SAMPLING),
    bug("the mask's share left out of the confidence", "numerics/sampling.py", "total_S = scores_SV.logsumexp(-1)\n",
        "total_S = scores_SV.index_fill(-1, banned, float('-inf')).logsumexp(-1)\n", SAMPLING),
    bug("no slot is filled when none is confident", "numerics/unmasking.py",
        "return order[:1] + [i for i in order[1:] if confidence[i] >= threshold]",
        "return [i for i in order if confidence[i] >= threshold]", DIFFUSION),
    bug("what follows an EOS in a burst is kept", "engine/request.py",
        "            if self.finish:\n", "            if self.finish == \"length\":\n", ENDINGS),
    bug("the end of the context is ignored", "engine/engine.py",
        "end = min(len(prompt) + max_tokens, config.context_length)", "end = len(prompt) + max_tokens", ENDINGS),
    bug("who has run stays in front", "engine/scheduler.py",
        "order = [r for r in self.running if r.id not in ran] + [request for request, _ in turns]",
        "order = list(self.running)", BATCHING),
    bug("a growing cache loses its last position", "cache.py",
        "k_LGSK[:, :, :old], v_LGSK[:, :, :old] = self.k_LGSK, self.v_LGSK",
        "k_LGSK[:, :, : old - 1] = self.k_LGSK[:, :, : old - 1]", "tests/test_cache.py"),
    bug("a preempted request is not computed anew", "engine/scheduler.py",
        "request.n_recomputed = max(request.n_recomputed, request.cache.length)", "request.n_recomputed = 0",
        PREEMPTION),
    bug("a change keeps the cache of the last block whole", "engine/engine.py",
        "n_readable - n_readable % request.commit_block)", "request.cache.length)",
        PREEMPTION),
    bug("a preempted request keeps its memory", "engine/scheduler.py",
        "        self.memory.release(request)\n\n", "        request.cache.keep(0)\n\n", PREEMPTION),
    bug("an ended request keeps its memory", "engine/engine.py",
        "        self.memory.release(request)  # nobody reads its cache any more\n", "", PREEMPTION),
    bug("a page is known under its tokens alone", "engine/memory.py",
        "node = request.nodes[-1] if request.nodes else request.root", "node = request.root", MEMORY),
    bug("a page that somebody holds is given away", "engine/pages.py", "            self._idle.pop(page, None)\n", "",
        MEMORY),
    bug("parts of a prompt count as forwards", "engine/request.py", "if kind == \"prefill\":", "if not kind:", PARTS),
    bug("the cheaper products of drafts serve every row", "models/native.py", "return Layer(sets[0], sets[-1],",
        "return Layer(sets[-1], sets[-1],", NATIVE),
    bug("a native row sees one commit fewer", "models/native.py", "limits += [past + limit for limit in part.limits]",
        "limits += [max(past + limit - 1, 1) for limit in part.limits]", NATIVE),
    bug("a block weighs the same however many are masked", "numerics/noise.py", "return ((slots, n / k),)",
        "return ((slots, 1.0),)", NOISE),
    bug("the complementary view weighs as much as the first", "numerics/noise.py", "(others, n / (2 * (n - k)))",
        "(others, n / (2 * k))", NOISE),
    bug("a training canvas sees its own clean copy", "numerics/packed.py",
        "_bias(seen(part, slice(start, stop), np.r_[0:past, start:stop])[None, None], dtype",
        "_bias(torch.ones(1, 1, stop - start, past + stop - start, dtype=torch.bool), dtype", PACKED),
    bug("a causal row learns its own token", "training/samples.py", "Target(row=i - 1, label=commit[i], weight=1.0)",
        "Target(row=i, label=commit[i], weight=1.0)", SAMPLES),
    bug("what hangs over the end of an answer is clean text", "training/samples.py",
        "*[special.mask_token_id] * piece.tail]", "*document.tokens[piece.end : piece.end + piece.tail]]", SAMPLES),
    bug("the end of text is learned twice", "training/encoding.py", "(*prompt, *parts[-1], *end)",
        "(*prompt, *parts[-1], *end, *end)", ENCODING),
    bug("the token that ends an answer is not learned", "training/encoding.py",
        "stop = tokens.index(ending, start) + 1", "stop = tokens.index(ending, start)", ENCODING),
    bug("every epoch has the same noise", "training/feed.py", "f\"{self.seed}:{epoch}:{index}\"",
        "f\"{self.seed}:{index}\"", FEED),
    bug("the number of processes changes the order", "training/feed.py",
        "first = step * self.streams + rank * share", "first = (step + rank) * share", FEED),
    bug("a micro-batch's own counts divide its loss", "training/trainer.py",
        "loss = value(sums, counts, weights) * world.size",
        "loss = value(sums, parts.root.objective.counts(batch), weights) * world.size", TRAINER),
    bug("a spike reaches the weights", "training/trainer.py",
        "        _guard(stage, parts, state, measured.loss, measured.parts)\n", "", TRAINER),
    bug("a run gone on with forgets its step", "training/stages.py", "Progress(step=facts[\"step\"],",
        "Progress(step=0,", RESUMED),
    bug("the verifier's row is that of the slot itself", "training/batch.py",
        "(row, spelled.offsets[row] + shift - 1, spelled.starts[row])",
        "(row, spelled.offsets[row] + shift, spelled.starts[row])",
        "tests/training/test_drafter.py::test_a_verifier_names_the_position_of_its_slot"),
    bug("a drafter in training holds for every row", "models/adapters.py", "rows=rows if self.adapter.draft else None",
        "rows=None", ADAPTERS),
    bug("a drafter in serving holds for every row", "engine/runner.py", "rows[drafter] = list(visibility.draft_rows)",
        "rows[drafter] = list(range(start))", "tests/engine/test_adapters.py"),
    bug("merging forgets the scale", "models/adapters.py", "return self.scale * (self.B", "return (self.B", ADAPTERS),
)  # fmt: skip


def copied(folder: Path) -> Path:
    """What the tests need of this checkout, without weights and bytecode."""
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for name in ("trimode", "tests", "scripts", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def pytest(folder: Path, tests: tuple[str, ...], *, verbose: bool = False) -> int:
    """Exit code of the tests in a copy: 0 all passed, 1 some failed, SKIPPED; others mean that they did not run."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", f"--timeout={SECONDS}", *tests]
    # Bytecode would outlive a patch of the same size within the same second.
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode > 1 or (done.returncode and verbose):
        print(done.stdout[-2000:] + done.stderr[-2000:], file=sys.stderr)
    return SKIPPED if done.returncode == 0 and " passed" not in done.stdout else done.returncode


def verdict(folder: Path, seeded: Bug) -> str:
    """Whether the tests notice the bug. The copy is as before afterwards."""
    path = folder / seeded.file
    text = path.read_text("utf-8")
    path.write_text(seeded.broken(text), "utf-8")
    try:
        code = pytest(folder, seeded.tests)
    finally:
        path.write_text(text, "utf-8")
    return {0: "SURVIVED", 1: "caught", SKIPPED: "skipped"}.get(code, f"NOT RUN (pytest: {code})")


def main() -> int:
    chosen = [b for b in BUGS if all(word in b.name for word in sys.argv[1:])]
    try:
        for each in chosen:
            each.broken((ROOT / each.file).read_text("utf-8"))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="trimode-bugs-") as scratch:
        folder = copied(Path(scratch))
        tests = tuple(dict.fromkeys(test for each in chosen for test in each.tests))
        if pytest(folder, tests, verbose=True):
            print("the tests fail without any bug, so they say nothing", file=sys.stderr)
            return 2
        print("| bug | in | verdict | s |\n|---|---|---|---|")
        verdicts = []
        for each in chosen:
            start = time.perf_counter()
            verdicts.append(verdict(folder, each))
            print(f"| {each.name} | `{each.file}` | {verdicts[-1]} | {time.perf_counter() - start:.0f} |", flush=True)
    print(f"\n{verdicts.count('caught')} of {len(chosen)} caught.")
    return int(any(found not in ("caught", "skipped") for found in verdicts))


if __name__ == "__main__":
    sys.exit(main())
