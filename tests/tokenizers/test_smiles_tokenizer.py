"""The tokenizer: it is lossless, its fast path equals its slow path, and unknown tokens raise."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import itertools
import pickle
import random
import re
from pathlib import Path

import numpy as np
import pytest

from nemo_cmim.errors import ConfigError, DataError, InvalidShapeError, InvalidSmilesError, UnknownTokenError
from nemo_cmim.tokenizers import SmilesTokenizer, Vocabulary, shipped_vocabulary

MEGAMOLBART_REGEX = r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\\\|\/|:|~|@|\?|>|\*|\$|\%[0-9]{2}|[0-9]"
ASCII_PARTS = [*"CNOcnos()=#-+/\\.:%123[]@Hrl \n\r\t\0?^&<>$~*", "Br", "Cl", "[C@H]", "[nH]", "%12", "%(123)", "[Xx]"]
PARTS = [*ASCII_PARTS, *"é∞\x85\ue000Ā😀\ud800"]
KNOWN_PARTS = [*"CNOcn()=#123/\\", "Br", "Cl", "[nH]", "%12"]


@pytest.fixture
def tokenizer() -> SmilesTokenizer:
    return SmilesTokenizer()


@pytest.fixture(scope="module", params=["sample", "development data"])
def smiles_sets(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    """Real SMILES by source: the sample, and where they are, the first columns of the development data without header rows."""
    if request.param == "sample":
        return {name: list(request.getfixturevalue(name)) for name in ("real_smiles", "rejected_smiles")}
    shared_data = request.getfixturevalue("shared_data")
    sets = {"hard": shared_data / "tokenizer_hard.smi", "unparseable": shared_data / "tokenizer_unparseable.smi"}
    smiles = {name: [line.split("\t")[0] for line in path.read_text().splitlines()[1:]] for name, path in sets.items()}
    for path in sorted((shared_data / "moleculenet").glob("*.csv")):
        with path.open(newline="") as file:
            smiles[path.stem] = [row["smiles"] for row in csv.DictReader(file)]
    for path in sorted((shared_data / "zinc").glob("zinc*/*.smi.gz")):
        with gzip.open(path, "rt") as file:
            smiles[f"{path.parent.name}/{path.name}"] = [line.split()[0] for line in file][1:5_001]
    for path in sorted((shared_data / "zinc" / "tranche_samples").glob("*.smi")):
        smiles[path.stem] = [line.split(" ")[0] for line in path.read_text().splitlines()[1:]]
    return smiles


def naive_split(smiles: str) -> list[str]:
    """The rules of the tokenizer, character by character."""
    tokens = []
    i = 0
    while i < len(smiles):
        end = i + 1
        if smiles[i] == "[":
            stop = end
            while stop < len(smiles) and smiles[stop] not in "[]\n":
                stop += 1
            if stop < len(smiles) and smiles[stop] == "]" and stop > end:
                end = stop + 1
        elif smiles[i : i + 2] in ("Br", "Cl"):
            end = i + 2
        elif smiles[i] == "%":
            stop = i + 2
            while stop < len(smiles) and smiles[stop] in "0123456789":
                stop += 1
            if smiles[i + 1 : i + 2] == "(":
                if stop > i + 2 and smiles[stop : stop + 1] == ")":
                    end = stop + 1
            elif len(smiles) >= i + 3 and all(c in "0123456789" for c in smiles[i + 1 : i + 3]):
                end = i + 3
        tokens.append(smiles[i:end])
        i = end
    return tokens


def random_strings(count: int, seed: int, parts: list[str]) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(parts, k=draw.randint(1, 30))) for _ in range(count)]


def rows_of(flat: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
    return [flat[a:b].tolist() for a, b in itertools.pairwise(offsets)]


@pytest.mark.parametrize(
    ("smiles", "tokens"),
    [
        (r"F/C=C\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        ("BrCCl", ["Br", "C", "Cl"]),
        ("B[Br-]rB(C)lC", ["B", "[Br-]", "r", "B", "(", "C", ")", "l", "C"]),
        ("C%12C%(123)C%1", ["C", "%12", "C", "%(123)", "C", "%", "1"]),
        ("C%123", ["C", "%12", "3"]),
        ("%()%(1%\u0661\u0662", ["%", "(", ")", "%", "(", "1", "%", "\u0661", "\u0662"]),
        ("[13C@@H](N)[nH]", ["[13C@@H]", "(", "N", ")", "[nH]"]),
        ("[[C]][]]C[N", ["[", "[C]", "]", "[", "]", "]", "C", "[", "N"]),
        ("[C\nC]", ["[", "C", "\n", "C", "]"]),
        ("[Na+].[Cl-]", ["[Na+]", ".", "[Cl-]"]),
        ("C->[Pt]~*$C#N", ["C", "-", ">", "[Pt]", "~", "*", "$", "C", "#", "N"]),
        ("", []),
    ],
)
def test_tokens(tokenizer: SmilesTokenizer, smiles: str, tokens: list[str]) -> None:
    assert tokenizer.tokenize(smiles) == tokens == naive_split(smiles)


def test_tokenize_is_lossless_and_follows_the_rules_on_any_string(tokenizer: SmilesTokenizer) -> None:
    strings = random_strings(20_000, seed=0, parts=PARTS)
    draw = random.Random(1)
    strings += ["".join(chr(draw.randrange(0x11_0000)) for _ in range(draw.randrange(20))) for _ in range(2_000)]
    for string in strings:
        tokens = tokenizer.tokenize(string)
        assert "".join(tokens) == string
        assert tokens == naive_split(string)


def test_long_invalid_strings_take_linear_time(tokenizer: SmilesTokenizer) -> None:
    for text in ("[" * 200_000, "%(" * 200_000, "[a" * 200_000, "%(1" * 200_000):
        assert "".join(tokenizer.tokenize(text)) == text


def test_lossless_on_real_smiles(tokenizer: SmilesTokenizer, smiles_sets: dict[str, list[str]]) -> None:
    assert {"real_smiles", "rejected_smiles"} == smiles_sets.keys() or (len(smiles_sets) > 10 and len(smiles_sets["hard"]) == 500)
    for name, smiles in smiles_sets.items():
        for s in smiles:
            assert "".join(tokenizer.tokenize(s)) == s, (name, s)


def test_same_tokens_as_nemo_on_real_smiles(tokenizer: SmilesTokenizer, smiles_sets: dict[str, list[str]]) -> None:
    nemo = re.compile(f"({MEGAMOLBART_REGEX}|.)")  # as NeMo's RegExTokenizer compiles it
    for name, smiles in smiles_sets.items():
        for s in smiles:
            assert tokenizer.tokenize(s) == nemo.findall(s), (name, s)


def test_real_molecules_are_covered(tokenizer: SmilesTokenizer, smiles_sets: dict[str, list[str]]) -> None:
    covered = {}
    for name, smiles in smiles_sets.items():
        known = [set(tokenizer.tokenize(s)) <= set(tokenizer.vocabulary.tokens) for s in smiles]
        covered[name] = sum(known) / len(known)
    for name in ("esol", "freesolv", "lipophilicity", "zinc15/train_200k.smi.gz", "zinc250k/valid.smi.gz"):
        assert covered.get(name, 1.0) == 1.0, name
    assert covered.get("hard", 1.0) > 0.8 and covered.get("real_smiles", 1.0) > 0.98


def test_encode_batch_equals_encode_on_real_smiles(tokenizer: SmilesTokenizer, smiles_sets: dict[str, list[str]]) -> None:
    for name, smiles in smiles_sets.items():
        flat, offsets = tokenizer.encode_batch(smiles, on_unknown="unk")
        assert flat.dtype == np.int32 and offsets.dtype == np.int64 and offsets.shape == (len(smiles) + 1,)
        assert rows_of(flat, offsets) == [tokenizer.encode(s, on_unknown="unk") for s in smiles], name
        for s, ids in list(zip(smiles, rows_of(flat, offsets), strict=True))[:1_000]:
            assert tokenizer.unk_id in ids or tokenizer.decode(ids) == s


@pytest.mark.parametrize("parts", [PARTS, ASCII_PARTS, KNOWN_PARTS])
def test_encode_batch_equals_encode_on_any_string(parts: list[str]) -> None:
    strings = random_strings(3_000, seed=2, parts=parts)
    fast, slow = SmilesTokenizer(), SmilesTokenizer()
    flat, offsets = fast.encode_batch(strings, on_unknown="unk")
    assert rows_of(flat, offsets) == [slow.encode(s, on_unknown="unk") for s in strings]
    assert fast.unknown_counts == slow.unknown_counts
    for s, tokens in ((s, naive_split(s)) for s in strings[:300]):
        assert slow.encode(s, on_unknown="unk") == [slow.vocab.get(t, slow.unk_id) for t in tokens]


def test_round_trip_of_every_chemical_token(tokenizer: SmilesTokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    ids = np.flatnonzero(vocabulary.is_chemical)
    tokens = [vocabulary.tokens[i] for i in ids]
    flat, offsets = tokenizer.encode_batch(tokens)
    np.testing.assert_array_equal(flat, ids)
    np.testing.assert_array_equal(offsets, np.arange(len(ids) + 1))
    assert [tokenizer.encode(token) for token in tokens] == ids[:, None].tolist()
    for known in (tokens, ["ClCBr", "[Cl-]"]):
        assert tokenizer._encode_joined(known) is not None, "known tokens use the fast path"
    assert [tokenizer.decode([i]) for i in ids] == tokens


def test_encode_batch_accepts_any_sequence_of_text(tokenizer: SmilesTokenizer) -> None:
    import pandas as pd

    smiles = ["CCO", "c1ccccc1Br", "[Na+].[Cl-]"]
    expected = [tokenizer.encode(s) for s in smiles]
    for kind in (tuple(smiles), np.array(smiles), np.array(smiles, dtype=object), pd.Series(smiles, index=[7, 8, 9])):
        assert rows_of(*tokenizer.encode_batch(kind)) == expected
    flat, offsets = tokenizer.encode_batch([])
    assert flat.shape == (0,) and offsets.tolist() == [0]


def test_row_order_is_kept_across_chunks(tokenizer: SmilesTokenizer) -> None:
    smiles = [("C" * (i % 17 + 1)) + "[nH]" for i in range(5_000)]
    smiles[3_000] = "C[Xx]"
    _, offsets = tokenizer.encode_batch(smiles, on_unknown="unk")
    assert np.diff(offsets).tolist() == [2 if i == 3_000 else i % 17 + 2 for i in range(5_000)]
    with pytest.raises(UnknownTokenError, match="index 3000"):
        tokenizer.encode_batch(smiles)


def test_unknown_token_is_reported_with_position_and_hint(tokenizer: SmilesTokenizer) -> None:
    with pytest.raises(UnknownTokenError) as caught:
        tokenizer.encode("CBr[Xx]C")
    for part in ("'[Xx]'", "character 3", "'CBr[Xx]C'", 'on_unknown="unk"', "<UNK>"):
        assert part in str(caught.value)
    with pytest.raises(UnknownTokenError, match=r"index 1 \('C\[Xx\]'\)"):
        tokenizer.encode_batch(["CC", "C[Xx]"])


def test_unknown_tokens_are_counted(tokenizer: SmilesTokenizer) -> None:
    c, unk = tokenizer.vocabulary.id_of("C"), tokenizer.unk_id
    assert tokenizer.encode("C[Xx]C", on_unknown="unk") == [c, unk, c]
    tokenizer.encode_batch(["C[Xx][13CH]", "é", "C"], on_unknown="unk")
    assert tokenizer.unknown_counts == {"[Xx]": 2, "é": 1}


@pytest.mark.parametrize("text", ["<EOS>", "<PAD>", "C<MASK>"])
def test_names_of_special_tokens_in_text_are_not_special(tokenizer: SmilesTokenizer, text: str) -> None:
    special = set(tokenizer.vocabulary.special_ids.values()) - {tokenizer.unk_id}
    assert not special & set(tokenizer.encode(text, on_unknown="unk"))


def test_special_letters_of_a_another_vocabulary_are_unknown_in_text(tmp_path: Path) -> None:
    tokens = ["<PAD>", "?", "^", "&", "<MASK>", "<SEP>", *r"CFN=/\()"]
    (tmp_path / "nemo.vocab").write_text("\n".join([*tokens, ""]))
    tokenizer = SmilesTokenizer(Vocabulary.from_nemo(tmp_path / "nemo.vocab"))
    for letter in "?^&":
        with pytest.raises(UnknownTokenError, match=re.escape(repr(letter))):
            tokenizer.encode_batch([f"C{letter}C"])
    ids = tokenizer.encode(r"F/C=C\F")
    assert ids == [tokenizer.vocabulary.id_of(token) for token in r"F/C=C\F"] and min(ids) >= 6


@pytest.mark.parametrize(("row", "message"), [(None, "None"), (3.5, "float"), (b"CC", "bytes"), ("", "empty"), (["CC"], "list")])
def test_values_that_are_not_smiles_raise(tokenizer: SmilesTokenizer, row: object, message: str) -> None:
    with pytest.raises(InvalidSmilesError, match=message):
        tokenizer.encode(row)  # type: ignore[arg-type]
    for on_unknown in ("raise", "unk"):
        with pytest.raises(InvalidSmilesError, match=f"index 2 .*{message}"):
            tokenizer.encode_batch(["C", "CC", row], on_unknown=on_unknown)  # type: ignore[list-item]


def test_line_breaks_do_not_shift_rows(tokenizer: SmilesTokenizer) -> None:
    with pytest.raises(UnknownTokenError, match=r"index 0 .*'\\n'"):
        tokenizer.encode_batch(["C\nC", "O"])
    with pytest.raises(InvalidSmilesError, match="index 1"):
        tokenizer.encode_batch(["C\nC", "", "O"], on_unknown="unk")


def test_one_text_is_not_a_batch(tokenizer: SmilesTokenizer) -> None:
    with pytest.raises(InvalidSmilesError, match=r"\[smiles\]"):
        tokenizer.encode_batch("CCO")


def test_on_unknown_is_checked(tokenizer: SmilesTokenizer) -> None:
    for call in (tokenizer.encode, tokenizer.encode_batch):
        with pytest.raises(ConfigError, match="'ignore'"):
            call("C", on_unknown="ignore")


def test_decode_stops_at_eos_and_skips_bos_and_pad(tokenizer: SmilesTokenizer) -> None:
    c, o = tokenizer.encode("CO")
    t = tokenizer
    assert t.decode([t.bos_id, t.pad_id, c, o, t.eos_id, c, t.pad_id]) == "CO"
    assert t.decode(np.array([c, t.unk_id, o])) == "C<UNK>O"
    assert t.decode([]) == t.decode([t.eos_id, c]) == ""
    with pytest.raises(UnknownTokenError, match="523 at position 1"):
        t.decode([c, 523])
    with pytest.raises(InvalidShapeError):
        t.decode([[c]])


def test_decode_accepts_tensors(tokenizer: SmilesTokenizer) -> None:
    torch = pytest.importorskip("torch")
    assert tokenizer.decode(torch.tensor(tokenizer.encode("CC(=O)O"))) == "CC(=O)O"


def test_save_and_load(tokenizer: SmilesTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new" / "folder")
    loaded = SmilesTokenizer.load(tmp_path / "new" / "folder")
    assert loaded.vocabulary == shipped_vocabulary()
    assert loaded.encode("[nH]1cccc1Br") == tokenizer.encode("[nH]1cccc1Br")
    with pytest.raises(DataError, match=r"vocabulary\.txt"):
        SmilesTokenizer.load(tmp_path)


def test_unpickled_tokenizer_encodes(tokenizer: SmilesTokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert rows_of(*copy.encode_batch(["C[nH]Cl"])) == [tokenizer.encode("C[nH]Cl")]


def test_oversized_vocabulary_raises() -> None:
    with pytest.raises(DataError, match="50001"):
        SmilesTokenizer(Vocabulary(tuple(f"[{i}C]" for i in range(50_001))))


def test_has_the_methods_of_nemo_tokenizer_spec(tokenizer: SmilesTokenizer) -> None:
    nemo = importlib.util.find_spec("nemo")
    if nemo is None or not nemo.submodule_search_locations:
        pytest.skip("nemo_toolkit is not installed")
    path = Path(nemo.submodule_search_locations[0]) / "collections" / "common" / "tokenizers" / "tokenizer_spec.py"
    # The file alone, since the whole package takes long to import.
    spec = importlib.util.spec_from_file_location("nemo_tokenizer_spec", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = {name for name in vars(module.TokenizerSpec) if not name.startswith("_")}
    assert module.TokenizerSpec.__abstractmethods__ <= names
    not_supported = {
        "cls",
        "add_special_tokens",
        "apply_chat_template",
    }  # methods of the spec that raise: no class token, no template
    assert not_supported < names
    for name in names - not_supported:
        assert hasattr(tokenizer, name), name


def test_nemo_methods(tokenizer: SmilesTokenizer) -> None:
    t = tokenizer
    smiles = r"F/C=C\[C@@H](Cl)%12"
    tokens, ids = t.text_to_tokens(smiles), t.text_to_ids(smiles)
    assert ids == t.encode(smiles) and t.tokens_to_ids(tokens) == ids and t.ids_to_tokens(ids) == tokens
    assert t.ids_to_text(ids) == t.tokens_to_text(tokens) == smiles
    assert t.tokens_to_ids(["<BOS>", "C", "<EOS>"]) == [t.bos_id, t.token_to_id("C"), t.eos_id]
    assert t.tokens_to_text(["<BOS>", "C", "<EOS>", "O"]) == "C"
    assert (t.pad, t.unk, t.bos, t.eos, t.mask, t.sep, t.eod) == (0, 1, 2, 3, 4, 5, 3)
    assert (t.pad_id, t.unk_id, t.bos_id, t.eos_id, t.mask_id, t.sep_id) == (0, 1, 2, 3, 4, 5)
    assert t.vocab_size == 523 and all(t.inv_vocab[i] == token for token, i in t.vocab.items())
    assert t.unique_identifiers["vocabulary"] == t.vocabulary.fingerprint and t.name == "SmilesTokenizer"
    with pytest.raises(UnknownTokenError):
        t.tokens_to_ids(["[Xx]"])
    with pytest.raises(UnknownTokenError):
        t.ids_to_tokens([-1])
