"""Weights between the Megatron network (any tensor-parallel size) and the plain one.

The layouts differ in names, and in fused projections: Megatron interleaves them as [heads, q k v, d], ours are [q k v, heads, d].
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

from ...config import ModelConfig, NetworkConfig, from_mapping
from ...errors import CheckpointError
from ...inference.checkpoint import Checkpoint, write_checkpoint
from ...mcore.network import MegatronCMIMNetwork
from ...mcore.parallel import is_sharded
from ...tokenizers import Vocabulary
from .format import TENSORS, VOCABULARY, newest_valid, verify

__all__ = ["export_checkpoint", "export_from", "load_plain", "plain_name", "to_plain"]

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


def plain_name(name: str) -> str:
    """The plain network's name of a Megatron parameter."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _fused(name: str) -> int:
    """How many projections a Megatron parameter interleaves: 3 in linear_qkv, 2 in linear_kv, else 1."""
    return 3 if ".linear_qkv." in name else 2 if ".linear_kv." in name else 1


def _swap_interleaving(weight: Tensor, outer: int, inner: int) -> Tensor:
    """[outer, inner, d] rows become [inner, outer, d] rows."""
    return weight.unflatten(0, (outer, inner, -1)).transpose(0, 1).flatten(0, 2)


def to_plain(network: MegatronCMIMNetwork) -> dict[str, Tensor]:
    """The whole network's weights under the plain names, on CPU. A collective call: every tensor-parallel rank must make it.

    Returns:
        The state dict of `models.CMIMNetwork` with the same sizes, fp32.
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
        plain[plain_name(name)] = _to_plain_layout(name, weight, heads).float().cpu().clone()
    return plain


def _to_plain_layout(name: str, weight: Tensor, heads: int) -> Tensor:
    return _swap_interleaving(weight, heads, _fused(name)) if _fused(name) > 1 else weight


def export_checkpoint(folder: Path, nemo_file: Path) -> None:
    """Writes the weights of a checkpoint, of whatever parallel sizes, as the `.nemo` file that `nemo_cmim.load` reads.

    One process does it, on CPU, without the training job.

    Raises:
        CheckpointError: The checkpoint is damaged or incomplete, or the file cannot be written.
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
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as is meant
        state_dict_loader.load(weights, storage_reader=reader, no_dist=True)
    names = {path: path.removeprefix("weights/") for path in weights}
    heads = config.network.attention_heads
    plain = {plain_name(name): _to_plain_layout(name, weights[path], heads).contiguous() for path, name in names.items()}
    write_checkpoint(nemo_file, Checkpoint(config, Vocabulary.load(folder / VOCABULARY), plain, card=None))


def export_from(place: str | Path, nemo_file: str | Path) -> Path:
    """Exports a checkpoint, or the newest sound one of a run.

    Args:
        place: A folder `step=*.ckpt`, or a run's folder.
        nemo_file: To write.

    Returns:
        The checkpoint that was exported.

    Raises:
        CheckpointError: There is no sound checkpoint.
    """
    folder = Path(place)
    if (folder / "checkpoints").is_dir():
        newest, refused = newest_valid(folder / "checkpoints")
        if newest is None:
            raise CheckpointError(str(refused[0]) if refused else f"{folder} holds no checkpoint.")
        folder = newest
    export_checkpoint(folder, Path(nemo_file))
    return folder


def load_plain(network: MegatronCMIMNetwork, plain: Mapping[str, Tensor]) -> None:
    """Writes plain weights into the Megatron network, each rank its own share.

    Raises:
        CheckpointError: Weights are missing, left over, or of another shape.
    """
    rank, ranks = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_tensor_model_parallel_world_size()
    config: NetworkConfig = network.network_config
    parameters = dict(network.named_parameters())
    differ = set(map(plain_name, parameters)).symmetric_difference(plain)
    if differ:
        raise CheckpointError(f"The weights belong to another network: {len(differ)} names differ, such as {min(differ)!r}.")
    for name, parameter in parameters.items():
        weight = plain[plain_name(name)]
        if _fused(name) > 1:
            weight = _swap_interleaving(weight, _fused(name), config.attention_heads)
        if is_sharded(parameter):
            weight = weight.chunk(ranks, dim=parameter.partition_dim)[rank]
        if weight.shape != parameter.shape:
            raise CheckpointError(f"{name} has the shape {tuple(parameter.shape)}, but the weights hold {tuple(weight.shape)}.")
        parameter.data.copy_(weight)
