"""Why a molecule cannot be used: RDKit's reasons, extras of a cell, missing values, queries."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, rdBase

from nemo_cmim.errors import InvalidSmilesError
from nemo_cmim.molecules import canonical_or_none, canonical_smiles, is_valid, parse, quiet_rdkit

REASONS = [
    ("C(C)(C)(C)(C)C", "Explicit valence for atom # 0 C, 5, is greater than permitted"),
    ("CN(C)(C)C", "Explicit valence for atom # 1 N, 4, is greater than permitted"),
    ("c1cccc1", "Can't kekulize mol. Unkekulized atoms: 0 1 2 3 4"),
    ("c1ccncc1n(C)C", "non-ring atom 6 marked aromatic"),
    ("C1CC", "unclosed ring"),
    ("C12CC12", "ring closure 2 duplicates bond between atom 0 and atom 2"),
    ("CC)", "extra close parentheses, check for mistakes around position 3 (')'), counted from 1"),
    ("O=C1C=CC(=N1", "extra open parentheses, check for mistakes around position 9 ('('), counted from 1"),
    ("CCC(=O)Q", "syntax error, check for mistakes around position 8 ('Q'), counted from 1"),
    ("[13", "syntax error, check for mistakes around position 3 ('3'), counted from 1"),
    ("[C@TH3](F)(Cl)(Br)I", "Invalid chiral specification on atom 0"),
    ("C" * 300 + "=", "syntax error, check for mistakes around position 301 ('='), counted from 1"),
]


@pytest.mark.parametrize(("smiles", "reason"), REASONS)
def test_the_reason_is_rdkits(smiles: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidSmilesError) as caught:
        parse(smiles, name="SMILES at index 3")
    shown = repr(smiles) if len(smiles) < 100 else f"'{'C' * 196}..."
    assert str(caught.value) == f"SMILES at index 3 ({shown}) could not be parsed: {reason}"
    assert not is_valid(smiles) and canonical_or_none(smiles) is None
    assert capfd.readouterr() == ("", "")


def test_text_whose_canonical_form_rdkit_cannot_read_has_none() -> None:
    assert is_valid("OC1CC=c2ccc(=o2)CC1")  # the oxygen has three bonds
    assert canonical_or_none("OC1CC=c2ccc(=o2)CC1") is None


def test_the_reason_is_known_in_a_loop_that_silences_rdkit(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_rdkit():
        for smiles, reason in REASONS:
            with pytest.raises(InvalidSmilesError, match=re.escape(reason)):
                parse(smiles, quiet=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("switched_off", [False, True])
def test_the_callers_setting_of_rdkits_log_is_kept(switched_off: bool, capfd: pytest.CaptureFixture[str]) -> None:
    before = rdBase.LogStatus()
    try:
        if switched_off:
            rdBase.DisableLog("rdApp.error")
        state = rdBase.LogStatus()
        with rdBase.BlockLogs(), pytest.raises(InvalidSmilesError, match="unclosed ring"):
            parse("C1CC")
        with pytest.raises(InvalidSmilesError, match="unclosed ring"):
            parse("C1CC")
        assert rdBase.LogStatus() == state
        assert capfd.readouterr().err == ""
        assert Chem.MolFromSmiles("C1") is None
        assert ("unclosed ring" in capfd.readouterr().err) is not switched_off
    finally:
        rdBase.EnableLog("rdApp.error")
    assert rdBase.LogStatus() == before


def test_threads_get_their_own_reasons() -> None:
    """Others parse at the same time, also without this package."""
    stop = threading.Event()

    def disturb() -> None:
        with rdBase.BlockLogs():
            while not stop.is_set():
                Chem.MolFromSmiles("N1CC(=O)Q")

    def reason(number: int) -> str:
        try:
            parse("C" * (number + 1) + "Q")
        except InvalidSmilesError as error:
            return str(error)
        return ""

    other = threading.Thread(target=disturb)
    other.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(reason, range(200)))
    finally:
        stop.set()
        other.join()
    assert all(f"position {n + 2} ('Q')" in text for n, text in enumerate(found))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "found None (NoneType). It is a missing value"),
        (float("nan"), "found nan (float). It is a missing value"),
        (np.float32("nan"), "(float32). It is a missing value"),
        (pd.NA, "found <NA> (NAType). It is a missing value"),
        (pd.NaT, "found NaT (NaTType). It is a missing value"),
        (1.5, "found 1.5 (float)"),
        (b"CCO", "found b'CCO' (bytes). Convert bytes to text, for example with .decode()"),
        (np.bytes_(b"CCO"), "(bytes_). Convert bytes to text"),
        (["CCO"], "found ['CCO'] (list)"),
        (list(range(1000)), "14, 15, 16, 17, 18, 19, 20, 21..."),
    ],
)
def test_values_that_are_not_text(value: Any, message: str) -> None:
    with pytest.raises(InvalidSmilesError, match=re.escape(message)) as caught:
        parse(value, name="row 7")
    assert str(caught.value).startswith("row 7 must be text, found ") and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("C[C@H](O)F |&1:1|", "a CXSMILES extension ('|&1:1|')"),
        ("CCO |$;;OH$| ethanol", "a CXSMILES extension ('|$;;OH$| ethanol')"),
        ("CCO ethanol", "a name ('ethanol')"),
        ("CCO\t17 beta", "a name ('17 beta')"),
        ("CCO |", "a name ('|')"),
    ],
)
def test_what_follows_a_smiles_in_its_cell_is_named(cell: str, found: str) -> None:
    with pytest.raises(InvalidSmilesError) as caught:
        parse(cell)
    assert str(caught.value).endswith(f'The SMILES is followed by {found}; standardise="extras" removes it')


@pytest.mark.parametrize("cell", [" CCO", "CCO\n", "CCO\nCCN", "CCO\u00a0"])
def test_other_white_space_is_not_taken_for_a_name(cell: str) -> None:
    with pytest.raises(InvalidSmilesError, match="white space") as caught:
        parse(cell)
    assert "extras" not in str(caught.value)


def query_of_a_molecule() -> Chem.Mol:
    return Chem.AdjustQueryProperties(Chem.MolFromSmiles("c1ccccc1C"))


@pytest.mark.parametrize(
    ("mol", "found"),
    [
        (Chem.MolFromSmarts("[C,N]-[!#6]"), "[C,N], [!#6], -"),
        (Chem.MolFromSmarts("CCO"), "C, O"),
        (Chem.MolFromSmarts("*"), "*"),
        (Chem.MolFromSmiles("C~C"), "~"),
        (query_of_a_molecule(), "[#6&D2]"),
    ],
)
def test_queries_are_not_molecules(mol: Chem.Mol, found: str) -> None:
    with pytest.raises(
        InvalidSmilesError, match=r"molecule 4 is a query, .* not one\. Its query atoms and bonds: " + re.escape(found)
    ):
        canonical_smiles(mol, name="molecule 4")


def drawn(smiles: str) -> Chem.Mol:
    return Chem.MolFromMolBlock(Chem.MolToMolBlock(Chem.MolFromSmiles(smiles)))


@pytest.mark.parametrize(
    ("mol", "smiles"),
    [
        (Chem.MolFromSmiles("*CC"), "*CC"),
        (Chem.AddHs(Chem.MolFromSmiles("OCC")), "CCO"),
        (drawn("C[C@H](O)F"), "C[C@H](O)F"),
        (drawn("F/C=C\\Cl"), "F/C=C\\Cl"),
        (drawn("[2H]C"), "[2H]C"),
        (Chem.RWMol(Chem.MolFromSmiles("CCO")), "CCO"),
        (Chem.MolFromSmiles("Oc1ccccc1", sanitize=False), "Oc1ccccc1"),
        (Chem.MolFromSmiles("C->[Fe]"), "[CH4]->[Fe]"),
    ],
)
def test_molecules_are_not_taken_for_queries(mol: Chem.Mol, smiles: str) -> None:
    assert canonical_smiles(mol) == smiles


def test_a_molecule_that_was_not_sanitised_has_rdkits_reason() -> None:
    with pytest.raises(InvalidSmilesError, match="Explicit valence for atom # 1 C, 5"):
        canonical_smiles(Chem.MolFromSmiles("CC(C)(C)(C)C", sanitize=False))
