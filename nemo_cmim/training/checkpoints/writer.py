"""Sharded checkpoints from and to a running model: each rank writes its part, in the background, and any number of ranks reads them."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import megatron.core
import torch
from megatron.core import parallel_state
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from ...config import to_mapping
from ...errors import CheckpointError
from ...mcore.parallel import is_sharded
from ...tokenizers import Vocabulary
from ...version import __version__
from ..state import TrainingState
from .format import (
    STATE,
    TENSORS,
    VOCABULARY,
    CheckpointManifest,
    commit,
    differing,
    digest_files,
    newest_valid,
    partial_of,
    remove,
)

__all__ = ["CheckpointWriter"]

_SCHEDULE_STATE = "last_epoch", "_step_count", "_last_lr"
_NOT_KEPT = (
    "state_dict",
    "optimizer_states",
    "hyper_parameters",
    "hparams_name",
    "hparams_type",
)  # of Lightning's state: empty, or in the manifest


class CheckpointWriter:
    """Writes and reads checkpoints of one run. All ranks call each method, in the same order.

    Args:
        in_background: `save` returns when the tensors are copied to host memory; writing goes on in a thread.
    """

    def __init__(self, in_background: bool = True) -> None:
        self.in_background = in_background
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._jobs: list[Future[None]] = []
        self._group: ProcessGroup | None = None

    # ---- writing

    def save(self, state: TrainingState, values: dict[str, Any], folder: Path, monitored: float | None) -> None:
        """Begins a checkpoint.

        Args:
            state: Weights, optimiser states and queue.
            values: The values that Lightning saves, of plain types and tensors.
            folder: The folder to create.
            monitored: See `CheckpointManifest`.

        Raises:
            CheckpointError: An earlier one could not be written.
        """
        self.wait()
        self._start_group()
        snapshot = _collect(state)
        values = copy.deepcopy({key: value for key, value in values.items() if key not in _NOT_KEPT})
        values["optimizer_groups"] = [{k: v for k, v in g.items() if k != "params"} for g in state.optimizer.param_groups]
        manifest = CheckpointManifest(
            step=values["global_step"],
            monitored=monitored,
            model=to_mapping(state.config),
            order=state.order,
            parallel=_parallel_sizes(),
            vocabulary=state.vocabulary.fingerprint,
            versions={"nemo_cmim": __version__, "torch": torch.__version__, "megatron-core": megatron.core.__version__},
            files={},
        )
        self._submit(self._write, folder, snapshot, values, manifest, state.vocabulary)

    def _start_group(self) -> None:
        """Ranks talk about checkpoints over gloo, whatever they train over: their thread must not disturb training's messages."""
        if self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")

    def remove(self, folder: Path) -> None:
        """Removes a checkpoint, once what is being written is whole. If that fails, it stays."""
        if torch.distributed.get_rank() == 0:
            self._submit(remove, folder)

    def wait(self) -> None:
        """Returns when all is written.

        Raises:
            CheckpointError: Something could not be written.
        """
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.result()

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        before = self._jobs[-1] if self._jobs else None

        def run() -> None:
            if before is None or before.exception() is None:  # only writing raises, on all ranks alike
                work(*arguments)

        self._jobs.append(self._thread.submit(run))
        if not self.in_background:
            self.wait()

    def _write(
        self, folder: Path, tensors: dict[str, Tensor], values: dict[str, Any], manifest: CheckpointManifest, vocabulary: Vocabulary
    ) -> None:
        partial, rank = partial_of(folder), torch.distributed.get_rank()
        entries: dict[str, tuple[int, str]] = {}

        def prepare() -> None:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            torch.save(values, partial / STATE)
            vocabulary.save(partial / VOCABULARY)

        def write_tensors() -> None:
            writer = FileSystemWriter(partial / TENSORS)
            state_dict_saver.save(tensors, storage_writer=writer, process_group=self._group)

        def digest() -> None:
            own = sorted((partial / TENSORS).glob(f"__{rank}_*.distcp"))
            if rank == 0:
                own += [partial / TENSORS / ".metadata", partial / STATE, partial / VOCABULARY]
            entries.update(digest_files(partial, own))

        def finish() -> None:
            files = {name: entry for part in gathered for name, entry in part.items()}
            commit(folder, CheckpointManifest(**(vars(manifest) | {"files": files})))

        self._together(folder, prepare if rank == 0 else None)
        self._together(folder, write_tensors)
        self._together(folder, digest)
        gathered: list[dict[str, tuple[int, str]]] = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(gathered, entries, group=self._group)
        self._together(folder, finish if rank == 0 else None)

    def _together(self, folder: Path, work: Callable[[], None] | None) -> None:
        """One stage of writing on all ranks: it fails on all if it fails on one."""
        failure = None
        try:
            if work is not None:
                work()
        except (Exception, CheckpointException) as error:  # noqa: BLE001  # whatever a library raises of a disk, a quota, a lost rank
            failure = _cause(error)
        failures: list[str | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(failures, failure, group=self._group)
        wrong = [(rank, text) for rank, text in enumerate(failures) if text]
        if not wrong:
            return
        if torch.distributed.get_rank() == 0:
            shutil.rmtree(partial_of(folder), ignore_errors=True)
        last, _ = newest_valid(folder.parent) if folder.parent.is_dir() else (None, [])
        raise CheckpointError(
            f"The checkpoint {folder} could not be written: {wrong[0][1]} (rank {wrong[0][0]}; {_free_space(folder)}). "
            + (f"The last one is {last}: mend the cause, and go on from it with exp_manager.resume_if_exists=true." if last else "")
        )

    # ---- reading

    def load(self, state: TrainingState, folder: Path) -> dict[str, Any]:
        """Reads a checkpoint that is sound into the weights and the optimiser; returns the other values.

        Raises:
            CheckpointError: It belongs to another network, objective or vocabulary.
        """
        manifest = CheckpointManifest.read(folder)
        _check_it_fits(manifest, state, folder)
        self._start_group()
        reader = FileSystemReader(folder / TENSORS)
        rank = parallel_state.get_data_parallel_rank() % manifest.parallel["data"]  # whose queue it takes
        tensors = _weights(state) | _allocate_optimizer_states(state, reader) | _queue(state, rank)
        state_dict_loader.load(tensors, storage_reader=reader, process_group=self._group)
        _place(state, tensors, rank)
        values: dict[str, Any] = torch.load(folder / STATE, weights_only=True)
        for group, saved in zip(state.optimizer.param_groups, values["optimizer_groups"]):
            group.update(saved)
        # where the schedule stands, not its shape: that is the settings', so that a run may be made longer
        schedules = [{key: schedule[key] for key in _SCHEDULE_STATE if key in schedule} for schedule in values["lr_schedulers"]]
        return values | {"lr_schedulers": schedules, "state_dict": {}, "optimizer_states": []}


def _parallel_sizes() -> dict[str, int]:
    return {"tensor": parallel_state.get_tensor_model_parallel_world_size(), "data": parallel_state.get_data_parallel_world_size()}


def _check_it_fits(manifest: CheckpointManifest, state: TrainingState, folder: Path) -> None:
    if manifest.vocabulary != state.vocabulary.fingerprint:
        raise CheckpointError(
            f"{folder} was trained with the vocabulary {manifest.vocabulary[:12]}, but the data have "
            f"{state.vocabulary.fingerprint[:12]}. "
            "Prepare them with the model's vocabulary: nemo-cmim prepare --vocabulary FILE."
        )
    own, parts = to_mapping(state.config), ("network", "objective", "optim")
    differences = differing({part: manifest.model[part] for part in parts}, {part: own[part] for part in parts}, "model.")
    differences += differing(manifest.order, state.order)
    if differences:
        raise CheckpointError(
            f"{folder} is of another run: its {'; its '.join(differences)}. Train with its settings, or in another folder. (The global "
            "batch is micro-batch x data-parallel ranks x accumulation: set model.global_batch_size to keep it on other ranks.)"
        )


def _collect(state: TrainingState) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, in host memory."""
    mesh = _mesh()
    tensors = _weights(state) | _queue(state, parallel_state.get_data_parallel_rank())
    for name, main in state.parameters.main.items():
        for key, value in state.optimizer.state.get(main, {}).items():
            value = torch.as_tensor(value)
            tensors[f"optimizer/{name}/{key}"] = _as_shard(value, main, mesh) if value.shape == main.shape else value.cpu().clone()
    return tensors


def _weights(state: TrainingState) -> dict[str, Tensor]:
    mesh = _mesh()
    return {f"weights/{name}": _as_shard(main, main, mesh) for name, main in state.parameters.main.items()}


def _queue(state: TrainingState, rank: int) -> dict[str, Tensor]:
    """Past latents, if the objective keeps some, under the name that they have for a data-parallel rank."""
    return {f"objective/{rank}/{name}": value.cpu().clone() for name, value in state.objective.state_dict().items()}


def _mesh() -> DeviceMesh:
    """Which rank holds which shard: [data-parallel, tensor-parallel], as Megatron numbers ranks."""
    sizes = _parallel_sizes()
    ranks = torch.arange(torch.distributed.get_world_size()).view(sizes["data"], sizes["tensor"])
    return DeviceMesh("cpu", ranks, mesh_dim_names=("data", "tensor"), _init_backend=False)  # no groups: it is only a table


def _as_shard(local: Tensor, main: nn.Parameter, mesh: DeviceMesh) -> Tensor:
    """A copy in host memory that knows its place in the whole tensor."""
    local = local.detach().to("cpu", copy=True)
    if not is_sharded(main):
        return local
    return DTensor.from_local(
        local,
        mesh,
        [Replicate(), Shard(main.partition_dim)],  # type: ignore[attr-defined]  # Megatron's mark
        run_check=False,
    )


def _allocate_optimizer_states(state: TrainingState, reader: FileSystemReader) -> dict[str, Tensor]:
    """Empty tensors for what the checkpoint holds of the optimiser."""
    mesh, states = _mesh(), {}
    for path, stored in reader.read_metadata().state_dict_metadata.items():
        if not path.startswith("optimizer/") or not isinstance(stored, TensorStorageMetadata):
            continue
        main = state.parameters.main[path.split("/")[1]]
        ranks = parallel_state.get_tensor_model_parallel_world_size() if is_sharded(main) else 1
        is_like_weight = len(stored.size) == main.dim() and stored.size.numel() == main.numel() * ranks
        dtype = stored.properties.dtype
        states[path] = (
            _as_shard(torch.empty_like(main, dtype=dtype, device="cpu"), main, mesh)
            if is_like_weight
            else torch.empty(stored.size, dtype=dtype)
        )
    return states


def _place(state: TrainingState, tensors: dict[str, Tensor], rank: int) -> None:
    """Puts what was read where it belongs; the queue is that of a data-parallel rank."""
    local = {path: t.to_local() if isinstance(t, DTensor) else t for path, t in tensors.items()}
    for name, main in state.parameters.main.items():
        main.data.copy_(local[f"weights/{name}"])
        own = _below(f"optimizer/{name}/", local)
        state.optimizer.state[main] = {
            key: value.to(main.device) if value.shape == main.shape else value for key, value in own.items()
        }
    state.parameters.update_model()
    state.objective.load_state_dict(_below(f"objective/{rank}/", local))


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {path.removeprefix(prefix): tensor for path, tensor in tensors.items() if path.startswith(prefix)}


def _cause(error: BaseException) -> str:
    """What went wrong at the root: torch wraps what the system says, more than once."""
    failures = getattr(error, "failures", None)  # of torch's CheckpointException: rank -> (error, traceback)
    innermost: BaseException | None = next(iter(failures.values()))[0] if failures else error
    chain = []
    while innermost is not None:
        chain.append(innermost)
        innermost = innermost.__cause__ or innermost.__context__
    if "unexpected pos" in str(chain[0]):  # all that torch's C++ writer says of a write that the system refused
        return "the system did not take all bytes: a full disk, a quota, or a limit on the size of files"
    root = next((e for e in reversed(chain) if isinstance(e, OSError)), chain[0])
    return f"{type(root).__name__}: {str(root).splitlines()[0] if str(root) else repr(root)}"


def _free_space(folder: Path) -> str:
    place = next(path for path in folder.parents if path.is_dir())
    return f"{shutil.disk_usage(place).free / 1e6:,.1f} MB are free on its disk"
