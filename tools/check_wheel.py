"""Run in an environment that holds nothing but the installed wheel: the package embeds there, without the training stack."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np

import nemo_cmim

TRAINING_STACK = ("nemo", "megatron", "lightning", "transformers", "pytest")


def check_files() -> None:
    """The installed copy is under test, and complete."""
    package = Path(nemo_cmim.__file__).parent
    assert "site-packages" in package.parts, f"a checkout was imported ({package}); run this outside of it"
    found = [name for name in TRAINING_STACK if importlib.util.find_spec(name) is not None]
    assert not found, f"the base dependencies brought {found}"
    assert (package / "py.typed").is_file()
    assert any((package / "tokenizers").glob("*.txt")), "the vocabulary is missing"
    conf = files("nemo_cmim.conf")
    assert (conf / "pretrain.yaml").is_file() and (conf / "model" / "tiny.yaml").is_file(), "the Hydra tree is missing"


def check_embedding() -> None:
    """Two molecules get finite vectors, from each model that is shipped or from a tiny one with random weights."""
    models = nemo_cmim.list_models() or [None]
    for name in models:
        for kind in ("mean", "informative"):
            vectors = nemo_cmim.embed(["CCO", "c1ccccc1"], model=name, kind=kind)
            assert vectors.shape[0] == 2 and vectors.dtype == np.float32 and np.isfinite(vectors).all()
            print(f"{name}, {kind}: {vectors.shape}")


def check_command() -> None:
    """The console script stands beside the interpreter and starts."""
    subprocess.run([Path(sys.executable).with_name("nemo-cmim"), "--help"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    check_files()
    check_embedding()
    check_command()
    print(f"nemo_cmim {nemo_cmim.__version__} works from its wheel")
