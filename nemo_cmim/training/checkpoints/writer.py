"""Writes and reads sharded checkpoints. Each rank writes its shards in the background, and any number of ranks can read them."""

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

from ...errors import CheckpointError
from ...mappings import to_mapping
from ...mcore.parallel import is_sharded, runs_on_gpu
from ...observed import PROPERTIES, PropertyTable
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
_OF_THIS_RUN = ("params", "fused", "foreach", "in_bf16")  # of a group of the optimiser: the weights, and how this run computes
_NOT_SAVED = (
    "state_dict",
    "optimizer_states",
    "hyper_parameters",
    "hparams_name",
    "hparams_type",
)  # values of Lightning that are empty or in the manifest


class CheckpointWriter:
    """Writes and reads the checkpoints of a run. All ranks must call its methods in the same order.

    Args:
        in_background: If True, `save` returns when the tensors are copied to host memory, and a thread writes them.
    """

    def __init__(self, in_background: bool = True) -> None:
        self.in_background = in_background
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._jobs: list[Future[None]] = []
        self._group: ProcessGroup | None = None

    # ---- writing

    def save(self, state: TrainingState, values: dict[str, Any], folder: Path, monitored: float | None) -> None:
        """Starts writing a checkpoint.

        Args:
            state: Weights, optimiser states and queue.
            values: The values that Lightning saves, of plain types and tensors.
            folder: The folder to create.
            monitored: See `CheckpointManifest`.

        Raises:
            CheckpointError: If an earlier checkpoint could not be written.
        """
        self.wait()
        self._start_group()
        snapshot = _collect(state)
        values = copy.deepcopy({key: value for key, value in values.items() if key not in _NOT_SAVED})
        groups = state.optimizer.param_groups
        values["optimizer_groups"] = [{key: value for key, value in group.items() if key not in _OF_THIS_RUN} for group in groups]
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
        self._submit(self._write, folder, snapshot, values, manifest, state)

    def _start_group(self) -> None:
        """Creates a gloo group for checkpoints, so that the thread that writes them does not interfere with messages of training."""
        if self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")

    def remove(self, folder: Path) -> None:
        """Removes a checkpoint after those being written are complete. If writing fails, the checkpoint is not removed."""
        if torch.distributed.get_rank() == 0:
            self._submit(remove, folder)

    def wait(self) -> None:
        """Waits until all checkpoints are written.

        Raises:
            CheckpointError: If a checkpoint could not be written.
        """
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.result()

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        before = self._jobs[-1] if self._jobs else None

        gpu = torch.cuda.current_device() if runs_on_gpu() else None

        def run() -> None:
            if gpu is not None:  # a new thread starts with GPU 0, on which the libraries would open a context
                torch.cuda.set_device(gpu)
            if before is None or before.exception() is None:  # only writing raises, and on all ranks
                work(*arguments)

        self._jobs.append(self._thread.submit(run))
        if not self.in_background:
            self.wait()

    def _write(
        self, folder: Path, tensors: dict[str, Tensor], values: dict[str, Any], manifest: CheckpointManifest, state: TrainingState
    ) -> None:
        partial, rank = partial_of(folder), torch.distributed.get_rank()
        entries: dict[str, tuple[int, str]] = {}

        def prepare() -> None:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            torch.save(values, partial / STATE)
            state.vocabulary.save(partial / VOCABULARY)
            if state.properties is not None:
                (partial / PROPERTIES).write_text(state.properties.dumps(), encoding="utf-8")

        def write_tensors() -> None:
            writer = FileSystemWriter(partial / TENSORS)
            state_dict_saver.save(tensors, storage_writer=writer, process_group=self._group)

        def digest() -> None:
            own = sorted((partial / TENSORS).glob(f"__{rank}_*.distcp"))
            if rank == 0:
                own += [partial / TENSORS / ".metadata", *(path for path in sorted(partial.iterdir()) if path.is_file())]
            entries.update(digest_files(partial, own))

        def finish() -> None:
            files = {name: entry for part in gathered for name, entry in part.items()}
            commit(folder, CheckpointManifest(**(vars(manifest) | {"files": files})))

        self._run_on_all_ranks(folder, prepare if rank == 0 else None)
        self._run_on_all_ranks(folder, write_tensors)
        self._run_on_all_ranks(folder, digest)
        gathered: list[dict[str, tuple[int, str]]] = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(gathered, entries, group=self._group)
        self._run_on_all_ranks(folder, finish if rank == 0 else None)

    def _run_on_all_ranks(self, folder: Path, work: Callable[[], None] | None) -> None:
        """Runs one stage of writing on all ranks. If it fails on one rank, it raises on all.

        Raises:
            CheckpointError: If the stage failed on any rank. The incomplete checkpoint is removed.
        """
        failure = None
        try:
            if work is not None:
                work()
        except (Exception, CheckpointException) as error:  # noqa: BLE001  # libraries raise many types for a full disk or a lost rank
            failure = _cause(error)
        failures: list[str | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(failures, failure, group=self._group)
        failed = [(rank, text) for rank, text in enumerate(failures) if text]
        if not failed:
            return
        if torch.distributed.get_rank() == 0:
            shutil.rmtree(partial_of(folder), ignore_errors=True)
        last, _ = newest_valid(folder.parent) if folder.parent.is_dir() else (None, [])
        raise CheckpointError(
            f"The checkpoint {folder} could not be written: {failed[0][1]} (rank {failed[0][0]}; {_free_space(folder)}). "
            + (f"Fix the cause and resume from {last} with exp_manager.resume_if_exists=true." if last else "")
        )

    # ---- reading

    def load(self, state: TrainingState, folder: Path) -> dict[str, Any]:
        """Loads a valid checkpoint into `state`, and returns the values that Lightning saved.

        Raises:
            CheckpointError: If network, objective, optimiser, order of molecules or vocabulary differ from those of `state`.
        """
        manifest = CheckpointManifest.read(folder)
        _check_compatible(manifest, state, folder)
        _check_properties(state, folder)
        self._start_group()
        reader = FileSystemReader(folder / TENSORS)
        rank = parallel_state.get_data_parallel_rank() % manifest.parallel["data"]  # the rank whose queue is loaded
        tensors = _weights(state) | _allocate_optimizer_states(state, reader) | _queue(state, rank)
        state_dict_loader.load(tensors, storage_reader=reader, process_group=self._group)
        _restore(state, tensors, rank)
        values: dict[str, Any] = torch.load(folder / STATE, weights_only=True)
        for group, saved in zip(state.optimizer.param_groups, values["optimizer_groups"]):
            group.update(saved)
        # only the position in the schedule: its shape follows from the settings, so that a resumed run may have more steps
        schedules = [{key: schedule[key] for key in _SCHEDULE_STATE if key in schedule} for schedule in values["lr_schedulers"]]
        return values | {"lr_schedulers": schedules, "state_dict": {}, "optimizer_states": []}


def _parallel_sizes() -> dict[str, int]:
    return {"tensor": parallel_state.get_tensor_model_parallel_world_size(), "data": parallel_state.get_data_parallel_world_size()}


def _check_compatible(manifest: CheckpointManifest, state: TrainingState, folder: Path) -> None:
    if manifest.vocabulary != state.vocabulary.fingerprint:
        raise CheckpointError(
            f"{folder} was trained with the vocabulary {manifest.vocabulary[:12]}, but the data have the vocabulary "
            f"{state.vocabulary.fingerprint[:12]}. Prepare the data with the vocabulary of the checkpoint: nemo-cmim prepare --vocabulary "
            f"{folder / VOCABULARY}."
        )
    if manifest.order.get("order version") != state.order.get("order version"):
        raise CheckpointError(
            f"{folder} was written by another version of nemo_cmim, which trained on the molecules in a different order. It cannot be "
            "resumed. Export its model with nemo-cmim export, or choose a different exp_manager.explicit_log_dir to start a new run."
        )
    own, parts = to_mapping(state.config), ("network", "objective", "optim", "restore_from_path")
    differences = differing({part: manifest.model.get(part) for part in parts}, {part: own[part] for part in parts}, "model.")
    differences += differing(manifest.order, state.order)
    if differences:
        raise CheckpointError(
            f"{folder} belongs to a run with different settings: {'; '.join(differences)}. Use the settings of the checkpoint, or choose a "
            "different exp_manager.explicit_log_dir. (The global batch is micro-batch x data-parallel ranks x accumulation. Set "
            "model.global_batch_size to keep it on a different number of ranks.)"
        )


def _check_properties(state: TrainingState, folder: Path) -> None:
    path = folder / PROPERTIES
    saved = PropertyTable.loads(path.read_text(encoding="utf-8"), str(path)) if path.exists() else None
    if saved != state.properties:
        raise CheckpointError(
            f"{folder} was trained with other observed properties, or other quantiles of them, than the data have. Use the data of that "
            "run, or choose a different exp_manager.explicit_log_dir."
        )


def _collect(state: TrainingState) -> dict[str, Tensor]:
    """Copies of all tensors of a checkpoint by name, in host memory."""
    mesh = _mesh()
    tensors = _weights(state) | _queue(state, parallel_state.get_data_parallel_rank())
    for name, master in state.parameters.master.items():
        for key, value in state.optimizer.state.get(master, {}).items():
            value = torch.as_tensor(value)
            tensors[f"optimizer/{name}/{key}"] = (
                _as_shard(value, master, mesh) if value.shape == master.shape else value.cpu().clone()
            )
    return tensors


def _weights(state: TrainingState) -> dict[str, Tensor]:
    mesh = _mesh()
    return {f"weights/{name}": _as_shard(master, master, mesh) for name, master in state.parameters.master.items()}


def _queue(state: TrainingState, rank: int) -> dict[str, Tensor]:
    """The queue of the objective, if it has one, with the names for a data-parallel rank."""
    return {f"objective/{rank}/{name}": value.cpu().clone() for name, value in state.objective.state_dict().items()}


def _mesh() -> DeviceMesh:
    """The ranks as [data-parallel, tensor-parallel], in Megatron's order."""
    sizes = _parallel_sizes()
    ranks = torch.arange(torch.distributed.get_world_size()).view(sizes["data"], sizes["tensor"])
    return DeviceMesh("cpu", ranks, mesh_dim_names=("data", "tensor"), _init_backend=False)  # without process groups


def _as_shard(local: Tensor, master: nn.Parameter, mesh: DeviceMesh) -> Tensor:
    """A copy in host memory, with its position in the complete tensor if it is a shard."""
    local = local.detach().to("cpu", copy=True)
    if not is_sharded(master):
        return local
    return DTensor.from_local(
        local,
        mesh,
        [Replicate(), Shard(master.partition_dim)],  # type: ignore[attr-defined]  # set by Megatron
        run_check=False,
    )


def _allocate_optimizer_states(state: TrainingState, reader: FileSystemReader) -> dict[str, Tensor]:
    """Empty tensors for the optimiser states in the checkpoint."""
    mesh, states = _mesh(), {}
    for path, stored in reader.read_metadata().state_dict_metadata.items():
        if not path.startswith("optimizer/") or not isinstance(stored, TensorStorageMetadata):
            continue
        master = state.parameters.master[path.split("/")[1]]
        ranks = parallel_state.get_tensor_model_parallel_world_size() if is_sharded(master) else 1
        is_like_weight = len(stored.size) == master.dim() and stored.size.numel() == master.numel() * ranks
        dtype = stored.properties.dtype
        states[path] = (
            _as_shard(torch.empty_like(master, dtype=dtype, device="cpu"), master, mesh)
            if is_like_weight
            else torch.empty(stored.size, dtype=dtype)
        )
    return states


def _restore(state: TrainingState, tensors: dict[str, Tensor], rank: int) -> None:
    """Copies loaded tensors into the training state. The queue is that of data-parallel rank `rank`."""
    is_fused = any(group.get("fused") for group in state.optimizer.param_groups)  # then counters of steps are on the GPU too
    local = {path: t.to_local() if isinstance(t, DTensor) else t for path, t in tensors.items()}
    for name, master in state.parameters.master.items():
        master.data.copy_(local[f"weights/{name}"])
        own = _with_prefix(f"optimizer/{name}/", local)
        state.optimizer.state[master] = {
            key: value.to(master.device) if value.shape == master.shape or is_fused else value for key, value in own.items()
        }
    state.parameters.update_network()
    state.objective.load_state_dict(_with_prefix(f"objective/{rank}/", local))


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {path.removeprefix(prefix): tensor for path, tensor in tensors.items() if path.startswith(prefix)}


def _cause(error: BaseException) -> str:
    """The message of the original error, which torch wraps more than once."""
    failures = getattr(error, "failures", None)  # CheckpointException: rank -> (error, traceback)
    innermost: BaseException | None = next(iter(failures.values()))[0] if failures else error
    chain = []
    while innermost is not None:
        chain.append(innermost)
        innermost = innermost.__cause__ or innermost.__context__
    if "unexpected pos" in str(chain[0]):  # the only message of torch's C++ writer after a failed write
        return "not all bytes could be written: the disk is full, or a quota or a limit on the size of files is reached"
    root = next((e for e in reversed(chain) if isinstance(e, OSError)), chain[0])
    return f"{type(root).__name__}: {str(root).splitlines()[0] if str(root) else repr(root)}"


def _free_space(folder: Path) -> str:
    place = next(path for path in folder.parents if path.is_dir())
    return f"{shutil.disk_usage(place).free / 1e6:,.1f} MB are free on its disk"
