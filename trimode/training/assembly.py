"""A stage's network and its feeds, built from what the recipe names. Knows no step and no checkpoint."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trimode.config import ModelConfig
from trimode.errors import InvalidInput
from trimode.models.adapter_config import AdapterConfig
from trimode.models.adapters import Adapted, Adapter
from trimode.models.checkpoint import empty, family, load_model, read_config, read_json, resolve
from trimode.models.transformer import Transformer, initialise
from trimode.numerics.noise import Noise
from trimode.tokenizer import Tokenizer
from trimode.training.documents import Special
from trimode.training.drafter import Drafter
from trimode.training.encoding import Encoder
from trimode.training.feed import Feed, fitted
from trimode.training.objectives import Joint
from trimode.training.parallel import Root, World, shard, spread
from trimode.training.recipe import Data, ModelSource, Stage
from trimode.training.token_cache import tokenized

ADAPTERS = ("lora", "drafter")

Load = Callable[[], Transformer]


def refuse(stage: Stage, world: World) -> None:
    """Refuse what cannot be trained here, before any stage has begun."""
    if stage.optimizer == "muon" and stage.kind in ADAPTERS:
        raise InvalidInput(f"stage {stage.name!r}: optimizer is 'muon', an adapter's are 'adamw' alone")
    if not stage.data.train:
        raise InvalidInput(f"stage {stage.name!r}: data.train names no file")
    if stage.evaluate_every and not stage.data.heldout:
        raise InvalidInput(
            f"stage {stage.name!r}: evaluate_every is {stage.evaluate_every}, but data.heldout names no file"
        )
    share = world.size * stage.micro
    if stage.streams % share:
        raise InvalidInput(
            f"stage {stage.name!r}: streams is {stage.streams}, allowed are multiples of {share}, "
            f"{world.size} processes with {stage.micro} streams at a time (micro)"
        )
    if stage.optimizer == "muon" and world.size > 1:
        raise InvalidInput(
            f"stage {stage.name!r}: optimizer is 'muon', which needs whole matrices on one process; use 'adamw' here"
        )
    if stage.kind in ADAPTERS and stage.compile:
        raise InvalidInput(f"stage {stage.name!r}: compile is true, but layers with an adapter are never compiled")


def loader(config: ModelConfig, source: Path | None, seed: int) -> Load:
    """How to come by the weights a stage starts from: those of a folder, or fresh ones. In float32, on the host."""

    def load() -> Transformer:
        if source is not None:
            return load_model(source, "float32", "cpu")
        model = empty(config, torch.float32, torch.device("cpu"))
        initialise(model, seed)
        return model

    return load


def configuration(model: ModelSource) -> ModelConfig:
    """The geometry a run starts from, without its weights."""
    if model.config is None:
        return read_config(resolve(str(model.source)))
    fields = read_json(model.config)
    return family(fields).parse(fields, None)


def network(
    stage: Stage, config: ModelConfig, load: Load, world: World, seed: int, is_resumed: bool
) -> tuple[Root, nn.Module]:
    """What learns under its objective, on the device and sharded, in float32; and what of it is trained. Collective.

    With several processes only rank 0 loads. A resumed stage finds its weights in the checkpoint, but for the base of
    an adapter.
    """
    is_loaded = not is_resumed or stage.kind in ADAPTERS
    model = load() if is_loaded and world.size == 1 else empty(config, torch.float32, torch.device("cpu"))
    if stage.activation_checkpointing:
        recompute(model.layers)
    if stage.compile:
        model.compile()
    root, trained = learner(stage, config, model.train(), seed)
    shard(root, list(model.layers), world, stage.precision)
    if world.size == 1:
        root.to(world.device)
    elif is_loaded:
        whole = dict(load().named_parameters()) if world.rank == 0 else None
        spread(model, whole, world)
    return root, trained


def learner(stage: Stage, config: ModelConfig, model: Transformer, seed: int) -> tuple[Root, nn.Module]:
    """The model under its objective, all of it trained, or frozen beneath an adapter that is."""
    joint = Joint(weights={"ar": stage.weights.ar, "diffusion": stage.weights.diffusion})
    if stage.kind not in ADAPTERS:
        return Root(model.requires_grad_(True), joint), model
    lora, is_draft = stage.lora, stage.kind == "drafter"
    adapter = Adapter.new(config, lora.rank, lora.alpha, stage.targets, seed, is_draft, name=stage.name)
    return Root(Adapted(model, adapter), Drafter(seed=seed) if is_draft else joint), adapter


def n_trained(stage: Stage, config: ModelConfig) -> int | None:
    """Parameters of a stage's adapter; None where all of the model learns."""
    if stage.kind not in ADAPTERS:
        return None
    lora = stage.lora
    with torch.device("meta"):
        adapter = Adapter(config, AdapterConfig(rank=lora.rank, alpha=lora.alpha, targets=stage.targets))
    return sum(weight.numel() for weight in adapter.parameters())


