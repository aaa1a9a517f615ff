"""conf/pretrain.yaml has every setting of the dataclasses, with the same default, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from omegaconf import OmegaConf

from nemo_cmim.config import DataConfig, ModelConfig
from nemo_cmim.mappings import hydra_quoted, to_mapping
from nemo_cmim.training.checkpoints.callback import CheckpointConfig
from nemo_cmim.training.run import compose

INTENDED = {"train_ds.folder": "FOLDER", "validation_ds.folder": "FOLDER", "validation_ds.split": "valid"}
"""The only values that differ from the defaults of the dataclasses."""


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


@pytest.fixture(scope="module")
def composed() -> Any:
    return OmegaConf.to_container(compose(["model.train_ds.folder=FOLDER"]), resolve=True)


def test_the_model_section_has_the_defaults_of_the_dataclasses(composed: Any) -> None:
    found = flat(composed["model"])
    expected = flat(to_mapping(ModelConfig(train_ds=DataConfig(), validation_ds=DataConfig())))
    assert found.keys() == expected.keys()
    assert {key: value for key, value in found.items() if value != expected[key]} == INTENDED


def test_the_checkpoint_section_has_the_defaults_of_the_dataclass(composed: Any) -> None:
    assert composed["exp_manager"]["checkpoint_callback_params"] == to_mapping(CheckpointConfig())


@pytest.mark.parametrize(
    "path",
    [
        "plain",
        "it's",
        r"a\b",
        "a\\",
        r"a\'b",
        r"a\\'b",
        "x=1, y",
        "${seed}",
        r"a\${seed}",
        "$${seed}",
        "[a] {b}",
        "null",
        "12",
        "",
        "ü",
    ],
)
def test_a_quoted_path_reaches_the_config_unchanged(path: str) -> None:
    cfg = compose([f"model.train_ds.folder={hydra_quoted(path)}"])
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    assert resolved["model"]["train_ds"]["folder"] == resolved["model"]["validation_ds"]["folder"] == path
