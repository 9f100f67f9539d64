"""From a checkpoint to a model whose linear layers are frozen and adapted: what `octavo tune` trains.

One tensor is in memory at a time besides what stays.  Rotary query and key rows of GGUF's llama files are put
back into Hugging Face's order ("half"), in which adapters are written and the fast kernels work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import nn

from octavo.adapters.frozen import FrozenWeight, freeze
from octavo.adapters.lora import AdaptedLinear, LowRank, Place
from octavo.adapters.qlora import Blocks, PackedFrozen, Scratch
from octavo.errors import FormatError, UnsupportedError
from octavo.model_config import ModelConfig
from octavo.models.gpt import GPT
from octavo.models.loading import CONSTANTS, parameter_name, split_tensor
from octavo.weights.adapter import Adapter, AdapterConfig, half_rope_rows
from octavo.weights.architectures import huggingface_module
from octavo.weights.tensor import Tensor
from octavo.weights.untrusted import forget_pages, mapped_files

Method = Literal["lora", "qlora"]


@dataclass(frozen=True, slots=True)
class Site:
    """Linear layers of one input, and the names and stretches of them that get a pair each."""

    owner: str
    layers: tuple[str, ...]
    names: tuple[tuple[str, int, int], ...]


def sites(config: ModelConfig) -> Iterator[Site]:
    """All linear layers of the blocks, in order.  Where Hugging Face has one module, there is one pair."""
    fused = config.architecture in ("gpt2", "phi3")
    for layer in range(config.layers):
        block, prefix = f"blocks.{layer}", f"blk.{layer}"
        three = ((f"{prefix}.attn_q", 0, 1), (f"{prefix}.attn_k", 1, 2), (f"{prefix}.attn_v", 2, 3))
        yield Site(
            f"{block}.attention",
            ("query", "key", "value"),
            ((f"{prefix}.attn_qkv", 0, 3),) if fused else three,
        )
        yield Site(f"{block}.attention", ("output",), ((f"{prefix}.attn_output", 0, 1),))
        up = (f"{prefix}.ffn_up", 0, 1)
        if config.gated:
            two = ((f"{prefix}.ffn_gate", 0, 1), (f"{prefix}.ffn_up", 1, 2))
            both = ((f"{prefix}.ffn_up", 0, 2),)
            yield Site(f"{block}.feed_forward", ("gate", "up"), both if fused else two)
        else:
            yield Site(f"{block}.feed_forward", ("up",), (up,))
        yield Site(f"{block}.feed_forward", ("down",), ((f"{prefix}.ffn_down", 0, 1),))


class Adapters(nn.Module):
    """All that is trained: pairs by octavo's names of linear layers, and tensors that are trained whole."""

    def __init__(self, config: AdapterConfig, architecture: str) -> None:
        super().__init__()
        self.config, self.architecture = config, architecture
        self.pairs: dict[str, LowRank] = {}
        self.saved: dict[str, nn.Parameter] = {}

    def add_pair(self, name: str, pair: LowRank) -> None:
        self.pairs[name] = pair
        self.add_module(name.replace(".", "_"), pair)

    def add_saved(self, name: str, parameter: nn.Parameter) -> None:
        self.saved[name] = parameter
        self.register_parameter(name.replace(".", "_"), parameter)


