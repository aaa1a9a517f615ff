from __future__ import annotations

import hashlib
import math

import pytest
from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors

from nemo_cmim.data.curate import Filters, Fractions, Molecule, Rejection, curate
from nemo_cmim.errors import ConfigError
from nemo_cmim.tokenizers import SmilesTokenizer

TOKENIZER = SmilesTokenizer()
PALMITATE = "CCCCCCCCCCCCCCCC(=O)O"  # logP 5.55


def kept(smiles: str) -> Molecule:
    (outcome,) = curate([smiles], Filters(max_logp=math.inf), TOKENIZER)
    assert isinstance(outcome, Molecule)
    return outcome


def test_a_kept_molecule_has_the_tokens_of_its_canonical_smiles() -> None:
    assert TOKENIZER.decode(kept("C(O)C").tokens) == "CCO"


def test_every_spelling_gives_the_same_molecule(made_up_smiles: list[str]) -> None:
    for smiles in made_up_smiles[::100]:
        spellings = {Chem.MolToSmiles(Chem.MolFromSmiles(smiles), doRandom=True) for _ in range(9)}
        assert len(spellings) > 1
        assert len({kept(spelling).digest for spelling in spellings}) == 1


def test_stereo_isomers_are_different_molecules() -> None:
    assert len({kept(smiles).digest for smiles in (r"F/C=C/F", r"F/C=C\F", "FC=CF")}) == 3


@pytest.mark.parametrize(
    ("smiles", "filters", "expected"),
    [
        ("C1CC", Filters(), "not a molecule to RDKit"),
        ("smiles", Filters(), "not a molecule to RDKit"),
        ("CC\0O", Filters(), "not a molecule to RDKit"),
        ("C" * 36, Filters(), "molecular weight above 500: 506.99"),
        (PALMITATE, Filters(), "logP above 5: 5.552"),
        ("CCCCO", Filters(max_tokens=4), "more than 4 tokens: 5"),
        ("[Og].[Og+2]O[Og]", Filters(max_molecular_weight=math.inf), "unknown token: [Og] [Og+2]"),
    ],
)
def test_rejections_say_why(smiles: str, filters: Filters, expected: str) -> None:
    (outcome,) = curate([smiles], filters, TOKENIZER)
    assert isinstance(outcome, Rejection)
    assert str(outcome) == expected


def test_the_outcome_of_a_molecule_does_not_depend_on_its_neighbours() -> None:
    smiles = ["CCO", "C1CC", "CC[Og]", "c1ccccc1", "C" * 36, "CCCCCO", "CCO"]
    together = curate(smiles, Filters(max_tokens=5), TOKENIZER)
    assert together == [outcome for one in smiles for outcome in curate([one], Filters(max_tokens=5), TOKENIZER)]
    assert [isinstance(outcome, Molecule) for outcome in together] == [True, False, False, False, False, False, True]
    assert curate([], Filters(), TOKENIZER) == []


def test_rdkit_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    curate(["C1CC", "xyz"], Filters(), TOKENIZER)
    assert capfd.readouterr() == ("", "")


def test_a_limit_is_inclusive_and_infinity_turns_it_off() -> None:
    ethanol = Chem.MolFromSmiles("CCO")
    weight, logp = Descriptors.MolWt(ethanol), Crippen.MolLogP(ethanol)

    def is_kept(smiles: str, **limits: float) -> bool:
        return isinstance(curate([smiles], Filters(**limits), TOKENIZER)[0], Molecule)  # type: ignore[arg-type]

    assert is_kept("CCO", max_molecular_weight=weight, max_logp=logp, max_tokens=3)
    assert not is_kept("CCO", max_molecular_weight=weight - 0.01)
    assert not is_kept("CCO", max_logp=logp - 0.01)
    assert is_kept("C" * 60, max_molecular_weight=math.inf, max_logp=math.inf)


@pytest.mark.parametrize("setting", [{"max_molecular_weight": 0.0}, {"max_logp": math.nan}, {"max_tokens": 0}])
def test_impossible_filters(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Filters(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(("valid", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (math.nan, 0.1)])
def test_impossible_fractions(valid: float, test: float) -> None:
    with pytest.raises(ConfigError, match="valid_fraction and test_fraction"):
        Fractions(valid=valid, test=test)


def test_the_split_of_a_molecule_never_changes() -> None:
    """Kept from the first release: a change would put test molecules of older prepared data into training."""
    fractions = Fractions(valid=0.3, test=0.3)
    splits = [fractions.split_of(kept("C" * length).digest) for length in range(1, 9)]
    assert splits == ["valid", "valid", "train", "valid", "train", "valid", "train", "test"]


def test_each_split_gets_its_fraction_and_growing_one_leaves_the_other_alone() -> None:
    digests = [hashlib.blake2b(str(i).encode()).digest() for i in range(20_000)]
    splits = [Fractions(valid=0.1, test=0.2).split_of(digest) for digest in digests]
    assert splits.count("valid") / len(splits) == pytest.approx(0.1, abs=0.01)
    assert splits.count("test") / len(splits) == pytest.approx(0.2, abs=0.01)
    more = [Fractions(valid=0.3, test=0.2).split_of(digest) for digest in digests]
    assert {(old, new) for old, new in zip(splits, more) if old != new} == {("train", "valid")}
    assert {Fractions(valid=0, test=0).split_of(digest) for digest in digests} == {"train"}
