"""Our modes as a model of lm-evaluation-harness: its tasks ask, they answer. Knows its interface, none of its tasks.

lm-eval looks for no plug-ins (0.4.13 has the models of its own table and those an import has registered), so
`python -m trimode.evaluation.harness` registers `trimode` and goes on in lm-eval's own command line: docs/harness.md.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trimode.api import LLM, Completion, completion, load
from trimode.decoding import build, default_mode
from trimode.errors import InvalidInput, TrimodeError
from trimode.evaluation.harness_words import check_flags, device_here, generation_options, new_file, requests_at_once
from trimode.evaluation.scoring import Text, score
from trimode.tokenizer import Message

NAME = "trimode"
LEFT_OUT = ("text", "token_ids", "seconds")  # of a completion: in lm-eval's samples, or not one request's own


class Harness:
    """lm-eval's model interface but for its base class, which `model_class` adds: it splits context and continuation.

    `requests` are lm-eval's Instances, with `args`, `task_name` and `doc_id`.
    """

    cache_hook: Any  # of lm-eval's base: keeps answers for --use_cache

    def __init__(
        self, pretrained: str | Path | LLM | None = None, *, mode: str | None = None, dtype: str | None = None,
        device: str | None = None, backend: str = "auto", adapter: str | None = None, drafter: str | None = None,
        batch_size: int | str = 1, max_batch_size: int | None = None, max_gen_toks: int = 256,
        add_bos_token: bool | None = None, truncate: bool = False, stats: str | None = None, **decoder: Any,
    ) -> None:  # fmt: skip
        """`decoder`: the mode's parameters. Raises InvalidInput for what is not known or out of its range.

        pretrained: a checkpoint, or an LLM, to which dtype, device and backend no longer apply.
        batch_size: requests in one engine, or `auto`, which is `max_batch_size`.
        add_bos_token: by default, whether tokenizer.json has its texts begin with one.
        truncate: cut from the left what is longer than the context, as lm-eval's own models do, instead of refusing it.
        stats: a new JSONL file, one line per generation with what it has cost.
        """
        super().__init__()
        if not isinstance(pretrained, LLM):
            pretrained = load(pretrained, dtype=dtype, device=device_here(device), backend=backend)
        self.llm: LLM = pretrained
        config, self.tokenizer = self.llm.model.config, self.llm.tokenizer
        self.mode = default_mode(config) if mode is None else mode
        self.decoder: dict[str, Any] = {
            name: None if value in ("none", "None") else value for name, value in decoder.items()
        }
        build(self.mode, config, self.llm.cost, **self.decoder)
        self.batch_size = requests_at_once(batch_size, max_batch_size)
        self.max_length, self.max_gen_toks, self.truncate = config.context_length, max_gen_toks, truncate
        self.adapter = None if adapter is None else self.llm.load_adapter(adapter)
        if drafter is not None:
            self.llm.load_drafter(drafter)
        self.bos = self.tokenizer.backend.token_to_id(self.tokenizer.bos_token)
        begins = self.tokenizer.backend.encode("", add_special_tokens=True).ids[:1]
        check_flags(add_bos_token=add_bos_token, truncate=truncate)
        self.adds_bos = bool(begins == [self.bos] if add_bos_token is None else add_bos_token)
        self.stats = None if stats is None else new_file(Path(stats))

    @property
    def eot_token_id(self) -> int | None:
        """What ends a text."""
        eos = self.tokenizer.backend.token_to_id(self.tokenizer.eos_token)
        return eos if eos is not None else next(iter(self.llm.model.config.eos_token_ids), None)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context: BOS, else EOS."""
        found = self.eot_token_id if self.bos is None else self.bos
        if found is None:
            raise InvalidInput("a text without context needs a BOS or EOS before it, and this checkpoint names neither")
        return found

    @property
    def tokenizer_name(self) -> str:
        """What tells lm-eval's caches of requests apart."""
        return str(self.llm.folder).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids. Nothing in a text is special but the BOS before it and the markup of `apply_chat_template`."""
        tokens = self.tokenizer.encode_rendered(string)
        wants_bos = self.adds_bos if add_special_tokens is None else add_special_tokens
        begins = not wants_bos or tokens[:1] == [self.bos]
        return tokens if begins or self.bos is None else [self.bos, *tokens]

    def apply_chat_template(self, chat_history: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """A conversation as text; without a generation prompt it ends with its last message, to be continued."""
        text = self.tokenizer.render_chat(chat_history, add_generation_prompt=add_generation_prompt)
        last = chat_history[-1]["content"].strip()
        return text if add_generation_prompt else text[: text.rindex(last) + len(last)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the mode writes after each context, up to a stop string; `batch_size` requests share the forwards."""
        engine, texts = self.llm.engine(max_running=self.batch_size), [""] * len(requests)
        seen = Counter[str]()
        queued = {}
        for index, one in enumerate(requests):
            context, given = one.args
            options = generation_options(given, self.max_gen_toks)
            key = json.dumps([context, given], default=str)
            options["seed"] = options.get("seed", self.llm.sampling.seed) + seen[key]  # a repeat is another sample
            seen[key] += 1
            room = self.max_length - (options["max_tokens"] if self.truncate else 1)
            tokens = self._fitted(self.tok_encode(context), room)
            request = self.llm.submit(engine, tokens, mode=self.mode, adapter=self.adapter, **self.decoder, **options)
            queued[request.id] = (index, request)
        with tqdm(total=len(requests), desc="generate_until", disable=disable_tqdm) as bar:
            while not engine.is_idle:
                for event in (event for event in engine.step() if event.finish is not None):
                    index, request = queued[event.request]
                    done = completion(request)
                    texts[index] = done.text
                    self._record(requests[index], done)
                    self.cache_hook.add_partial("generate_until", requests[index].args, texts[index])
                    bar.update()
        return texts

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts in nats, in the windows of the context's length that lm-eval cuts."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows, counts = [], []
        for one in requests:
            tokens = self.tok_encode(one.args[0])
            cut = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
            own = [(None, *make_disjoint_window(window)) for window in cut]
            windows += own
            counts.append(len(own))
        values = iter(value for value, _ in self._loglikelihood_tokens(windows, disable_tqdm))
        totals = [sum((next(values) for _ in range(count)), 0.0) for count in counts]
        for one, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", one.args, total)
        return totals

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **unused: Any
    ) -> list[tuple[float, bool]]:
        """(log p in nats, is greedy) of continuations, which lm-eval's `loglikelihood` has cut from their contexts."""
        texts = [
            Text(tokens=tuple(self._fitted([*context, *end], self.max_length + 1)), n_scored=len(end))
            for _, context, end in requests
        ]
        adapter = self.llm.adapter(self.adapter)
        answers = []
        with tqdm(total=len(texts), desc="loglikelihood", disable=disable_tqdm) as bar:
            scored = score(self.llm.served, texts, self.batch_size, adapter)
            for (pair, _, _), answer in zip(requests, scored, strict=True):
                answers.append(answer)
                if pair is not None:  # None: a window of a longer text
                    self.cache_hook.add_partial("loglikelihood", pair, answer)
                bar.update()
        return answers

    def _fitted(self, tokens: list[int], room: int) -> list[int]:
        if len(tokens) <= room:
            return tokens
        if self.truncate and room > 0:
            return tokens[-room:]
        raise InvalidInput(
            f"a request of {len(tokens)} tokens does not fit into the context of {self.max_length}; truncate=true cuts "
            "from the left what leaves no room for max_gen_toks"
        )

    def _record(self, one: Any, done: Completion) -> None:
        if self.stats is not None:
            cost = {name: value for name, value in done.to_dict().items() if name not in LEFT_OUT}
            line = {"task": one.task_name, "doc_id": one.doc_id, **cost}
            with self.stats.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


@cache
def model_class() -> type[Any]:
    """`Harness` on lm-eval's base class. Raises InvalidInput where lm-eval is not installed."""
    try:
        from lm_eval.api.model import TemplateLM
    except ImportError:
        raise InvalidInput("lm-evaluation-harness is not there: pip install 'trimode[harness]'") from None
    return type("Trimode", (Harness, TemplateLM), {"__module__": __name__, "__doc__": Harness.__doc__})


def register() -> None:
    """Make `trimode` a name for lm-eval's `--model` and `simple_evaluate`, in this process."""
    kind = model_class()
    import lm_eval.models  # noqa: F401  # before ours, or lm-eval takes ours for all there are
    from lm_eval.api.registry import register_model

    register_model(NAME)(kind)


def main() -> None:
    """lm-eval's command line, in which the model is `trimode` unless another is named. Exit code 2: bad input."""
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        if sys.argv[1:2] not in (["ls"], ["validate"]):
            first = 2 if sys.argv[1:2] == ["run"] else 1
            sys.argv[first:first] = ["--model", NAME]
        cli_evaluate()
    except TrimodeError as error:
        print(f"trimode: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