def build_adapted(
    model_config: ModelConfig,
    tensors: Mapping[str, Tensor],
    config: AdapterConfig,
    *,
    method: Method = "lora",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    initial: Adapter | None = None,
    fast: bool = True,
    base_format: str = "nf4",
    in_bytes: bool = False,
) -> tuple[GPT, Adapters]:
    """The model, ready to compute in `dtype`, and what of it is trained.

    initial: an adapter to go on from.  base_format: see qlora.PackedFrozen.  in_bytes: frozen layers are
    multiplied in 8 bits where `dtype` is bfloat16 and the processor can (layers/byte_product.py).
    Raises UnsupportedError for targets that name no layer.
    """
    halved = _with_half_rope(model_config)
    with torch.device("meta"):
        model = GPT(halved, fast=fast)
    adapters = Adapters(config, model_config.architecture)
    linears = _place_tensors(model, model_config, tensors, dtype)
    chosen = _targets(config, model_config)
    scratch = Scratch()
    files = mapped_files(tensor.data for tensor in tensors.values())
    generator = torch.Generator().manual_seed(seed)
    for site in sites(halved):
        owner = model.get_submodule(site.owner)
        parts = [linears[f"{site.owner}.{layer}"] for layer in site.layers]
        starts = [0, *np.cumsum([part.rows for part in parts]).tolist()]
        places = []
        for name, first, last in site.names:
            if name not in chosen:
                continue
            path = huggingface_module(model_config.architecture, name)
            rank = config.rank_of(path)
            rows = starts[last] - starts[first]
            pair = LowRank(parts[0].columns, rows, rank, config.scale_of(path, rank), generator)
            adapters.add_pair(name, pair)
            places.append(Place(pair, starts[first], starts[last]))
        adapted = AdaptedLinear(
            _frozen(parts, method, dtype, scratch, base_format, in_bytes),
            _bias(owner, site.layers),
            places,
            config.dropout,
        )
        for pair, place in ((place.pair, place) for place in places if config.decomposed):
            pair.magnitude = nn.Parameter(adapted.row_norms(place))
        several = hasattr(owner, "joined") and site.layers != ("output",) and site.layers != ("down",)
        setattr(owner, "joined" if several else site.layers[0], adapted)
        forget_pages(files)
        for layer in site.layers:
            linears.pop(f"{site.owner}.{layer}")
            if several:
                setattr(owner, layer, nn.Identity())
    _train_saved(model, adapters)
    if initial is not None:
        fill(adapters, initial)
    return model, adapters


def build_full(config: ModelConfig, tensors: Mapping[str, Tensor], *, fast: bool = True) -> GPT:
    """The model in float32 with every parameter trained."""
    halved = _with_half_rope(config)
    with torch.device("meta"):
        model = GPT(halved, fast=fast)
    for name, blocks in _place_tensors(model, config, tensors, torch.float32).items():
        model.get_submodule(name).weight = nn.Parameter(torch.from_numpy(blocks.numpy()))
    return model.requires_grad_(True)


def fill(adapters: Adapters, values: Adapter) -> None:
    """Take the numbers of an adapter that was read.  FormatError where it has other modules."""
    if values.pairs.keys() != adapters.pairs.keys() or values.saved.keys() != adapters.saved.keys():
        odd = sorted(
            (values.pairs.keys() ^ adapters.pairs.keys()) | (values.saved.keys() ^ adapters.saved.keys())
        )
        raise FormatError(f"{values.path}: {odd[0]} is only in one of adapter and run: give the same targets")
    with torch.no_grad():
        for name, pair in adapters.pairs.items():
            read = values.pairs[name]
            pair.scale = read.scale
            pair.down.copy_(torch.from_numpy(read.down))
            pair.up.copy_(torch.from_numpy(read.up))
            if pair.magnitude is not None and read.magnitude is not None:
                pair.magnitude.copy_(torch.from_numpy(read.magnitude.reshape(-1)))
        for name, parameter in adapters.saved.items():
            parameter.copy_(torch.from_numpy(values.saved[name]))


def _with_half_rope(config: ModelConfig) -> ModelConfig:
    ropes = {
        name: replace(rope, style="half")
        for name in ("rope", "window_rope")
        if (rope := getattr(config, name)) is not None
    }
    return replace(config, **ropes)


