"""Trains cMIM: `python examples/pretrain.py model=tiny model.train_ds.folder=DATA`.

Every key of conf/pretrain.yaml can be overridden.
"""

from __future__ import annotations

import sys

from nemo.core.config import hydra_runner
from omegaconf import DictConfig, OmegaConf

from nemo_cmim.training.overrides import quoted
from nemo_cmim.training.run import train


@hydra_runner(config_path="../conf", config_name="pretrain")
def main(cfg: DictConfig) -> None:
    """Composes the config with Hydra and trains. The section `run` belongs to NVIDIA's launcher (conf/launcher) and is ignored."""
    settings = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "run"])
    print(f"Run folder: {train(settings)}")


if __name__ == "__main__":
    sys.argv[1:] = [quoted(word) if "=" in word and not word.startswith("-") else word for word in sys.argv[1:]]
    main()