def recompute(layers: Iterable[nn.Module]) -> None:
    """Keep only the inputs of layers, compute the rest again in the backward pass. Mutates; names stay as they are.

    torch's wrapper module would rename every weight, for checkpoints and export to rename back.
    """
    for layer in layers:
        setattr(layer, "forward", partial(checkpoint, layer.forward, use_reentrant=False))  # noqa: B010


def feeds(
    stage: Stage, config: ModelConfig, tokenizer: Tokenizer, seed: int, say: Callable[[str], None]
) -> tuple[Feed, Feed | None]:
    """What a stage learns from and what it is measured on, which is under the same noise whatever the seed."""
    noise = None if stage.kind == "ar" else replace(stage.noise, drafts=stage.kind == "drafter")
    special = specials(config, tokenizer, noise)
    encoder = Encoder(tokenizer, special.eos_token_id)
    data, made = stage.data, []
    for patterns, key in ((data.train, seed), (data.heldout, 0)):
        if patterns:
            corpus = documents(patterns, data, encoder, noise, stage.rows, config.vocab_size, say)
            made.append(Feed(corpus, noise, special, seed=key, **_shape(stage)))
    return made[0], made[1] if len(made) > 1 else None


def _shape(stage: Stage) -> dict[str, Any]:
    return {"rows": stage.rows, "streams": stage.streams, "attention": stage.attention}


def documents(
    patterns: Iterable[str], data: Data, encoder: Encoder, noise: Noise | None, rows: int, vocab_size: int,
    say: Callable[[str], None],
) -> Any:  # fmt: skip
    """The corpus of some files, in pieces that fit; what is left out is said."""
    cache = tokenized(list(patterns), encoder, strict=data.strict)
    if cache.largest >= vocab_size:
        raise InvalidInput(
            f"{', '.join(patterns)}: the tokenizer gives the token {cache.largest}, the model knows 0 to "
            f"{vocab_size - 1} (vocab_size)"
        )
    corpus, too_long = fitted(cache, noise, rows=rows, max_tokens=data.max_tokens, strict=data.strict)
    say(f"{', '.join(patterns)}: {len(corpus)} documents, {cache.n_tokens} tokens")
    for bad in (cache.bad_rows, too_long):
        if str(bad):
            say(str(bad))
    return corpus


def specials(config: ModelConfig, tokenizer: Tokenizer, noise: Noise | None) -> Special:
    """What training writes itself, and how its canvases are read.

    An autoregressive stage pads with any id, for nobody sees it.
    """
    if config.mask_token_id is None and noise is not None:
        raise InvalidInput(f"{config.model_type}: the checkpoint has no mask token (trimode convert adds one)")
    fim = tokenizer.fim
    return Special(
        mask_token_id=config.mask_token_id or 0,
        eos_token_id=config.eos_token_ids[0] if config.eos_token_ids else None,
        fim=fim if fim is not None and max(fim) < config.vocab_size else None,
        shifted=config.canvas_logits == "shifted",
    )


def speaker(world: World) -> Callable[[str], None]:
    """Talk to standard error, on rank 0 alone."""
    return lambda text: print(text, file=sys.stderr) if world.rank == 0 else None
