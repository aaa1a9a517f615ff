"""Vocabularies: their file format, special ids, and vocabularies of other projects."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from nemo_cmim.errors import DataError, InvalidShapeError, UnknownTokenError
from nemo_cmim.tokenizers import Vocabulary, shipped_vocabulary

NEMO_TOKENS = ["<PAD>", "?", "^", "&", "<MASK>", "<SEP>", "LogD_change_(-0.1, 0.1]", "<UNUSED_0>", "C", "(", "\\", "[nH]", "#"]
MEGAMOLBART_REGEX = r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\\\|\/|:|~|@|\?|>|\*|\$|\%[0-9]{2}|[0-9]"
LOSSLESS_REGEX = r"\[[^\]]+]|Br?|Cl?|[A-Za-z]|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\*|\$|%[0-9]{2}|%\([0-9]+\)|[0-9]"


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_shipped_vocabulary_has_523_distinct_tokens_of_which_six_are_special() -> None:
    vocabulary = shipped_vocabulary()
    assert len(vocabulary) == len(set(vocabulary.tokens)) == 523
    assert vocabulary.tokens[:6] == ("<PAD>", "<UNK>", "<BOS>", "<EOS>", "<MASK>", "<SEP>")
    assert vocabulary.special_ids == {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4, "sep": 5}
    np.testing.assert_array_equal(vocabulary.is_chemical, [False] * 6 + [True] * 517)
    assert shipped_vocabulary() is vocabulary


def test_rdkit_parses_every_atom_of_the_shipped_vocabulary() -> None:
    from rdkit import Chem

    atoms = [token for token in shipped_vocabulary().tokens if token.startswith("[")]
    assert len(atoms) > 400
    for atom in atoms:
        mol = Chem.MolFromSmiles(atom, sanitize=False)
        assert mol is not None and mol.GetNumAtoms() == 1, atom


def test_round_trip_is_exact(tmp_path: Path) -> None:
    awkward = ("C", "#", " [C] ", "é", "<PAD>", "a b", "sha256 0", "[Cu+2]")
    vocabulary = Vocabulary(awkward, pad_id=4, unk_id=1, bos_id=2, eos_id=7, mask_id=0, sep_id=5)
    vocabulary.save(tmp_path / "vocabulary.txt")
    loaded = Vocabulary.load(tmp_path / "vocabulary.txt")
    assert loaded == vocabulary and loaded.special_ids == vocabulary.special_ids and loaded.fingerprint == vocabulary.fingerprint
    assert Vocabulary.loads(vocabulary.dumps()) == vocabulary
    (tmp_path / "windows.txt").write_bytes(vocabulary.dumps().replace("\n", "\r\n").encode())
    assert Vocabulary.load(tmp_path / "windows.txt") == vocabulary


def test_fingerprint_depends_on_order_and_special_ids() -> None:
    tokens = tuple("abcdefgh")
    fingerprints = {
        Vocabulary(tokens).fingerprint,
        Vocabulary(tokens[::-1]).fingerprint,
        Vocabulary(tokens, pad_id=1, unk_id=0).fingerprint,
        Vocabulary((*tokens, "i")).fingerprint,
    }
    assert len(fingerprints) == 4 and Vocabulary(tokens).fingerprint in fingerprints


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "not a nemo_cmim vocabulary"),
        (lambda text: text.replace("vocabulary 1", "vocabulary 9"), "not a nemo_cmim vocabulary"),
        (lambda text: "\n".join(text.split("\n")[:2]), "damaged"),
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text[:-5].rsplit("\n", 1)[0] + "\n", "checksum"),
        (lambda text: text.replace("\n[C@H]\n", "\n[C@X]\n"), "checksum"),
        (lambda text: text.replace("pad 0 unk 1", "pad 1 unk 0"), "checksum"),
        (lambda text: text.replace("pad 0", "pad 600"), "special ids"),
        (lambda text: text.replace("pad 0", "pad -1"), "damaged"),
    ],
)
def test_damaged_file_raises(change, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_text(change(shipped_vocabulary().dumps()), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        Vocabulary.load(path)
    assert str(path) in str(caught.value) or message == "special ids"


def test_missing_and_binary_files_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be read"):
        Vocabulary.load(tmp_path / "none.txt")
    with pytest.raises(DataError, match="could not be read"):
        Vocabulary.load(tmp_path)
    (tmp_path / "binary").write_bytes(b"\x80\xff\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        Vocabulary.load(tmp_path / "binary")


@pytest.mark.parametrize(
    ("tokens", "special", "message"),
    [
        ("abcdefa", {}, "contains 'a' twice"),
        ([*"abcdef", ""], {}, "token 6"),
        ([*"abcdef", "a\nb"], {}, "token 6"),
        ([*"abcdef", 7], {}, "token 6"),
        ("abcde", {}, "special ids"),
        ("abcdefg", {"sep_id": 3}, "special ids"),
        ("abcdefg", {"sep_id": -1}, "special ids"),
    ],
)
def test_invalid_vocabulary_raises(tokens, special: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary(tuple(tokens), **special)


def test_id_of() -> None:
    vocabulary = shipped_vocabulary()
    assert [vocabulary.id_of(token) for token in vocabulary.tokens] == list(range(523))
    with pytest.raises(UnknownTokenError, match=re.escape("[Xx]")):
        vocabulary.id_of("[Xx]")


def test_check_ids() -> None:
    vocabulary = shipped_vocabulary()
    assert vocabulary.check_ids(np.array([0, 522], dtype=np.uint16)) == [0, 522] and vocabulary.check_ids([]) == []
    for outside in ([5, 523], [5, -1]):
        with pytest.raises(UnknownTokenError, match="position 1"):
            vocabulary.check_ids(outside)
    for shape in ([[1, 2]], 3, [1.5], ["C"]):
        with pytest.raises(InvalidShapeError, match="integers"):
            vocabulary.check_ids(shape)


def test_nemo_vocabulary_keeps_its_ids_and_marks_chemical_tokens(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_nemo(write_lines(tmp_path / "a.vocab", NEMO_TOKENS))
    assert vocabulary.tokens == tuple(NEMO_TOKENS)
    assert vocabulary.special_ids == {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4, "sep": 5}
    assert vocabulary.is_chemical.tolist() == [False] * 8 + [True] * 5
    assert Vocabulary.loads(vocabulary.dumps()) == vocabulary


def test_special_tokens_of_a_nemo_vocabulary_are_found_by_name(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_nemo(
        write_lines(tmp_path / "a.vocab", ["C", "<EOS>", "<BOS>", "<UNK>", "<PAD>", "<SEP>", "<MASK>"])
    )
    assert vocabulary.special_ids == {"pad": 4, "unk": 3, "bos": 2, "eos": 1, "mask": 6, "sep": 5}


def test_megamolbart_vocabulary(shared_data: Path) -> None:
    vocabulary = Vocabulary.from_nemo(shared_data / "vocab" / "megamolbart_chemformer_523.txt")
    assert len(vocabulary) == 523
    np.testing.assert_array_equal(np.flatnonzero(vocabulary.is_chemical), np.arange(272, 523))


def test_file_of_nemo_save_tokenizer_raises(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.vocab", [token[0] for token in NEMO_TOKENS])
    with pytest.raises(DataError, match="only the first letter"):
        Vocabulary.from_nemo(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has no pad token"),
        ([token for token in NEMO_TOKENS if token != "&"], r"has no eos token: none of the 12 lines is & or <EOS>"),
        ([*NEMO_TOKENS, "[nH]"], "twice"),
        (shipped_vocabulary().dumps().split("\n"), r"Vocabulary\.load"),
    ],
)
def test_invalid_nemo_vocabulary_raises(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary.from_nemo(write_lines(tmp_path / "a.vocab", lines))


def test_expression_that_loses_a_backslash_warns(tmp_path: Path) -> None:
    vocab = write_lines(tmp_path / "a.vocab", NEMO_TOKENS)
    with pytest.warns(UserWarning, match=r"F/C=C") as caught:
        vocabulary = Vocabulary.from_nemo(vocab, write_lines(tmp_path / "a.model", [MEGAMOLBART_REGEX]))
    assert len(caught) == 1 and vocabulary.tokens == tuple(NEMO_TOKENS)


def test_expression_that_splits_equally_does_not_warn(tmp_path: Path) -> None:
    vocab = write_lines(tmp_path / "a.vocab", NEMO_TOKENS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vocabulary = Vocabulary.from_nemo(vocab, write_lines(tmp_path / "a.model", [LOSSLESS_REGEX]))
    assert vocabulary.tokens == tuple(NEMO_TOKENS)


def test_invalid_expression_raises(tmp_path: Path) -> None:
    vocab = write_lines(tmp_path / "a.vocab", NEMO_TOKENS)
    with pytest.raises(DataError, match="regular expression"):
        Vocabulary.from_nemo(vocab, write_lines(tmp_path / "a.model", ["[("]))
    with pytest.raises(DataError, match="could not be read"):
        Vocabulary.from_nemo(vocab, tmp_path / "none.model")
