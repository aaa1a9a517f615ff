"""Numbers of molecules: weight, logP, RDKit descriptors, fingerprints; and scaffolds."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rdkit import Chem

from ..errors import ConfigError
from .parsing import Mol, parse, quiet_rdkit, shorten, to_canonical_smiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Properties",
    "check_properties",
    "descriptors",
    "descriptors_reason",
    "logp",
    "molecular_weight",
    "morgan_fingerprints",
    "murcko_scaffold",
    "observed_properties",
    "properties",
]


MAX_DESCRIPTOR_ATOMS = 200
"""Heavy atoms of the largest molecule whose descriptors are computed in a usual time: 0.5 s. For 300 they take 2 s, for 600 48 s."""


class Properties(NamedTuple):
    """Properties that define the tranches of ZINC.

    Attributes:
        molecular_weight: average molecular weight, Da.
        logp: Crippen's octanol-water partition coefficient, log10.
    """

    molecular_weight: float
    logp: float


def molecular_weight(mol: Mol) -> float:
    """Average molecular weight, Da; 100 times faster than `logp`."""
    return _descriptors().MolWt(mol)


@functools.cache  # an import inside a function takes as long as the weight
def _descriptors() -> Any:
    from rdkit.Chem import Descriptors

    return Descriptors


def logp(mol: Mol) -> float:
    """Crippen's octanol-water partition coefficient, log10; slower than parsing and canonicalising together."""
    from rdkit.Chem.rdMolDescriptors import CalcCrippenDescriptors

    return CalcCrippenDescriptors(mol)[0]


def properties(mol: Mol) -> Properties:
    """Molecular weight and Crippen logP."""
    return Properties(molecular_weight(mol), logp(mol))


def murcko_scaffold(smiles: str) -> str:
    """Canonical SMILES of the Bemis-Murcko scaffold, without stereo; empty for a molecule without rings."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    scaffold: str = MurckoScaffold.MurckoScaffoldSmiles(mol=parse(smiles), includeChirality=False)
    with quiet_rdkit():
        mol = Chem.MolFromSmiles(scaffold)
        return scaffold if mol is None else to_canonical_smiles(mol, scaffold)


def morgan_fingerprints(smiles: Sequence[str], bits: int = 2048, radius: int = 2) -> NDArray[np.float32]:
    """Folded Morgan fingerprints; radius 2 is ECFP4.

    Returns:
        float32 [N, bits] of zeros and ones.
    """
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)
    with quiet_rdkit():
        rows = [generator.GetFingerprintAsNumPy(parse(s, quiet=False)) for s in smiles]
    return np.array(rows, dtype=np.float32).reshape(len(rows), bits)


def descriptors(smiles: Sequence[str]) -> NDArray[np.float32]:
    """All of RDKit's 2D descriptors; a value that RDKit cannot compute is NaN.

    The time grows with more than the third power of the number of atoms; `descriptors_reason` tells which molecules are large.

    Returns:
        float32 [N, number of descriptors], columns in the order of `rdkit.Chem.Descriptors.descList`.
    """
    from rdkit.Chem import Descriptors

    rows = []
    with quiet_rdkit():
        for s in smiles:
            rows.append(list(Descriptors.CalcMolDescriptors(parse(s, quiet=False), missingVal=float("nan")).values()))
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(Descriptors.descList))
    values[np.abs(values) > np.finfo(np.float32).max] = np.nan
    return values.astype(np.float32)


def descriptors_reason(smiles: str) -> str | None:
    """Why descriptors of a valid SMILES should not be computed: it has more than `MAX_DESCRIPTOR_ATOMS` heavy atoms. None: no reason."""
    if len(smiles) <= MAX_DESCRIPTOR_ATOMS:  # each atom has a character
        return None
    atoms = parse(smiles).GetNumHeavyAtoms()
    if atoms <= MAX_DESCRIPTOR_ATOMS:
        return None
    return f"the SMILES ({shorten(smiles)}) has {atoms:,} heavy atoms; descriptors are computed for at most {MAX_DESCRIPTOR_ATOMS}"


_VECTORS = ("SlogP_VSA", "SMR_VSA", "PEOE_VSA")  # descriptors that RDKit computes together, as functions with this name and "_"


def check_properties(names: Sequence[str]) -> None:
    """Checks names of `observed_properties`.

    Raises:
        ConfigError: If RDKit has no descriptor of a name, or if a name is given twice.
    """
    from rdkit.Chem import Descriptors

    known = dict(Descriptors.descList)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"RDKit has no descriptor {name!r}.{hint} rdkit.Chem.Descriptors lists all names.")
    if len(set(names)) < len(names):
        raise ConfigError(f"The descriptor {next(n for n in names if names.count(n) > 1)} is given twice. Name each once.")


def observed_properties(smiles: Sequence[str], names: Sequence[str], bits: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """RDKit descriptors and Morgan fingerprints (radius 2) of valid molecules.

    Args:
        smiles: N SMILES.
        names: P names of `rdkit.Chem.Descriptors`.
        bits: F, the number of bits of the fingerprint; 0: none.

    Returns:
        Descriptors float32 [N, P], in the unit of each, NaN where RDKit cannot compute one; and the bits, uint8 [N, F].
    """
    from rdkit.Chem import Descriptors, rdFingerprintGenerator, rdMolDescriptors

    functions = dict(Descriptors.descList)
    single = [(column, functions[name]) for column, name in enumerate(names) if not name.startswith(_VECTORS)]
    vectors = []
    for group in _VECTORS:
        members = [(column, int(name.removeprefix(group)) - 1) for column, name in enumerate(names) if name.startswith(group)]
        if members:
            vectors.append((getattr(rdMolDescriptors, f"{group}_"), *(list(place) for place in zip(*members))))
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=max(1, bits))
    values_NP, bits_NF = np.full((len(smiles), len(names)), np.nan), np.zeros((len(smiles), bits), np.uint8)
    with quiet_rdkit():
        for row, mol in enumerate(parse(one, quiet=False) for one in smiles):
            for column, function in single:
                values_NP[row, column] = _or_nan(function, mol)
            for function, columns, places in vectors:
                values_NP[row, columns] = np.asarray(function(mol))[places]
            if bits:
                bits_NF[row] = generator.GetFingerprintAsNumPy(mol)
    values_NP[np.abs(values_NP) > np.finfo(np.float32).max] = np.nan
    return values_NP.astype(np.float32), bits_NF


def _or_nan(function: Callable[[Mol], float], mol: Mol) -> float:
    try:
        return function(mol)
    except (RuntimeError, ValueError, ZeroDivisionError, OverflowError):  # the types of RDKit's errors
        return float("nan")