def _place_tensors(
    model: GPT, config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Blocks]:
    """Matrices of linear layers as they lie in the file, by module; all else becomes parameters, frozen."""
    linears: dict[str, Blocks] = {}
    for name, tensor in tensors.items():
        if name in CONSTANTS:
            continue
        matrix = len(tensor.shape) == 2
        rows = tensor.data.reshape(tensor.shape[0], -1) if matrix else tensor.numpy()
        for part, values in split_tensor(name, rows, config, tensors):
            order = half_rope_rows(config, part)
            values = values if order is None else values[order]
            module, _, kind = parameter_name(part).rpartition(".")
            if matrix and module.startswith("blocks."):
                linears[module] = Blocks(tensor.type, len(values), tensor.shape[1], values)
                continue
            # Embeddings and the head are read in the computing type; norms stay in float32.
            if matrix:
                numbers = Blocks(tensor.type, len(values), tensor.shape[1], values).tensor(dtype)
            else:
                numbers = torch.from_numpy(np.array(values))
            setattr(model.get_submodule(module), kind, nn.Parameter(numbers, requires_grad=False))
    left = [
        key
        for key, each in model.named_parameters()
        if each.is_meta and key.rpartition(".")[0] not in linears
    ]
    if left:
        raise FormatError(f"the checkpoint has no tensor for {', '.join(sorted(left)[:4])}")
    return linears


def _targets(config: AdapterConfig, model: ModelConfig) -> set[str]:
    names = [name for site in sites(model) for name, _, _ in site.names]
    if config.targets == ("all-linear",):
        return set(names)
    paths = {name: huggingface_module(model.architecture, name) for name in names}
    chosen = set()
    for target in config.targets:
        found = {name for name, path in paths.items() if path == target or path.endswith(f".{target}")}
        if not found:
            known = sorted({path.rpartition(".")[2] for path in paths.values()})
            raise UnsupportedError(
                f"targets: {target!r} is no layer of this model: all-linear, or of {', '.join(known)}"
            )
        chosen |= found
    return chosen


def _frozen(
    parts: Sequence[Blocks],
    method: Method,
    dtype: torch.dtype,
    scratch: Scratch,
    base_format: str,
    in_bytes: bool,
) -> FrozenWeight:
    if method == "qlora":
        return PackedFrozen(parts, dtype, scratch, base_format, in_bytes=in_bytes)
    return freeze([part.tensor(dtype) for part in parts], dtype, in_bytes=in_bytes)


def _bias(owner: nn.Module, layers: Sequence[str]) -> torch.Tensor | None:
    biases = [cast(nn.Linear, getattr(owner, layer)).bias for layer in layers]
    return None if any(bias is None for bias in biases) else torch.cat([bias.detach() for bias in biases])


def _train_saved(model: GPT, adapters: Adapters) -> None:
    """Modules that are trained whole (PEFT's modules_to_save): their parameters become float32 masters."""
    for wanted in adapters.config.saved:
        found = False
        for key, parameter in list(model.named_parameters()):
            name = _file_name(key)
            path = huggingface_module(adapters.architecture, name) if name else ""
            if path != wanted and not path.endswith(f".{wanted}"):
                continue
            if "token_embedding" in key and model.config.tied_embeddings:
                raise UnsupportedError(f"modules_to_save: {wanted}: this model's embedding is its head too")
            module, _, kind = key.rpartition(".")
            trained = nn.Parameter(parameter.detach().float())
            setattr(model.get_submodule(module), kind, trained)
            adapters.add_saved(f"{name}.{kind}", trained)
            found = True
        if not found:
            raise UnsupportedError(f"modules_to_save: {wanted!r} is no embedding, head or norm of this model")


def _file_name(parameter: str) -> str:
    """GGUF's name of the module of a parameter here, or "" (linear layers of blocks have pairs instead)."""
    from octavo.models.loading import BLOCK_MODULE_NAMES, MODULE_NAMES

    module = parameter.rpartition(".")[0]
    if not module.startswith("blocks."):
        return next((name for name, ours in MODULE_NAMES.items() if ours == module), "")
    _, layer, inner = module.split(".", 2)
    found = next((name for name, ours in BLOCK_MODULE_NAMES.items() if ours == inner), "")
    return f"blk.{layer}.{found}" if found else ""
