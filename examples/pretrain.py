"""Trains cMIM: `python examples/pretrain.py model=tiny model.train_ds.folder=DATA`.

Every key of conf/pretrain.yaml can be overridden.
"""

from __future__ import annotations

from nemo.core.config import hydra_runner
from omegaconf import DictConfig

from nemo_cmim.training.run import train


@hydra_runner(config_path="../conf", config_name="pretrain")
def main(cfg: DictConfig) -> None:
    """Composes the config (Hydra) and runs it."""
    print(f"Run folder: {train(cfg)}")


if __name__ == "__main__":
    main()
