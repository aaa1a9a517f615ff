"""NeMo-Run recipes: pretraining as a task, and executors for the local machine and for Slurm.

The command `nemorun cmim pretrain` finds the task by the entry point in setup.py. This is the only module that imports NeMo-Run. It
does not use `from __future__ import annotations`, and uses `Optional` and `List`: NeMo-Run reads the annotations of tasks and factories
as objects, and its help cannot print `list[str]`.
"""

from typing import Any, List, Optional

from .errors import ConfigError
from .mappings import hydra_quoted

try:
    import fiddle
    import nemo_run as run
except ModuleNotFoundError as error:
    raise ConfigError(f"Recipes require {error.name}, which is not installed. Run pip install 'nemo_cmim[launch]'.") from error

__all__ = ["gpu_recipe", "h100_recipe", "local_executor", "paper_recipe", "pretrain", "pretrain_recipe", "slurm_executor"]

PREEMPTED = 143  # exit status of a preempted training run that has saved its state: 128 + SIGTERM


@run.cli.entrypoint(namespace="cmim", help="Pretrains cMIM. Resumes from the newest checkpoint in folder if there is one.")
def pretrain(
    data: str,
    folder: str,
    model: Optional[str] = None,
    objective: Optional[str] = None,
    max_steps: Optional[int] = None,
    nodes: Optional[int] = None,
    devices: Optional[int] = None,
    tensor_parallel: Optional[int] = None,
    precision: Optional[str] = None,
    micro_batch: Optional[int] = None,
    global_batch: Optional[int] = None,
    overrides: Optional[List[str]] = None,
) -> None:
    """Trains with the settings of `conf/pretrain.yaml`, in each process of the job. None keeps the value of that file.

    Args:
        data: Path in the job of a folder that `nemo-cmim prepare` wrote. `data` and `folder` are literal: `${...}` is not resolved.
        folder: Path in the job of the folder of the run. If it contains a checkpoint, the run resumes from it.
        model: Name of a network in `conf/model/`.
        objective: Name of an objective in `conf/objective/`.
        max_steps: Number of steps.
        nodes: Number of nodes; must be the same in the executor.
        devices: Number of devices, and of processes, on each node; must be the same in the executor.
        tensor_parallel: Tensor-parallel size.
        precision: 32, tf32, bf16 or fp16.
        micro_batch: Micro-batch size of a rank, in molecules.
        global_batch: Molecules in a step; a multiple of `micro_batch` x data-parallel ranks.
        overrides: More Hydra overrides, such as `["model.optim.lr=2e-4"]`, which take precedence over the arguments, or `["run=gpu_cmim"]`,
            a file of `conf/run/`, over which the arguments take precedence.
    """
    from .training.run import compose, train

    named = {
        "model": model,
        "objective": objective,
        "trainer.max_steps": max_steps,
        "trainer.num_nodes": nodes,
        "trainer.devices": devices,
        "model.parallel.tensor_model_parallel_size": tensor_parallel,
        "trainer.precision": precision,
        "model.train_ds.batch_size": micro_batch,
        "model.global_batch_size": global_batch,
    }
    settings = [
        f"model.train_ds.folder={hydra_quoted(data)}",
        f"exp_manager.explicit_log_dir={hydra_quoted(folder)}",
        "exp_manager.resume_if_exists=true",
        *(f"{key}={value}" for key, value in named.items() if value is not None),
        *(overrides or []),
    ]
    print(f"Run folder: {train(compose(settings))}")


def pretrain_recipe(data: str, folder: str, **settings: Any) -> run.Partial:
    """The task `pretrain` with these arguments, ready for `run.run` and `Experiment.add`.

    Args:
        data: See `pretrain`.
        folder: See `pretrain`.
        settings: More arguments of `pretrain`.

    Raises:
        TypeError: If `pretrain` does not have an argument of that name.
    """
    return run.Partial(pretrain, data=data, folder=folder, **settings)


@run.cli.factory(target=pretrain, name="paper")
def paper_recipe() -> run.Partial[pretrain]:
    """The run of the paper (Sec. D.2): 4 nodes with 16 V100 each, fp16, 64 x 256 molecules in a step. Set `data` and `folder`."""
    return run.Partial(
        pretrain,
        model="molmim_70m",
        objective="cmim",
        max_steps=250_000,
        nodes=4,
        devices=16,
        precision="fp16",
        micro_batch=256,
        global_batch=16_384,
    )


