"""The NeMo model in complete training runs: Hydra config, Lightning, exp_manager, Megatron layers, `.nemo` files."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("nemo.core", reason="needs the [train] extra")

import fsspec
import lightning.pytorch as pl
from omegaconf import OmegaConf

import nemo_cmim
from nemo_cmim.errors import CheckpointError, ConfigError, DataError
from nemo_cmim.inference.model_file import read_model_file
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.tokenizers import Vocabulary
from nemo_cmim.training.checkpoints.export import export_from
from nemo_cmim.training.model import MegatronCMIMModel
from nemo_cmim.training.run import compose, config_folder, model_settings, train
from nemo_cmim.types import MicroBatch
from tests.training.runs import config, overrides, scalars

GOLDEN = Path(__file__).with_name("golden_loss.json")


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "log"
    return train(config(data, folder, "trainer.max_steps=20", "trainer.val_check_interval=10"))


def test_training_lowers_the_loss_and_logs_every_term(run: Path) -> None:
    logged = scalars(run)
    assert len(logged["train_loss"]) == 20
    per_token = logged["train/log_p_x_given_z_per_token"]
    assert np.mean(per_token[-5:]) > per_token[0] + 0.5  # batches differ in length, so the loss itself is noisier
    terms = ["log_p_x_given_z_per_token", "log_p_k1", "log_q_z_given_x_per_dim", "log_p_z_per_dim", "token_accuracy"]
    validation = ["reconstruction", "validity", "posterior_std", "mean_std", "cosine_mean", "cosine_std", "effective_rank"]
    assert {f"train/{t}" for t in terms} | {f"val/{t}" for t in terms + validation} | {"val_loss", "lr"} <= logged.keys()
    assert 1 <= logged["val/effective_rank"][-1] <= 32
    assert 0 < logged["val/token_accuracy"][-1] <= 1


def test_golden_loss_curve(run: Path) -> None:
    """A refactoring must not change the first losses. To update the file after an intended change, delete it and run this test."""
    losses = scalars(run)["train_loss"]
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps([round(x, 4) for x in losses]) + "\n")
        pytest.fail(f"{GOLDEN.name} was written again: check the difference and commit the file")
    np.testing.assert_allclose(losses, json.loads(GOLDEN.read_text()), rtol=2e-3)


def test_the_run_folder_contains_checkpoints_and_one_nemo_file_that_load_reads(run: Path) -> None:
    assert list((run / "checkpoints").glob("step=*.ckpt"))
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    model = nemo_cmim.load(nemo_file)
    for kind in ("mean", "informative"):
        embedding = model.embed(["CCO", "CCCCN"], kind=kind)
        assert embedding.shape == (2, 32) and np.isfinite(embedding).all()


def test_restored_model_is_the_same_network(run: Path, tmp_path: Path) -> None:
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    model = MegatronCMIMModel.restore_from(str(nemo_file))
    assert isinstance(model, MegatronCMIMModel)
    plain = nemo_cmim.load(nemo_file)
    ids = torch.tensor([plain.tokenizer.encode("CCCCO")])
    expected = plain.network.encode(ids, torch.ones_like(ids, dtype=torch.bool))
    model.eval()
    with torch.no_grad():
        found = model.network.encode(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(found.mean_BKD, expected.mean_BKD, rtol=1e-5, atol=1e-5)
    model.save_to(str(tmp_path / "again.nemo"))
    assert (tmp_path / "again.nemo").read_bytes() == nemo_file.read_bytes()
    config_only = MegatronCMIMModel.restore_from(str(nemo_file), return_config=True)
    assert config_only.network.hidden_size == 32


def test_model_files_keep_the_table_of_observed_properties(tmp_path: Path) -> None:
    """Written at the end of a run, by `save_to` and by `export_from`; read by `restore_from`."""
    lines = [f"{'C' * i}O{'C' * j}" for i in range(1, 12) for j in range(1, 12)]
    (tmp_path / "ethers.smi").write_text("\n".join(lines) + "\n")
    prepare(
        [tmp_path / "ethers.smi"], tmp_path / "data", valid_fraction=0.2, test_fraction=0, processes=1, progress=False,
        properties="MolWt,TPSA", fingerprint_bits=16,
    )  # fmt: skip
    more = ("trainer.max_steps=1", "model.objective.properties.values_given_h=1", "model.objective.properties.bits_given_h=1")
    run = train(config(tmp_path / "data", tmp_path / "log", *more))
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    table = TokenStore.open(tmp_path / "data", "train").properties
    assert table is not None and table == read_model_file(nemo_file).properties
    model = MegatronCMIMModel.restore_from(str(nemo_file))
    assert model.property_table == table
    model.save_to(str(tmp_path / "again.nemo"))
    assert (tmp_path / "again.nemo").read_bytes() == nemo_file.read_bytes()
    export_from(run, tmp_path / "exported.nemo")
    assert read_model_file(tmp_path / "exported.nemo").properties == table


def test_a_resumed_run_is_the_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    """5 steps, an interruption and 5 steps equal 10 steps bit for bit: SMILES, latent noise, dropout, queue and learning rates.

    Muon updates the hidden matrices, and Adam the other weights.
    """
    more = (
        "model.optim.name=muon",
        "trainer.max_steps=10",
        "trainer.val_check_interval=5",
        "model.network.dropout=0.1",
        "model.objective.queue=40",
        "model.augmentation.strings=different_random",
        "model.augmentation.mask_fraction=0.1",
        "exp_manager.resume_if_exists=true",
    )
    train(config(data, tmp_path / "straight", *more))
    interrupted = config(data, tmp_path / "resumed", *more)
    with pytest.MonkeyPatch.context() as patch:  # stops after the checkpoint of step 5, with two more steps done
        step = MegatronCMIMModel.training_step

        def stop(self: MegatronCMIMModel, batch: MicroBatch, batch_idx: int) -> torch.Tensor:
            if self.trainer.global_step == 7:
                raise KeyboardInterrupt
            return step(self, batch, batch_idx)

        patch.setattr(MegatronCMIMModel, "training_step", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(interrupted)
    train(interrupted)
    straight, resumed = scalars(tmp_path / "straight"), scalars(tmp_path / "resumed")
    assert len(straight["train_loss"]) == 10
    for tag in ("train_loss", "lr", "val_loss", "val/mean_std"):
        assert resumed[tag] == straight[tag], tag
    files = [next((tmp_path / name / "checkpoints").glob("*.nemo")).read_bytes() for name in ("straight", "resumed")]
    assert files[0] == files[1]


def test_training_from_object_storage(data: Path, tmp_path: Path) -> None:
    """The losses are those of training from the disk, and the URL reaches the reader unchanged."""
    files = fsspec.filesystem("memory")
    for path in data.iterdir():
        files.pipe_file(f"/bucket/molecules/{path.name}", path.read_bytes())
    more = ("model.train_ds.shuffle_block=32", "trainer.max_steps=4", "trainer.val_check_interval=4")
    settings = config(data, tmp_path / "disk", *more)
    train(settings)
    remote = compose(overrides(Path("unused"), tmp_path / "url", *more, "model.train_ds.folder=memory://bucket/molecules"))
    train(remote)
    on_disk, by_url = scalars(tmp_path / "disk"), scalars(tmp_path / "url")
    assert len(by_url["train_loss"]) == 4
    for tag in ("train_loss", "val_loss"):
        assert by_url[tag] == on_disk[tag]
    model = MegatronCMIMModel(remote.model, pl.Trainer(max_steps=4, logger=False, accelerator="cpu", devices=1))
    assert (model.order["shuffle block"], model.order["micro-batches"]) == (32, 1)


def test_the_learning_rate_peaks_at_lr_and_ends_at_the_minimum(data: Path, tmp_path: Path) -> None:
    model = MegatronCMIMModel(
        config(data, tmp_path).model, pl.Trainer(max_steps=250_000, logger=False, accelerator="cpu", devices=1)
    )
    optimiser, schedule = model.setup_optimization()
    assert isinstance(optimiser, torch.optim.Adam)
    scheduler = schedule["scheduler"]
    rates = [scheduler._noam_annealing(initial_lr=1e-4, step=s) for s in (1, 1000, 2000, 8000, 250_000)]
    np.testing.assert_allclose(rates, [5e-8, 5e-5, 1e-4, 5e-5, 1e-5], rtol=1e-6)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("model.train_ds.limit=100", "molecules", 100),
        ("model.train_ds.batch_size=8", "global batch", 8),
        ("model.train_ds.shuffle_block=8", "shuffle block", 8),
    ],
)
def test_order_contains_what_determines_the_molecules_of_a_step(
    data: Path, tmp_path: Path, override: str, key: str, value: int
) -> None:
    trainer = pl.Trainer(max_steps=4, logger=False, accelerator="cpu", devices=1)
    orders = [MegatronCMIMModel(config(data, tmp_path, *more).model, trainer).order for more in ((), (override,))]
    assert orders[1][key] == value != orders[0].get(key)


def test_training_without_megatron_strategy_is_an_error(data: Path, tmp_path: Path) -> None:
    trainer = pl.Trainer(max_steps=1, logger=False, accelerator="cpu", devices=1, enable_progress_bar=False, barebones=True)
    with pytest.raises(ConfigError, match="MegatronCMIMModel requires MegatronStrategy"):
        trainer.fit(MegatronCMIMModel(config(data, tmp_path).model, trainer))


@pytest.mark.parametrize("name", sorted(p.stem for p in (config_folder() / "model").glob("*.yaml")))
def test_every_model_config_composes(name: str) -> None:
    from nemo_cmim.config import ModelConfig
    from nemo_cmim.mappings import from_mapping

    cfg = compose([f"model={name}", "model.train_ds.folder=somewhere"])
    model = from_mapping(ModelConfig, OmegaConf.to_container(cfg.model, resolve=True), "model")
    assert model.train_ds is not None and model.train_ds.folder == "somewhere"


WIDTHS = {"default_model": 256, "gpu_cmim": 384, "molmim_70m_h100": 512}
SEARCHES = [config_folder().parent / "tools" / f"{name}.yaml" for name in ("search", "learning_curve")]


@pytest.mark.parametrize("name", sorted(path.stem for path in (config_folder() / "run").glob("*.yaml")))
def test_every_recipe_composes(name: str) -> None:
    assert model_settings(compose([f"run={name}", "model.train_ds.folder=somewhere"])).network.hidden_size == WIDTHS[name]


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_every_recipe_of_a_search_composes(path: Path) -> None:
    """And differs from all others."""
    spec = yaml.safe_load(path.read_text())
    recipes = [[re.sub(r"{(\w+)}", r"\1", one) for one in (*spec["common"], *recipe)] for recipe in spec["recipes"].values()]
    settings = [model_settings(compose(recipe)) for recipe in recipes]
    assert all(one != other for one, other in itertools.combinations(settings, 2))


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("+model.latents=4", ConfigError, "Unknown config key model.latents"),
        ("model.latents=4", ConfigError, "latents"),
        ("model.parallel.pipeline_model_parallel_size=2", ConfigError, "pipeline parallelism is not supported"),
        (
            "trainer.devices=2",
            ConfigError,
            "trainer.devices 2 x trainer.num_nodes 1 = 2 processes are expected, but only this process is running",
        ),
        ("trainer.devices=2", ConfigError, "torchrun --nproc_per_node=2 "),
        ("model.parallel.tensor_model_parallel_size=3", ConfigError, "network.attention_heads (4) must be a multiple of"),
        (
            "model.global_batch_size=32 trainer.accumulate_grad_batches=3",
            ConfigError,
            "data-parallel ranks x trainer.accumulate_grad_batches 3 = 48, for example 48",
        ),
        (
            "model.global_batch_size=40",
            ConfigError,
            "(40) must be model.train_ds.batch_size 16 x 1 data-parallel ranks x accumulation",
        ),
        ("+trainer.logger=false", ConfigError, "trainer.logger is set by nemo_cmim. Remove trainer.logger."),
        ("exp_manager.create_checkpoint_callback=false", ConfigError, "a run without checkpoints cannot be resumed"),
        (
            "exp_manager.checkpoint_callback_params.monitor=vall_loss",
            ConfigError,
            "monitor is 'vall_loss', which is not logged. Logged: ",
        ),
        ("+exp_manager.checkpoint_callback_params.filename=x", ConfigError, "exp_manager.checkpoint_callback_params.filename"),
        (
            "model.network.vocabulary_size=500",
            ConfigError,
            "model.network.vocabulary_size is 500, but the vocabulary has 523 tokens",
        ),
        ("model.train_ds.folder=/nowhere", DataError, "/nowhere"),
        ("model.network.max_positions=8", ConfigError, "at most 7"),
        ("model.objective.name=cmimm", ConfigError, "Known: cmim, mim"),
        ("trainer.max_steps=-1", ConfigError, "Set trainer.max_steps"),
        ("model.train_ds.folder=???", ConfigError, "model.train_ds.folder is not set"),
        (
            "model.train_ds=null model.validation_ds.folder=x model.validation_ds.shuffle_block=1",
            ConfigError,
            "model.train_ds.folder",
        ),
        (
            "trainer.precision=16-true",
            ConfigError,
            "trainer.precision is '16-true'. Known: 32, 32-true, fp32, tf32; bf16, bf16-mixed; 16, 16-mixed",
        ),
        ("+trainr.max_steps=1", ConfigError, "Unknown config key trainr. Did you mean trainer?"),
        ("+trainer.max_stepz=1", ConfigError, "Unknown config key trainer.max_stepz. Did you mean trainer.max_steps?"),
    ],
)
def test_a_wrong_setting_is_an_error(data: Path, tmp_path: Path, override: str, error: type[ValueError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        train(config(data, tmp_path / "log", "trainer.max_steps=1", *override.split()))


def test_data_with_a_different_vocabulary_are_an_error(run: Path, data: Path, tmp_path: Path) -> None:
    """The data would have different token ids than the restored model."""
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    own = Vocabulary.load(data / "vocabulary.txt")
    dataclasses.replace(own, tokens=tuple("[Xx]" if t == "Br" else t for t in own.tokens)).save(tmp_path / "other.txt")
    fractions = {"valid_fraction": 0.1, "test_fraction": 0.05}
    prepare([data.parent / "molecules.smi"], tmp_path / "store", vocabulary=tmp_path / "other.txt", processes=1, **fractions)
    model = MegatronCMIMModel.restore_from(str(nemo_file))
    with pytest.raises(DataError, match="vocabulary"):
        model.setup_training_data({"folder": str(tmp_path / "store")})


def test_weights_of_a_different_network_are_an_error(run: Path) -> None:
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    override = MegatronCMIMModel.restore_from(str(nemo_file), return_config=True)
    override.network.decoder_layers = 3
    with pytest.raises(CheckpointError, match="those of a different network"):
        MegatronCMIMModel.restore_from(str(nemo_file), override_config_path=override)


def test_restoring_with_strict_false_is_an_error(run: Path) -> None:
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    with pytest.raises(ConfigError, match="strict"):
        MegatronCMIMModel.restore_from(str(nemo_file), strict=False)


def test_a_checkpoint_with_a_different_vocabulary_is_not_resumed(run: Path, data: Path, tmp_path: Path) -> None:
    own = Vocabulary.load(data / "vocabulary.txt")
    dataclasses.replace(own, tokens=tuple("[Xx]" if t == "Br" else t for t in own.tokens)).save(tmp_path / "other.txt")
    fractions = {"valid_fraction": 0.1, "test_fraction": 0.05}
    prepare([data.parent / "molecules.smi"], tmp_path / "store", vocabulary=tmp_path / "other.txt", processes=1, **fractions)
    newest = max((run / "checkpoints").glob("step=*.ckpt"))
    with pytest.raises(CheckpointError, match="was trained with the vocabulary"):
        train(
            config(tmp_path / "store", tmp_path / "log", f"exp_manager.resume_from_checkpoint='{newest}'", "trainer.max_steps=30")
        )


def test_a_run_shorter_than_the_validation_interval_validates_at_its_end(data: Path, tmp_path: Path) -> None:
    train(config(data, tmp_path / "log", "trainer.max_steps=2", "model.validation.reconstruct=0"))
    assert len(scalars(tmp_path / "log")["val_loss"]) == 1
