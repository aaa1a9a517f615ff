"""Converts weights between the Megatron network, at any tensor-parallel size, and the plain network; exports checkpoints.

The networks differ in the names of the weights and in the layout of fused projections: [heads, q k v, d] in Megatron, [q k v, heads, d]
in the plain network.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from megatron.core import parallel_state
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from ...config import ModelConfig, NetworkConfig
from ...errors import CheckpointError
from ...inference.model_file import ModelFile, write_model_file
from ...mappings import from_mapping
from ...mcore.network import MegatronCMIMNetwork
from ...mcore.parallel import is_sharded
from ...observed import PROPERTIES, PropertyTable
from ...tokenizers import Vocabulary
from .format import TENSORS, VOCABULARY, newest_valid, verify

__all__ = ["export_checkpoint", "export_from", "load_plain", "to_plain"]

_RENAMES = (
    (r"^embedding\.word_embeddings", "embedding.token"),
    (r"^embedding\.position_embeddings", "embedding.position"),
    (r"^decoder\.layers\.", "decoder."),
    (r"^decoder\.final_layernorm", "decoder_norm"),
    (r"^output\.bias$", "output_bias"),
    (r"\.input_layernorm\.", ".norm_self."),
    (r"\.pre_cross_attn_layernorm\.", ".norm_cross."),
    (r"\.pre_mlp_layernorm\.", ".norm_ffn."),
    (r"\.mlp\.linear_fc1\.", ".ffn.up."),
    (r"\.mlp\.linear_fc2\.", ".ffn.down."),
    (r"\.linear_proj\.", ".out."),
    (r"\.linear_qkv\.", ".qkv."),
    (r"\.linear_kv\.", ".kv."),
    (r"\.linear_q\.", ".q."),
    (r"\.linear_v\.", ".value."),
)


def _plain_name(name: str) -> str:
    """The name in the plain network of a Megatron parameter."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _fused(name: str) -> int:
    """Number of projections that a Megatron parameter interleaves: 3 in linear_qkv, 2 in linear_kv, otherwise 1."""
    return 3 if ".linear_qkv." in name else 2 if ".linear_kv." in name else 1


def _swap_interleaving(weight: Tensor, outer: int, inner: int) -> Tensor:
    """Reorders rows from [outer, inner, d] to [inner, outer, d]."""
    return weight.unflatten(0, (outer, inner, -1)).transpose(0, 1).flatten(0, 2)


def to_plain(network: MegatronCMIMNetwork) -> dict[str, Tensor]:
    """The weights of all shards with the names of the plain network. A collective call over tensor-parallel ranks.

    Returns:
        State dict of a `models.CMIMNetwork` of the same sizes, in fp32 and on CPU.
    """
    group = parallel_state.get_tensor_model_parallel_group()
    ranks, heads = parallel_state.get_tensor_model_parallel_world_size(), network.network_config.attention_heads
    plain = {}
    for name, parameter in network.named_parameters():
        weight = parameter.detach()
        if is_sharded(parameter) and ranks > 1:
            shards = [torch.empty_like(weight) for _ in range(ranks)]
            torch.distributed.all_gather(shards, weight.contiguous(), group=group)
            weight = torch.cat(shards, dim=parameter.partition_dim)
        plain[_plain_name(name)] = _to_plain_layout(name, weight, heads).float().cpu().clone()
    return plain


def _to_plain_layout(name: str, weight: Tensor, heads: int) -> Tensor:
    return _swap_interleaving(weight, heads, _fused(name)) if _fused(name) > 1 else weight


def export_checkpoint(folder: Path, nemo_file: Path) -> None:
    """Converts a checkpoint, written at any parallel sizes, to a `.nemo` file that `nemo_cmim.load` reads.

    Needs one process and no GPU.

    Raises:
        CheckpointError: If the checkpoint is damaged or incomplete, or if the file cannot be written.
    """
    manifest = verify(folder)
    config = from_mapping(ModelConfig, manifest.model, "model")
    reader = FileSystemReader(folder / TENSORS)
    stored = reader.read_metadata().state_dict_metadata
    weights = {
        path: torch.empty(entry.size)
        for path, entry in stored.items()
        if path.startswith("weights/") and isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # this is intended
        state_dict_loader.load(weights, storage_reader=reader, no_dist=True)
    names = {path: path.removeprefix("weights/") for path in weights}
    heads = config.network.attention_heads
    plain = {_plain_name(name): _to_plain_layout(name, weights[path], heads).contiguous() for path, name in names.items()}
    path = folder / PROPERTIES
    properties = PropertyTable.loads(path.read_text(encoding="utf-8"), str(path)) if path.exists() else None
    write_model_file(nemo_file, ModelFile(config, Vocabulary.load(folder / VOCABULARY), plain, properties=properties))


def export_from(place: str | Path, nemo_file: str | Path) -> Path:
    """Exports a checkpoint, or the newest valid checkpoint of a run.

    Args:
        place: A checkpoint folder `step=*.ckpt`, or the folder of a run.
        nemo_file: The file to write.

    Returns:
        The checkpoint that was exported.

    Raises:
        CheckpointError: If there is no valid checkpoint.
    """
    folder = Path(place)
    if (folder / "checkpoints").is_dir():
        newest, errors = newest_valid(folder / "checkpoints")
        if newest is None:
            raise CheckpointError(str(errors[0]) if errors else f"{folder} does not contain a checkpoint.")
        folder = newest
    export_checkpoint(folder, Path(nemo_file))
    return folder


def load_plain(network: MegatronCMIMNetwork, plain: Mapping[str, Tensor]) -> None:
    """Loads the weights of a plain network into the Megatron network. Each rank loads its own shards.

    Raises:
        CheckpointError: If the names or the shapes of the weights differ from those of the network.
    """
    rank, ranks = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_tensor_model_parallel_world_size()
    config: NetworkConfig = network.network_config
    parameters = dict(network.named_parameters())
    differ = set(map(_plain_name, parameters)).symmetric_difference(plain)
    if differ:
        raise CheckpointError(
            f"The weights are those of a different network: {len(differ)} names differ, for example {min(differ)!r}."
        )
    for name, parameter in parameters.items():
        weight = plain[_plain_name(name)]
        if _fused(name) > 1:
            weight = _swap_interleaving(weight, _fused(name), config.attention_heads)
        if is_sharded(parameter):
            weight = weight.chunk(ranks, dim=parameter.partition_dim)[rank]
        if weight.shape != parameter.shape:
            raise CheckpointError(
                f"{name} has the shape {tuple(parameter.shape)} in the network and {tuple(weight.shape)} in the weights."
            )
        parameter.data.copy_(weight)
