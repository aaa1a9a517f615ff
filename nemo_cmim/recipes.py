"""NeMo-Run recipes: pretraining as a task, and executors for one machine and for Slurm.

The command `nemorun cmim pretrain` finds the task by the entry point in setup.py. This is the only module that imports NeMo-Run. It
has no `from __future__ import annotations`, and writes `Optional` and `List`: NeMo-Run reads the annotations of tasks and factories as
objects, and its help stumbles over `list[str]`.
"""

from typing import Any, List, Optional

from .errors import ConfigError

try:
    import fiddle
    import nemo_run as run
except ModuleNotFoundError as error:
    raise ConfigError(f"Recipes need {error.name}, which is not installed. Run pip install 'nemo_cmim[launch]'.") from error

__all__ = ["local_executor", "paper_recipe", "pretrain", "pretrain_recipe", "slurm_executor"]

PREEMPTED = 143  # the status of a training that saved and stopped because it was told to: 128 + SIGTERM


def _quoted(text: str) -> str:
    """A value that Hydra takes as it stands, whatever is in it."""
    quotes = text.replace("'", r"\'")
    return f"'{quotes}'"


@run.cli.entrypoint(namespace="cmim", help="Pretrains cMIM, and goes on from the last checkpoint of folder if there is one.")
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
    """Trains as `conf/pretrain.yaml` says, in each process of the job. What is None stays as that file has it.

    Args:
        data: The folder that `nemo-cmim prepare` wrote, as the job sees it.
        folder: Where the run writes, as the job sees it; with a checkpoint in it, the run goes on from there.
        model: A network of `conf/model/`.
        objective: An objective of `conf/objective/`.
        max_steps: Steps of the optimiser.
        nodes: Machines of the job; the executor must ask for as many.
        devices: Devices, and so processes, on each machine; likewise.
        tensor_parallel: Devices that share one copy of the network.
        precision: 32, bf16 or fp16.
        micro_batch: Molecules in a step of one device.
        global_batch: Molecules in a step of the optimiser; a multiple of `micro_batch` times the copies of the network.
        overrides: Further Hydra overrides, such as `["model.optim.lr=2e-4"]`; they win over the arguments.
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
        f"model.train_ds.folder={_quoted(data)}",
        f"exp_manager.explicit_log_dir={_quoted(folder)}",
        "exp_manager.resume_if_exists=true",
        *(f"{key}={value}" for key, value in named.items() if value is not None),
        *(overrides or []),
    ]
    print(f"Run folder: {train(compose(settings))}")


def pretrain_recipe(data: str, folder: str, **settings: Any) -> run.Partial:
    """The task `pretrain` with these arguments, ready for `run.run` and `Experiment.add`.

    Args:
        data: As `pretrain` takes it.
        folder: As `pretrain` takes it.
        settings: Further arguments of `pretrain`.

    Raises:
        TypeError: An argument that `pretrain` does not have.
    """
    return run.Partial(pretrain, data=data, folder=folder, **settings)


@run.cli.factory(target=pretrain, name="paper")
def paper_recipe() -> run.Partial[pretrain]:
    """The paper's run (Sec. D.2): 4 machines of 16 V100, fp16, 64 x 256 molecules a step. `data` and `folder` are left to set."""
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


@run.cli.factory(name="cmim_local")
def local_executor_config(devices: int = 1) -> run.Config[run.LocalExecutor]:
    """`local_executor` as the command line wants it: `run.executor=cmim_local run.executor.ntasks_per_node=2`."""
    return run.Config(run.LocalExecutor, ntasks_per_node=devices, launcher="torchrun")


def local_executor(devices: int = 1) -> run.LocalExecutor:
    """This machine, with torchrun starting one process for each device."""
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
    """`slurm_executor` as the command line wants it: `run.executor=cmim_slurm run.executor.account=...`, and so on."""
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
        # NeMo-Run has Slurm end the other tasks of a failed one, by TERM: the failure would look like a preemption. The last value counts.
        srun_args=["--wait=0", "--kill-on-bad-exit=0"],
        setup_lines=f"trap cancelled=1 TERM\ntrap 'status=$?; {requeue}; exit \"$status\"' EXIT",
        job_name_prefix="cmim-",
        packager=run.Config(run.Packager),  # packs nothing: the code is in the image
        tunnel=run.Config(run.LocalTunnel, job_dir=job_dir),
    )


def slurm_executor(account: str, container_image: str, **settings: Any) -> run.SlurmExecutor:
    """A Slurm cluster whose `sbatch` can be called from here; for another one, set its `tunnel` to a `run.SSHTunnel`.

    One task for each device and no torchrun: the signal reaches the training itself, and its exit status reaches the batch script.
    The script puts the job back into the queue when the training was preempted, and only then.

    Args:
        account: Slurm's account.
        container_image: For pyxis; `nemo_cmim[train]` and NeMo-Run are installed in it.
        settings: `partition`; `nodes`, and `devices` (GPUs on each), which the recipe must be told too; `time`, the longest of one job, as
            Slurm writes it (a longer run takes several); `container_mounts`, `HOST:CONTAINER` folders, among them the data's and the
            run's; `signal`, which comes so many seconds before the end of `time`; `max_requeues`; `job_dir`, where NeMo-Run keeps its
            files (its own folder), to be seen by the machines of the job.
    """
    return fiddle.build(slurm_executor_config(account, container_image, **settings))
