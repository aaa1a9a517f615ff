"""Training with observed properties, and micro-batches in buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

import nemo_cmim
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.loader.dataset import make_loader
from nemo_cmim.molecules import observed_properties
from nemo_cmim.training.checkpoints.format import newest_valid
from nemo_cmim.training.model import MegatronCMIMModel
from nemo_cmim.training.run import model_settings, train
from tests.shipped_names import WITHOUT_PROPERTIES
from tests.training.runs import GIVEN_H, GIVEN_Z, RESUME, config, scalars, steps

NAMES = ("HeavyAtomCount", "TPSA")


@pytest.fixture(scope="module")
def run(with_properties: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "log"
    more = ("model.optim.sched=null", "model.optim.lr=1e-2", "trainer.max_steps=100", "trainer.val_check_interval=100")
    return train(config(with_properties, folder, *GIVEN_H, *more))


def model_of(settings: Any) -> MegatronCMIMModel:
    return MegatronCMIMModel(settings.model, pl.Trainer(max_steps=4, logger=False, accelerator="cpu", devices=1))


def test_the_heads_learn_and_travel_with_the_model(run: Path) -> None:
    logged = scalars(run)
    for what in ("values", "bits"):
        term = logged[f"train/log_p_{what}_given_h"]
        assert np.mean(term[-10:]) > np.mean(term[:10])
        assert np.isfinite(logged[f"val/log_p_{what}_given_h"]).all()
    assert "train/log_p_values_given_z" not in logged
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    model = nemo_cmim.load(nemo_file)
    smiles = [f"C{'C' * n}O" for n in range(1, 12)]
    with pytest.warns(UserWarning, match="1 of 12 molecules are invalid"):
        predicted = model.predict_properties([*smiles, "C("], on_invalid="nan")
    truth, _ = observed_properties(smiles, NAMES, 0)
    assert list(predicted) == list(NAMES)
    assert np.corrcoef(predicted["HeavyAtomCount"][:-1], truth[:, 0])[0, 1] > 0.8
    assert np.isnan(predicted["TPSA"][-1])
    half = nemo_cmim.load(nemo_file, precision="bf16").predict_properties(smiles)
    assert np.corrcoef(half["HeavyAtomCount"], predicted["HeavyAtomCount"][:-1])[0, 1] > 0.99


def test_a_restored_model_has_its_heads(run: Path, with_properties: Path, data: Path, tmp_path: Path) -> None:
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    with pytest.raises(ConfigError, match="was trained without observed properties"):
        nemo_cmim.load(WITHOUT_PROPERTIES).predict_properties(["CCO"])
    model = MegatronCMIMModel.restore_from(str(nemo_file))
    assert model.property_table == nemo_cmim.load(nemo_file).property_table is not None
    model.setup_training_data({"folder": str(with_properties)})
    with pytest.raises(DataError, match="other observed properties or quantiles than the model"):
        model.setup_training_data({"folder": str(data)})
    model.save_to(str(tmp_path / "again.nemo"))
    again, before = (nemo_cmim.load(path).predict_properties(["CCO"]) for path in (tmp_path / "again.nemo", nemo_file))
    assert again == before


def test_a_resumed_run_with_properties_is_the_uninterrupted_one(with_properties: Path, tmp_path: Path) -> None:
    more = (*GIVEN_H, *GIVEN_Z, "model.optim.name=muon", "model.optim.sched=null", "trainer.val_check_interval=100")
    complete = train(config(with_properties, tmp_path / "complete", *more, "trainer.max_steps=4"))
    for stop in (2, 4):
        train(config(with_properties, tmp_path / "resumed", *more, RESUME, f"trainer.max_steps={stop}"))
    losses = [[step["train_loss"] for step in steps(tmp_path / name)] for name in ("complete", "resumed")]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    checkpoint, _ = newest_valid(complete / "checkpoints")
    assert checkpoint is not None and (checkpoint / "properties.json").is_file()


def test_the_loss_does_not_depend_on_buckets(with_properties: Path, tmp_path: Path) -> None:
    """Nor do the gradients, with the contrastive term over the whole micro-batch."""
    results = []
    for buckets in (1, 3, 16):
        settings = config(
            with_properties, tmp_path, *GIVEN_H, *GIVEN_Z, f"model.train_ds.buckets={buckets}", "model.objective.tau=0.1"
        )
        torch.manual_seed(0)
        model = model_of(settings)
        (batch,) = make_loader(model.model_config.train_ds, steps=1, with_properties=True)
        assert len(batch.buckets) == buckets
        objective, _ = model(batch, torch.Generator().manual_seed(1))
        objective.loss.backward()
        results.append((objective, {name: p.grad.clone() for name, p in model.network.named_parameters()}))
    (one, gradients), *others = results
    for other, other_gradients in others:
        torch.testing.assert_close(other.loss, one.loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(other.terms.log_p_k1_B, one.terms.log_p_k1_B, rtol=1e-4, atol=1e-6)
        for name, gradient in gradients.items():
            scale = gradient.abs().max().clamp_min(1e-6)
            torch.testing.assert_close(other_gradients[name] / scale, gradient / scale, rtol=0, atol=1e-4)


def test_data_without_properties(data: Path, with_properties: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has none\. Prepare the data with .*--properties standard"):
        model_of(config(data, tmp_path, *GIVEN_H))
    heads = "model.network.heads={sources: h, values: [TPSA], bits: 8}"
    with pytest.raises(ConfigError, match=r"network\.heads has 1 properties and 8 bits given h, but .* need 2 and 32 given h"):
        model_of(config(with_properties, tmp_path, *GIVEN_H, heads))


def test_terms_that_the_objective_cannot_have(with_properties: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="terms given h need a decoder, which objective infonce does not have"):
        model_settings(config(with_properties, tmp_path, *GIVEN_H, "objective=infonce", "model.network.decoder_layers=0"))
    for weight in ("1", "nan"):
        with pytest.raises(ConfigError, match=r"objective\.weights\.kl must be a finite number that is 0 or negative"):
            model_of(config(with_properties, tmp_path, "objective=vae", f"+model.objective.weights.kl={weight}"))


def test_weights_of_terms(with_properties: Path, tmp_path: Path) -> None:
    model = model_of(config(with_properties, tmp_path, *GIVEN_Z, "+model.objective.weights.log_p_k1=40"))
    assert dict(model.objective.weights) == {
        "log_p_x_given_z": 1.0, "log_q_z_given_x": 0.5, "log_p_z": 0.5, "log_p_k1": 40.0,
        "log_p_values_given_z": 1.0, "log_p_bits_given_z": 0.1,
    }  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"objective\.weights\.kl: the objective cmim has no such term. Its terms: log_p_x_given_z"
    ):
        model_of(config(with_properties, tmp_path, "+model.objective.weights.kl=1"))
