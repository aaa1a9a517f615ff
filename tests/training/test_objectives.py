"""Complete runs of every objective: training, saving, loading, embedding, and the first losses, which must not change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

import nemo_cmim
from nemo_cmim.errors import ConfigError
from nemo_cmim.losses import OBJECTIVES
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.training.model import MegatronCMIMModel
from nemo_cmim.training.run import config_folder, train
from nemo_cmim.training.systems import SYSTEMS, describe_systems, system
from tests.training.runs import config, scalars

GOLDEN = Path(__file__).with_name("golden_objectives.json")
STEPS = 4
SMILES = ["CCO", "CCCCN", "OCCc1ccccc1"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_trains_saves_loads_and_embeds(data: Path, tmp_path: Path, name: str) -> None:
    composition = OBJECTIVES[name]
    sizes = (
        () if composition.decodes else ("model.network.decoder_layers=0",)
    )  # the overrides of these runs set the size of the decoder
    folder = train(config(data, tmp_path / "log", f"objective={name}", f"trainer.max_steps={STEPS}", *sizes))
    logged = scalars(folder)
    assert np.isfinite(logged["train_loss"] + logged["val_loss"]).all()
    for split in ("train", "val"):
        terms = {
            key.split("/")[1].removesuffix("_per_token").removesuffix("_per_dim") for key in logged if key.startswith(f"{split}/")
        }
        assert composition.weights.keys() <= terms
    assert ("val/posterior_std" in logged) == composition.is_stochastic
    assert ("val/reconstruction" in logged) == ("train/token_accuracy" in logged) == composition.decodes
    _compare_with_golden(name, logged["train_loss"])

    (nemo_file,) = (folder / "checkpoints").glob("*.nemo")
    model = nemo_cmim.load(nemo_file)
    for kind in ("mean", "informative") if composition.decodes else ("mean",):
        vectors = model.embed(SMILES, kind=kind)
        assert vectors.shape == (3, 32) and np.isfinite(vectors).all()
    restored = MegatronCMIMModel.restore_from(str(nemo_file)).eval()
    assert restored.model_config.objective.name == name
    ids = torch.tensor([model.tokenizer.encode(SMILES[2])])
    real = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        mean, expected = (net.encode(ids, real).pooled() for net in (restored.network, model.network))
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-5)


def _compare_with_golden(name: str, losses: list[float]) -> None:
    """A refactoring must not change the losses. To update one after an intended change, delete its line and run the test."""
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if name not in golden:
        golden[name] = [round(loss, 4) for loss in losses]
        lines = ",\n".join(f'  "{key}": {json.dumps(golden[key])}' for key in OBJECTIVES if key in golden)
        GOLDEN.write_text(f"{{\n{lines}\n}}\n")
        pytest.fail(f"{GOLDEN.name} has a new line for {name}: check the difference and commit the file")
    np.testing.assert_allclose(losses, golden[name], rtol=2e-3)


def test_the_hybrid_encoder_trains_under_any_objective_with_a_bottleneck(data: Path, tmp_path: Path) -> None:
    more = ("model.network.encoder=hybrid", "model.network.latents=2", "objective=cvae", "trainer.max_steps=2")
    folder = train(config(data, tmp_path / "log", *more))
    (nemo_file,) = (folder / "checkpoints").glob("*.nemo")
    assert nemo_cmim.load(nemo_file).embed(SMILES, "mean").shape == (3, 64)


def test_every_objective_and_baseline_model_has_a_file() -> None:
    assert {path.stem for path in (config_folder() / "objective").glob("*.yaml")} == set(OBJECTIVES)
    assert {path.stem for path in (config_folder() / "system").glob("*.yaml")} == set(SYSTEMS)


def test_systems_are_those_of_the_paper() -> None:
    found = {name: system(name) for name in SYSTEMS}
    shapes = {
        name: (one.config.network.encoder, one.config.network.latents, one.config.objective.name) for name, one in found.items()
    }
    assert shapes == {
        "mim": ("perceiver", 1, "mim"),
        "cmim": ("perceiver", 1, "cmim"),
        "megamolbart": ("transformer", 1, "bart"),
        "perceiver_ae": ("perceiver", 4, "ae"),
        "molvae": ("perceiver", 4, "beta_vae"),
    }
    for name, one in found.items():
        assert one.config.augmentation.strings == ("canonical" if name in ("mim", "cmim") else "different_random")
        assert one.config.augmentation.mask_fraction == (0.1 if name == "megamolbart" else 0.0)
    heads = sum(p.numel() for p in CMIMNetwork(found["molvae"].config.network).posterior.parameters())
    assert found["molvae"].parameters - found["perceiver_ae"].parameters == heads == 2 * (512 * 512 + 512)
    table = describe_systems()
    assert "| megamolbart | bart | N x 512 | randomized SMILES, 10% masked | another randomized SMILES | 44.7 M | 58.9 M |" in table


def test_what_a_gate_and_separate_tables_would_add_to_megamolbart() -> None:
    one = system("megamolbart")
    network = one.config.network
    gates = (network.encoder_layers + network.decoder_layers) * network.hidden_size * network.ffn_size
    tables = (2 * network.padded_vocabulary_size + network.max_positions) * network.hidden_size
    millions = [f"{count / 1e6:.1f} M" for count in (gates, tables, one.parameters + gates + tables)]
    words = "would add {}, and separate token, position and output tables {}: together {}.".format(*millions)
    documented = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
    assert words in " ".join(describe_systems().split()) and words in " ".join(documented.split())


def test_two_equal_views_are_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"objective infonce compares two randomized SMILES.*augmentation.strings=different_random"
    ):
        train(
            config(
                data,
                tmp_path / "log",
                "objective=infonce",
                "model.network.decoder_layers=0",
                "model.augmentation.strings=canonical",
            )
        )


def test_an_objective_on_an_unsuitable_network_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"network.posterior is gaussian; set it to point"):
        train(config(data, tmp_path / "log", "model.objective.name=ae"))
