"""Decoding of held-out molecules: the measures, which molecules, and what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cmim import load
from nemo_cmim.errors import DataError
from nemo_cmim.evaluation import decoding as module
from nemo_cmim.evaluation.decoding import decode_all, decoding
from nemo_cmim.evaluation.held_out import held_out_molecules
from nemo_cmim.evaluation.tables import decoding_table
from nemo_cmim.inference.reconstruction import reconstruction_scores
from nemo_cmim.molecules import randomized_smiles
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.tokenizers import SmilesTokenizer
from tests.evaluation.made_up import write_model


def test_a_reconstruction_is_exact_if_the_molecule_is_the_same() -> None:
    decoded = ["OCC", "CC(", "C[C@@H](N)O", "CCO"]
    scores = reconstruction_scores(decoded, ["CCO", "CC", "C[C@H](N)O", "CCN"])
    assert scores == {"reconstruction": 1 / 4, "validity": 3 / 4}, "another SMILES, invalid, another stereoisomer, another molecule"


@pytest.mark.filterwarnings("ignore:.*SMILES had not ended")
def test_measures_of_a_model(models: dict[str, Path]) -> None:
    smiles = ["CCO", "CC(C)O", "C1CCCCC1"]
    model = load(models["cmim"])
    scores = decoding(model, smiles)
    texts = model.reconstruct(smiles, max_tokens=2 * 8)
    assert scores == {"token_accuracy": scores["token_accuracy"], **reconstruction_scores(texts, smiles)}
    assert 0 <= scores["token_accuracy"] < 1


def test_a_model_without_decoder_decodes_nothing(tmp_path: Path) -> None:
    path = write_model(tmp_path / "i.nemo", "infonce", 31, decoder_layers=0)
    decoded = decode_all({"i": str(path)}, ["CCO", "CC"], tmp_path / "kept")
    assert decoding_table(decoded).splitlines()[-1] == "| i | 2 | no decoder | no decoder | no decoder |"


def test_what_was_decoded_is_kept(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def counted(model: object, smiles: list[str]) -> dict[str, float]:
        calls.append(smiles)
        return {"token_accuracy": 0.5, "reconstruction": 0.25, "validity": len(calls) / 8}

    monkeypatch.setattr(module, "decoding", counted)
    labels = {"c": str(models["cmim"]), "m": str(models["mim"])}
    first = decode_all(labels, ["CCO"], tmp_path / "kept")
    assert first["validity"].tolist() == [1 / 8, 2 / 8]
    assert decode_all(labels, ["CCO"], tmp_path / "kept").equals(first) and len(calls) == 2
    assert decode_all(labels, ["CCO", "CC"], tmp_path / "kept")["validity"].tolist() == [3 / 8, 4 / 8], "other molecules"
    monkeypatch.setattr(module, "code_digest", lambda name: "changed")
    assert decode_all(labels, ["CCO"], tmp_path / "kept")["validity"].tolist() == [5 / 8, 6 / 8], "other code"


def test_held_out_molecules_are_spread_over_the_split(data: Path) -> None:
    store = TokenStore.open(data, "test")
    texts = [SmilesTokenizer(store.vocabulary).decode(store.tokens(i)) for i in range(len(store))]
    assert held_out_molecules(data, 1000, 127) == texts
    assert held_out_molecules(data, 3, 127) == [texts[0], texts[(len(texts) - 1) // 2], texts[-1]]


def test_molecules_of_the_training_are_not_held_out(pretraining: Path, tmp_path: Path) -> None:
    texts = held_out_molecules(pretraining, 1000, 31)
    for count in (3, len(texts)):
        (tmp_path / "seen.smi").write_text("\n".join(randomized_smiles(text, 1, seed=9)[0] for text in texts[:count]) + "\n")
        folder = tmp_path / f"trained{count}"
        prepare([tmp_path / "seen.smi"], folder, valid_fraction=0, test_fraction=0, processes=1, progress=False)
        if count < len(texts):
            assert held_out_molecules(pretraining, 1000, 31, folder) == texts[count:]
        else:
            with pytest.raises(DataError, match=f"All {count} molecules of the test split"):
                held_out_molecules(pretraining, 1000, 31, folder)