@run.cli.factory(target=pretrain, name="h100")
def h100_recipe() -> run.Partial[pretrain]:
    """The paper's network and global batch on one node of 8 H100, bf16: conf/run/molmim_70m_h100.yaml. Set `data` and `folder`."""
    return run.Partial(pretrain, nodes=1, devices=8, overrides=["run=molmim_70m_h100"])


@run.cli.factory(target=pretrain, name="gpu")
def gpu_recipe() -> run.Partial[pretrain]:
    """A smaller model for one GPU, with Muon and observed properties: conf/run/gpu_cmim.yaml. Set `data` and `folder`."""
    return run.Partial(pretrain, nodes=1, devices=1, overrides=["run=gpu_cmim"])


@run.cli.factory(name="cmim_local")
def local_executor_config(devices: int = 1) -> run.Config[run.LocalExecutor]:
    """`local_executor` for the command line: `run.executor=cmim_local run.executor.ntasks_per_node=2`."""
    return run.Config(run.LocalExecutor, ntasks_per_node=devices, launcher="torchrun")


def local_executor(devices: int = 1) -> run.LocalExecutor:
    """Executor for the local machine. torchrun starts one process for each device."""
    return fiddle.build(local_executor_config(devices))


@run.cli.factory(name="cmim_slurm")
def slurm_executor_config(
    account: Optional[str] = None,
    container_image: Optional[str] = None,
    partition: Optional[str] = None,
    nodes: int = 1,
    devices: int = 8,
    time: str = "04:00:00",
    container_mounts: Optional[List[str]] = None,
    signal: str = "USR1@120",
    max_requeues: int = 50,
    job_dir: str = "",
) -> run.Config[run.SlurmExecutor]:
    """`slurm_executor` for the command line: `run.executor=cmim_slurm run.executor.account=...`."""
    requeue = (
        f'[ "$status" -eq {PREEMPTED} ] && [ -z "${{cancelled:-}}" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {max_requeues} ]'
        ' && scontrol requeue "$SLURM_JOB_ID"'
    )
    return run.Config(
        run.SlurmExecutor,
        account=account,
        partition=partition,
        nodes=nodes,
        ntasks_per_node=devices,
        gpus_per_node=devices,
        time=time,
        signal=signal,
        exclusive=True,
        mem="0",
        open_mode="append",
        container_image=container_image,
        container_mounts=container_mounts or [],
        # By default, NeMo-Run lets Slurm end the other tasks with TERM if a task fails, which would look like a preemption. The last value
        # of an option takes effect.
        srun_args=["--wait=0", "--kill-on-bad-exit=0"],
        setup_lines=f"trap cancelled=1 TERM\ntrap 'status=$?; {requeue}; exit \"$status\"' EXIT",
        job_name_prefix="cmim-",
        packager=run.Config(run.Packager),  # does not pack code: the image contains the package
        tunnel=run.Config(run.LocalTunnel, job_dir=job_dir),
    )


def slurm_executor(account: str, container_image: str, **settings: Any) -> run.SlurmExecutor:
    """Executor for a Slurm cluster whose `sbatch` can be called from here. For a remote cluster, set `tunnel` to a `run.SSHTunnel`.

    Slurm starts one task for each device, without torchrun. So the signal reaches the training process, and its exit status reaches the
    batch script. The script requeues the job if training was preempted, and only then.

    Args:
        account: Slurm account.
        container_image: Image for pyxis, with `nemo_cmim[train]` and NeMo-Run installed.
        settings: `partition`; `nodes` and `devices` (GPUs per node), which must be the same in the recipe; `time`, the time limit of a job
            in Slurm's format (a longer run needs several jobs); `container_mounts`, folders as `HOST:CONTAINER`, which must include those
            of the data and of the run; `signal`, the signal and the number of seconds before the time limit at which Slurm sends it;
            `max_requeues`; `job_dir`, the folder for the files of NeMo-Run, which the nodes of the job must be able to read.
    """
    return fiddle.build(slurm_executor_config(account, container_image, **settings))
