"""`nemo-cmim fit-prior`: the density travels in the model file."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import nemo_cmim
from nemo_cmim.cli import main
from nemo_cmim.errors import CheckpointError, ConfigError, DataError
from nemo_cmim.generation import LatentDensity
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.fit_density import fit_density, sample_molecules
from nemo_cmim.inference.model_file import read_model_file, write_model_file

SMILES = [f"{'C' * chain}{end}" for chain in range(1, 11) for end in ("O", "N", "F", "C#N")]


@pytest.fixture
def molecules(tmp_path: Path) -> Path:
    path = tmp_path / "molecules.csv"
    path.write_text("smiles,id\n" + "".join(f"{smiles},{i}\n" for i, smiles in enumerate([*SMILES, "C1CC"])))
    return path


@pytest.mark.filterwarnings("ignore:.*had not ended")
def test_the_command_writes_the_model_with_a_density(
    model_file: Path, model: CMIMModel, molecules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.nemo"
    with pytest.warns(UserWarning, match=r"1 of 41 SMILES cannot be used and are left out; the first is at index \d+: 'C1CC'"):
        assert main(["fit-prior", str(model_file), str(molecules), "-o", str(out), "--device", "cpu"]) == 0
    assert "with a kernel density estimate of 40 kernels, fitted to a sample of 41 rows" in capsys.readouterr().out
    fitted = nemo_cmim.load(out)
    assert fitted.fingerprint() == model.fingerprint()
    latents = model.encode(SMILES).mean_BKD.flatten(1).numpy()
    assert fitted.density is not None
    np.testing.assert_allclose(fitted.density.mean_Z, latents.mean(0), rtol=1e-4, atol=1e-5)
    assert len(fitted.sample(3, seed=0, max_tokens=5)) == 3
    again = tmp_path / "again.nemo"  # export keeps it
    assert main(["export", str(out), "-o", str(again)]) == 0 and again.read_bytes() == out.read_bytes()
    assert main(["fit-prior", str(model_file), str(molecules), "-o", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--molecules", "--components", "--kernels", "--seed"])
def test_wrong_options(model_file: Path, molecules: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    for source in (molecules, tmp_path / "folder") if option in ("--molecules", "--seed") else (molecules,):
        assert main(["fit-prior", str(model_file), str(source), "-o", str(tmp_path / "x.nemo"), option, "-1"]) == 2
        assert (
            re.search(rf"{option} must be at least [012], found -1", capsys.readouterr().err) and not (tmp_path / "x.nemo").exists()
        )


def test_a_sample_of_a_file_is_random_without_replacement(molecules: Path) -> None:
    assert sample_molecules([molecules], 100) == [*SMILES, "C1CC"]
    some = sample_molecules([molecules, molecules], 20, seed=1)
    assert len(some) == 20 and some == sample_molecules([molecules, molecules], 20, seed=1) != some[::-1]
    assert sample_molecules([molecules], 20, seed=2) != sample_molecules([molecules], 20, seed=1)
    everything = [*SMILES, "C1CC"]
    counts = np.bincount([everything.index(sample_molecules([molecules], 1, seed=s)[0]) // 11 for s in range(60)], minlength=4)
    assert (counts > 3).all()


def test_models_and_molecules_that_cannot_be_used_raise(model_file: Path) -> None:
    content = read_model_file(model_file)
    with pytest.raises(DataError, match="needs at least 8 molecules for 1 component"):
        fit_density(content, ["C"], device="cpu")
    with pytest.raises(DataError, match="no molecules"):
        fit_density(content, [], device="cpu")
    with pytest.raises(ConfigError, match="components must be at least 1"):
        fit_density(content, SMILES, components=0, device="cpu")


def test_a_density_of_another_size_is_an_error(model_file: Path, tmp_path: Path) -> None:
    other = LatentDensity.fit(np.random.default_rng(0).normal(size=(50, 8)), np.zeros((50, 8)))
    with pytest.raises(CheckpointError, match="has 8 dimensions, but a latent of the network has 32"):
        write_model_file(tmp_path / "x.nemo", dataclasses.replace(read_model_file(model_file), density=other))
