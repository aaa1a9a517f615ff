"""`CMIMModel.optimize`: from SMILES to search results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemo_cmim.errors import ConfigError, InvalidSmilesError
from nemo_cmim.inference import CMIMModel, optimizing
from nemo_cmim.inference.fit_density import fit_density
from nemo_cmim.inference.model_file import read_model_file
from nemo_cmim.molecules import canonical_or_none, canonical_smiles

SMILES = ["OCC", "c1ccccc1O"]
SMALL: dict[str, Any] = {"evaluations": 12, "population": 4, "n": None, "seed": 3}


def length(smiles: list[str]) -> list[int]:
    return [len(text) for text in smiles]


@pytest.fixture(scope="module")
def searcher(model_file: Path) -> CMIMModel:
    """A model with a fitted density, whose decoder writes short molecules."""
    molecules = [f"{'C' * chain}{end}" for chain in range(1, 9) for end in ("O", "N", "F", "C#N")]
    model = CMIMModel(fit_density(read_model_file(model_file), molecules, device="cpu"), "cpu")
    vocabulary = model.tokenizer.vocabulary
    model.network.output_bias[vocabulary.eos_id] += 3.0
    for atom in "CNO":
        model.network.output_bias[vocabulary.tokens.index(atom)] += 4.0
    return model


def test_results_are_in_the_order_of_rows_and_reproducible(searcher: CMIMModel) -> None:
    seen: list[tuple[int, int]] = []
    found = searcher.optimize(SMILES, length, progress=lambda done, total: seen.append((done, total)), **SMALL)
    assert seen == [(8, 24), (16, 24), (24, 24)]
    for smiles, result in zip(SMILES, found):
        assert result is not None and result.seed == canonical_smiles(smiles) and result.seed_score == len(result.seed)
        assert result.evaluations == 12 and len(result.history) == 3 and result.objective == "length"
        assert all(canonical_smiles(one.smiles) == one.smiles and one.score == len(one.smiles) for one in result.molecules)
    assert any(result.molecules for result in found if result)
    assert found == searcher.optimize(SMILES, length, **SMALL)
    assert found[1] == searcher.optimize(SMILES[1:], length, first_index=1, **SMALL)[0]


def test_invalid_molecules_can_be_none(searcher: CMIMModel) -> None:
    with pytest.warns(UserWarning, match="1 of 2 molecules are invalid"):
        found = searcher.optimize(["C1CC", "CCO"], length, on_invalid="nan", **SMALL)
    assert found[0] is None and found[1] is not None
    with pytest.raises(InvalidSmilesError, match="C1CC"):
        searcher.optimize(["C1CC", "CCO"], length, **SMALL)


@pytest.mark.filterwarnings("ignore:.*had not ended")
def test_a_small_radius_stays_near_the_seed(searcher: CMIMModel) -> None:
    near = searcher.optimize(["CCO"], length, algorithm="none", scaled_radius=1e-6, **SMALL)[0]
    assert near is not None
    reconstruction = searcher.reconstruct(["CCO"])[0]
    assert {one.smiles for one in near.molecules} <= {canonical_or_none(reconstruction)}


@pytest.mark.filterwarnings("ignore:.*had not ended")
def test_errors_of_a_scoring_function_are_a_warning(searcher: CMIMModel) -> None:
    def score(smiles: list[str]) -> list[int]:
        if any("c" in one or len(one) > 3 for one in smiles):
            raise ValueError("too long")
        return length(smiles)

    with pytest.warns(
        UserWarning, match=r"in the searches of 1 of 2 molecules.*score\(\['Oc1ccccc1'\]\) raised ValueError\('too long'\)"
    ):
        found = searcher.optimize(["CCO", "c1ccccc1O"], score, min_similarity=1.0, **SMALL)
    assert [bool(result and result.error) for result in found] == [False, True]
    with pytest.raises(ConfigError, match=r"for all molecules of the first step. The first error: <lambda>.*ZeroDivisionError"):
        searcher.optimize(["CCO"], lambda smiles: 1 / 0, **SMALL)


def test_a_search_that_leaves_the_latent_space_decodes_finite_latents(searcher: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when CMA-ES takes very large steps."""
    monkeypatch.setattr(optimizing, "check_distance", lambda *_: None)
    (found,) = searcher.optimize(["CCO"], length, algorithm="none", unit="absolute", scaled_radius=1e300, **SMALL)
    assert found is not None and found.evaluations == 12


def test_arguments_that_cannot_be_used_raise(searcher: CMIMModel, model: CMIMModel) -> None:
    with pytest.raises(ConfigError, match="unit must be one of spread, absolute, found 'posterior'"):
        searcher.optimize(SMILES, unit="posterior")
    with pytest.raises(ConfigError, match=r'needs a density.* or pass unit="absolute"\.$'):
        model.optimize(SMILES)
    with pytest.raises(ConfigError, match="objective must be one of QED, plogP"):
        searcher.optimize(SMILES, "qed")
    with pytest.raises(ConfigError, match="one number for each SMILES"):
        searcher.optimize(SMILES, lambda smiles: np.ones(7), **SMALL)
