"""The grammar of SMILES: what it accepts, what it never writes."""

from __future__ import annotations

import pytest
import torch

from nemo_cmim.generation import DecodingSettings, decode
from nemo_cmim.generation.grammar import SmilesGrammar
from nemo_cmim.molecules import canonical_smiles, randomized_smiles
from nemo_cmim.tokenizers import SmilesTokenizer, Vocabulary
from nemo_cmim.tokenizers.pattern import split
from tests.generation.networks import VOCABULARY, latents, network

SHIPPED = SmilesTokenizer().vocabulary


def is_accepted(smiles: str, vocabulary: Vocabulary = SHIPPED) -> bool:
    grammar = SmilesGrammar(vocabulary, len(vocabulary))
    state = grammar.start(1)
    for token in [*split(smiles), vocabulary.tokens[vocabulary.eos_id]]:
        identity = vocabulary.id_of(token)
        if not state.is_allowed()[0, identity]:
            return False
        state.append(torch.tensor([identity]))
    return True


def test_all_real_molecules_are_accepted(real_smiles: tuple[str, ...]) -> None:
    checked = 0
    for number, smiles in enumerate(real_smiles[::5]):
        for text in (smiles, canonical_smiles(smiles), *randomized_smiles(smiles, 1, number)):
            if set(split(text)) <= set(SHIPPED.tokens) and "->" not in text and "<-" not in text:
                checked += 1
                assert is_accepted(text), text
    assert checked > 1000


@pytest.mark.parametrize(
    "smiles",
    ["", "C(", "C)", "(C)C", "C()C", "C1CC", "C11", "C1CC1)", "CC=", "=C", "C==C", "C(C", "C.", ".C", "C..C", "C(C.C)C", "1CC1", "C(C)1CC1",
     "C=(O)C", "C12CC1", "C(=)C", "C((C))C"],
)  # fmt: skip
def test_what_is_not_a_smiles(smiles: str) -> None:
    assert not is_accepted(smiles)


@pytest.mark.parametrize(
    "smiles", ["C1CC=1", "C%12CC%12", "C1CC%(1)", "C1CCC1C1CC1", "C12CC1C2", "N#N.[Na+]", "C/C=C\\C", "c1ccccc1", "C(C)(C)C"]
)
def test_what_is_a_smiles(smiles: str) -> None:
    vocabulary = Vocabulary((*VOCABULARY.tokens, "[Na+]", "\\", "%(1)"))
    assert is_accepted(smiles, vocabulary)


def is_balanced(text: str) -> bool:
    """Branches and rings by counting, for a check that does not use the grammar."""
    depth, rings = 0, set()
    for token in split(text):
        depth += (token == "(") - (token == ")")
        if depth < 0:
            return False
        if token[0] in "%123456789":
            rings ^= {int(token.strip("%()"))}
    return depth == 0 and not rings


@pytest.mark.parametrize("settings", [{}, {"beam_size": 4, "n_best": 4}, {"temperature": 1.0, "n_best": 30, "seed": 0}])
def test_finished_sequences_are_balanced(settings: dict[str, float]) -> None:
    net = network(end=3.0)
    tokenizer = SmilesTokenizer(VOCABULARY)

    def texts(grammar: bool) -> list[str]:
        found = decode(net, VOCABULARY, latents(8, net), settings=DecodingSettings(grammar=grammar, max_tokens=40, **settings))  # type: ignore[arg-type]
        rows = found.ids_BNT.flatten(0, 1)
        return [tokenizer.decode(row) for row in rows[(rows == VOCABULARY.eos_id).any(1)].tolist()]

    finished = texts(True)
    assert finished and all(text and is_balanced(text) and "<" not in text for text in finished)
    if "temperature" in settings:
        assert not all(map(is_balanced, texts(False))), "a random network does not balance by itself"
