from __future__ import annotations

import math

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors

from nemo_cmim.errors import ConfigError
from nemo_cmim.prepare.curate import Curated, curate
from nemo_cmim.prepare.settings import Rules
from nemo_cmim.tokenizers import SmilesTokenizer

TOKENIZER = SmilesTokenizer()
PALMITATE = "CCCCCCCCCCCCCCCC(=O)O"  # logP 5.55


def kept(smiles: str) -> Curated:
    curated = curate([smiles], Rules(max_logp=math.inf), TOKENIZER)
    assert len(curated.kept) == 1
    return curated


def outcomes(curated: Curated, molecules: int) -> list[object]:
    """Tokens of the molecule at each index, or the reason why it is rejected."""
    found: dict[int, object] = dict(curated.rejected)
    rows = np.split(curated.tokens, np.cumsum(curated.lengths)[:-1]) if len(curated.kept) else []
    found |= {
        index: (TOKENIZER.decode(row), tuple(digest)) for index, row, digest in zip(curated.kept.tolist(), rows, curated.digests)
    }
    return [found[index] for index in range(molecules)]


def test_a_kept_molecule_has_the_tokens_of_its_canonical_smiles() -> None:
    assert TOKENIZER.decode(kept("C(O)C").tokens) == "CCO"


def test_every_smiles_of_a_molecule_gives_the_same_digest(made_up_smiles: list[str]) -> None:
    for smiles in made_up_smiles[::100]:
        randomized = {Chem.MolToSmiles(Chem.MolFromSmiles(smiles), doRandom=True) for _ in range(9)}
        assert len(randomized) > 1
        assert len({kept(one).digests.tobytes() for one in randomized}) == 1


def test_stereo_isomers_are_different_molecules() -> None:
    assert len({kept(smiles).digests.tobytes() for smiles in (r"F/C=C/F", r"F/C=C\F", "FC=CF")}) == 3


def test_the_digest_never_changes() -> None:
    """Recorded from the first release: a change would move test molecules of older prepared data into training."""
    highs = [int(kept("C" * length).digests[0, 0]) / 2**64 for length in range(1, 9)]
    splits = ["test" if high < 0.3 else "valid" if high >= 0.7 else "train" for high in highs]
    assert splits == ["valid", "valid", "train", "valid", "train", "valid", "train", "test"]


@pytest.mark.parametrize(
    ("smiles", "rules", "expected"),
    [
        ("C1CC", Rules(), "not a molecule to RDKit: unclosed ring"),
        ("smiles", Rules(), "not a molecule to RDKit: syntax error, check for mistakes around position 2 ('m'), counted from 1"),
        ("CC\0O", Rules(), "forbidden character: U+0000 (an unnamed character) at index 2, counted from 0"),
        (
            "CCO |$_AV:a$|",
            Rules(),
            "forbidden character: U+0020 (SPACE) at index 3, counted from 0. The SMILES is followed by a CXSMILES extension "
            "('|$_AV:a$|'); --standardise extras removes it",
        ),
        ("CCO |$_AV:a$|", Rules(extras=True, max_tokens=2), "more than 2 tokens: 3"),
        ("C(C)(C)(C)(C)C", Rules(), "not a molecule to RDKit: Explicit valence for atom # 0 C, 5, is greater than permitted"),
        ("[CH3:1][OH:2]", Rules(), "atom maps: [CH3:1]. --standardise atom-maps removes them"),
        ("[CH3:1][OH:2]", Rules(atom_maps=True, max_tokens=1), "more than 1 tokens: 2"),
        ("C" * 36, Rules(), "molecular weight above 500: 506.99"),
        (PALMITATE, Rules(), "logP above 5: 5.552"),
        ("CCCCO", Rules(max_tokens=4), "more than 4 tokens: 5"),
        ("[Og].[Og+2]O[Og]", Rules(max_molecular_weight=math.inf), "unknown token: [Og] [Og+2]"),
    ],
)
def test_rejections_say_why(smiles: str, rules: Rules, expected: str) -> None:
    curated = curate([smiles], rules, TOKENIZER)
    assert {index: str(rejection) for index, rejection in curated.rejected.items()} == {0: expected}
    assert not len(curated.kept) and not len(curated.tokens)


def test_the_outcome_of_a_molecule_does_not_depend_on_its_neighbours() -> None:
    smiles = ["CCO", "C1CC", "CC[Og]", "c1ccccc1", "C" * 36, "CCCCCO", "CCO"]
    rules = Rules(max_tokens=5)
    together = outcomes(curate(smiles, rules, TOKENIZER), len(smiles))
    assert together == [outcome for one in smiles for outcome in outcomes(curate([one], rules, TOKENIZER), 1)]
    assert curate(smiles, rules, TOKENIZER).kept.tolist() == [0, 6]
    assert outcomes(curate([], rules, TOKENIZER), 0) == []


def test_rdkit_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    curate(["C1CC", "xyz"], Rules(), TOKENIZER)
    curate(["CC(=O)[O-].[Na+]"], Rules(desalt=True, neutralise=True), TOKENIZER)
    assert capfd.readouterr() == ("", "")


def test_a_limit_is_inclusive_and_infinity_turns_it_off() -> None:
    ethanol = Chem.MolFromSmiles("CCO")
    weight, logp = Descriptors.MolWt(ethanol), Crippen.MolLogP(ethanol)

    def is_kept(smiles: str, **limits: float) -> bool:
        return len(curate([smiles], Rules(**limits), TOKENIZER).kept) == 1  # type: ignore[arg-type]

    assert is_kept("CCO", max_molecular_weight=weight, max_logp=logp, max_tokens=3)
    assert not is_kept("CCO", max_molecular_weight=weight - 0.01)
    assert not is_kept("CCO", max_logp=logp - 0.01)
    assert is_kept("C" * 60, max_molecular_weight=math.inf, max_logp=math.inf)


def test_limits_apply_to_the_molecule_after_desalting() -> None:
    salt = "CCO." + "C" * 36
    assert str(curate([salt], Rules(max_logp=math.inf), TOKENIZER).rejected[0]).startswith("molecular weight above 500")
    heavy_counter_ion = "OCC(O)C(O)C(O)CO.[I-].[I-].[I-]"
    assert len(curate([heavy_counter_ion], Rules(desalt=True), TOKENIZER).kept) == 1
    assert not len(curate([heavy_counter_ion], Rules(), TOKENIZER).kept)


def test_known_logp_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_cmim.molecules.logp", lambda mol: pytest.fail("logP was computed"))
    assert len(curate([PALMITATE], Rules(), TOKENIZER, logp_is_known=True).kept) == 1


@pytest.mark.parametrize("setting", [{"max_molecular_weight": 0.0}, {"max_logp": math.nan}, {"max_tokens": 0}])
def test_impossible_rules(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Rules(**setting)  # type: ignore[arg-type]


def test_a_query_is_rejected() -> None:
    assert [one.reason for one in curate(["C~C", "C"], Rules(), TOKENIZER).rejected.values()] == [
        "a query, which stands for many molecules"
    ]
