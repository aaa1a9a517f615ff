"""Checks the installed wheel, in an environment without anything else: the package embeds molecules without the training stack."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np

import nemo_cmim
from nemo_cmim.config import ModelConfig, NetworkConfig
from nemo_cmim.inference.model_file import ModelFile, write_model_file

TRAINING_STACK = ("nemo", "megatron", "lightning", "transformers", "pytest")


def check_files() -> None:
    """The imported package is the installed copy, and it is complete."""
    package = Path(nemo_cmim.__file__).parent
    assert "site-packages" in package.parts, f"a checkout was imported ({package}); run this script outside of it"
    found = [name for name in TRAINING_STACK if importlib.util.find_spec(name) is not None]
    assert not found, f"the base dependencies installed {found}"
    assert (package / "py.typed").is_file()
    conf = files("nemo_cmim.conf")
    for name in (
        "pretrain.yaml",
        "compare.yaml",
        "model/small_cpu.yaml",
        "run/default_model.yaml",
        "objective/bart.yaml",
        "system/molvae.yaml",
    ):
        assert conf.joinpath(name).is_file(), f"conf/{name} is missing"


def random_model(path: Path) -> Path:
    """Writes a tiny network with random weights and the shipped vocabulary."""
    network = NetworkConfig(hidden_size=32, encoder_layers=1, decoder_layers=1, attention_heads=2, ffn_size=64, max_positions=64)
    weights = nemo_cmim.CMIMNetwork(network).state_dict()
    write_model_file(path, ModelFile(ModelConfig(network=network), nemo_cmim.SmilesTokenizer().vocabulary, weights))
    return path


def check_embedding(model: str | Path | None) -> None:
    """The embeddings of two molecules are finite, for both kinds."""
    for kind in ("mean", "informative"):
        vectors = nemo_cmim.embed(["CCO", "c1ccccc1"], model=model, kind=kind)
        assert vectors.shape[0] == 2 and vectors.dtype == np.float32 and np.isfinite(vectors).all()
        print(f"{'the default model' if model is None else Path(model).stem}, {kind}: {vectors.shape}")


def check_default() -> None:
    """A model ships, and it is the default of `embed`."""
    names = nemo_cmim.list_models()
    assert names, "no model is in the wheel"
    check_embedding(None)
    np.testing.assert_array_equal(nemo_cmim.embed(["CCO"]), nemo_cmim.load(names[0]).embed(["CCO"]))


def check_commands(model: Path) -> None:
    """The console script embeds a file, with the default model and with a given one, and prints a card."""
    (model.parent / "in.smi").write_text("CCO\nc1ccccc1\n")
    script = Path(sys.executable).with_name("nemo-cmim")
    command: list[str | Path] = [script, "embed", model.parent / "in.smi", "-o"]
    for target, more in ((model.parent / "default.parquet", []), (model.parent / "named.parquet", ["--model", str(model)])):
        subprocess.run([*command, target, *more], check=True)
        assert target.stat().st_size > 0
    shown = subprocess.run([script, "models", nemo_cmim.list_models()[0]], check=True, capture_output=True, text=True).stdout
    assert shown.startswith("# ") and "## Limits" in shown


if __name__ == "__main__":
    check_files()
    check_default()
    with tempfile.TemporaryDirectory() as folder:
        for model in nemo_cmim.list_models():
            check_embedding(model)
        path = random_model(Path(folder) / "random.nemo")
        check_embedding(path)
        check_commands(path)
    print(f"nemo_cmim {nemo_cmim.__version__} works from its wheel")
