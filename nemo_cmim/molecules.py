"""Everything that uses RDKit: parsing, canonical SMILES, properties, scaffolds, fingerprints, descriptors and drawings."""

from __future__ import annotations

import difflib
import functools
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rdkit import Chem, rdBase

from .errors import ConfigError, InvalidSmilesError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CANONICALISATION",
    "Mol",
    "Properties",
    "canonical_or_none",
    "canonical_smiles",
    "check_properties",
    "descriptors",
    "drawing",
    "forbidden_character",
    "is_valid",
    "logp",
    "molecular_weight",
    "morgan_fingerprints",
    "murcko_scaffold",
    "observed_properties",
    "parse",
    "properties",
    "randomized_smiles",
    "standardise",
    "to_canonical_smiles",
    "without_stereo",
]

Mol = Chem.Mol

CANONICALISATION = "rdkit-fixed-point-1"
"""Name of the definition of `canonical_smiles`. Embeddings of molecules that were canonicalised differently are not comparable."""


class Properties(NamedTuple):
    """Properties that define the tranches of ZINC.

    Attributes:
        molecular_weight: average molecular weight, Da.
        logp: Crippen's octanol-water partition coefficient, log10.
    """

    molecular_weight: float
    logp: float


_quiet = threading.RLock()

# Colours of atoms, readable on a white and on a nearly black background; all other atoms have the colour of the text.
_ATOM_COLOURS = {
    7: (0.23, 0.49, 0.87),
    8: (0.85, 0.28, 0.25),
    9: (0.22, 0.56, 0.24),
    15: (0.76, 0.42, 0.05),
    16: (0.62, 0.50, 0.00),
    17: (0.22, 0.56, 0.24),
    35: (0.66, 0.40, 0.25),
    53: (0.60, 0.38, 0.80),
}
# Attributes that RDKit writes although they are defaults of SVG, and comments.
_SVG_REDUNDANT = re.compile(
    r" class='[^']*'|fill-rule:evenodd;|;stroke-linecap:butt;stroke-linejoin:miter;stroke-opacity:1|<!--.*?-->\n"
)


@contextmanager
def quiet_rdkit() -> Iterator[None]:
    """Keeps RDKit from printing; errors of this package describe what is wrong."""
    with _quiet, rdBase.BlockLogs():
        yield


def parse(smiles: str, *, name: str = "the SMILES", quiet: bool = True) -> Mol:
    """Parses a SMILES with RDKit's sanitisation.

    Args:
        smiles: The SMILES.
        name: Name in error messages, for example the position in the caller's list.
        quiet: Keep RDKit from printing. For a loop, it is faster to wrap the loop in `quiet_rdkit` and to pass False.

    Raises:
        InvalidSmilesError: If the SMILES is not text, is empty, contains white space or a character that is not printable ASCII, or cannot
            be parsed.
    """
    if not isinstance(smiles, str):
        raise InvalidSmilesError(f"{name} must be text, found {smiles!r} ({type(smiles).__name__})")
    if not smiles:
        raise InvalidSmilesError(f"{name} is empty")
    if found := forbidden_character(smiles):
        if smiles.split() != [smiles]:
            raise InvalidSmilesError(f"{name} ({smiles!r}) contains white space, which is not allowed in a SMILES: {found}")
        raise InvalidSmilesError(f"{name} ({smiles!r}) contains {found}. A SMILES consists of printable ASCII characters only")
    if quiet:
        with quiet_rdkit():
            mol = Chem.MolFromSmiles(smiles)
    else:
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        raise InvalidSmilesError(f"{name} ({smiles!r}) could not be parsed")
    return mol


def forbidden_character(smiles: str) -> str | None:
    """The first character that is white space or not printable ASCII, with its position; None if there is none.

    RDKit removes such characters at the ends of a SMILES, and all text after white space, without a message. It would read another
    molecule.
    """
    if smiles.isascii() and smiles.isprintable() and " " not in smiles:
        return None
    position, character = next((i, c) for i, c in enumerate(smiles) if not "!" <= c <= "~")
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'an unnamed character')}) at index {position}, counted from 0"


def is_valid(smiles: str) -> bool:
    """True if RDKit can parse `smiles` and the molecule has at least one atom."""
    try:
        parse(smiles)
    except InvalidSmilesError:
        return False
    return True


def canonical_smiles(molecule: str | Mol, *, name: str = "the SMILES") -> str:
    """RDKit's canonical isomeric SMILES, as a fixed point: canonicalising it again gives the same text.

    For some symmetric molecules, RDKit's canonical form depends on the order of the atoms (rdkit#8721). Therefore it is canonicalised again
    until a text occurs for the second time. If several texts alternate, the smallest is taken. This costs nothing if the
    SMILES is canonical already, and parsing it once more otherwise.

    Two SMILES of one molecule can still give two texts if an atom has non-tetrahedral stereo (`@SP`, `@TB`, `@OH`), because RDKit then
    has several fixed points. No other such molecule was found: see docs/data.md. The shipped vocabulary has no token for such
    atoms.

    Args:
        molecule: A SMILES, or an RDKit molecule.
        name: Name in error messages.

    Raises:
        InvalidSmilesError: See `parse`.
    """
    if isinstance(molecule, Mol):
        if molecule.GetNumAtoms() == 0:
            raise InvalidSmilesError(f"{name} is a molecule without atoms")
        molecule = Chem.MolToSmiles(molecule)  # parsed again, so that explicit hydrogens of a structure file have no effect
    mol = parse(molecule, name=name)
    with quiet_rdkit():
        return to_canonical_smiles(mol, molecule)


def to_canonical_smiles(mol: Mol, smiles: str | None = None) -> str:
    """`canonical_smiles` of a molecule from `parse`, without parsing it again. RDKit may print; see `quiet_rdkit`.

    Args:
        mol: The molecule.
        smiles: The SMILES that it was parsed from, if it was not changed since. If it is canonical, there is no second pass.
    """
    forms = [] if smiles is None else [smiles]
    form = Chem.MolToSmiles(mol)
    while form not in forms:
        forms.append(form)
        mol = Chem.MolFromSmiles(form)
        if mol is None:  # RDKit cannot read its own SMILES
            return form
        form = Chem.MolToSmiles(mol)
    return min(forms[forms.index(form) :])  # one form, or those of a cycle


def without_stereo(mol: Mol) -> str:
    """Canonical SMILES of a molecule from `parse`, without stereocentres and stereo bonds; isotopes are kept."""
    copy = Mol(mol)
    Chem.RemoveStereochemistry(copy)
    return canonical_smiles(copy)  # parses it again, which removes a hydrogen that only a stereo bond needed


def standardise(mol: Mol, *, desalt: bool, neutralise: bool) -> Mol:
    """Removes salts and charges that depend on how the sample was prepared. RDKit may print; see `quiet_rdkit`.

    Args:
        mol: A molecule from `parse`.
        desalt: Keep only the largest fragment, without counter-ions and solvent.
        neutralise: Add and remove protons to neutralise charges where possible; nitro groups and quaternary nitrogens keep theirs.

    Returns:
        The result, parsed from its SMILES.

    Raises:
        InvalidSmilesError: If RDKit fails, or cannot parse its own result, as for some organometallics.
    """
    from rdkit.Chem.MolStandardize import rdMolStandardize

    try:
        if desalt:
            mol = rdMolStandardize.LargestFragmentChooser().choose(mol)
        if neutralise:
            mol = rdMolStandardize.Uncharger().uncharge(mol)
    except (RuntimeError, ValueError) as error:  # the types of RDKit's errors
        raise InvalidSmilesError(f"RDKit cannot standardise {Chem.MolToSmiles(mol)!r}: {error}") from error
    return parse(Chem.MolToSmiles(mol), name="RDKit's standardised SMILES", quiet=False)


def canonical_or_none(smiles: str) -> str | None:
    """The canonical SMILES of text that may be invalid, for example decoded text; None if RDKit cannot parse it."""
    try:
        return canonical_smiles(smiles)
    except InvalidSmilesError:
        return None


def randomized_smiles(smiles: str, count: int, seed: int) -> list[str]:
    """Randomized SMILES of one molecule (SMILES enumeration, Sec. D.2). They are valid; some may be equal.

    They keep stereo, except that RDKit may write the other enantiomer of some symmetric rings, such as chiro-inositol.

    RDKit may print; wrap a loop in `quiet_rdkit`.

    Args:
        smiles: The molecule.
        count: Number of SMILES.
        seed: 1 to 2**32 - 1; equal seeds give equal SMILES.

    Raises:
        InvalidSmilesError: See `parse`.
    """
    return list(Chem.MolToRandomSmilesVect(parse(smiles, quiet=False), count, randomSeed=seed))


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
    rows = [generator.GetFingerprintAsNumPy(parse(s)) for s in smiles]
    return np.array(rows, dtype=np.float32).reshape(len(rows), bits)


def descriptors(smiles: Sequence[str]) -> NDArray[np.float32]:
    """All of RDKit's 2D descriptors; a value that RDKit cannot compute is NaN.

    Returns:
        float32 [N, number of descriptors], columns in the order of `rdkit.Chem.Descriptors.descList`.
    """
    from rdkit.Chem import Descriptors

    rows = []
    with quiet_rdkit():
        for s in smiles:
            rows.append(list(Descriptors.CalcMolDescriptors(parse(s), missingVal=float("nan")).values()))
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(Descriptors.descList))
    values[np.abs(values) > np.finfo(np.float32).max] = np.nan
    return values.astype(np.float32)


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


def drawing(smiles: str, width: int = 220, height: int = 150) -> str:
    """The structure as an `<svg>` element for a web page, in the colour of its text, so that it is readable on light and dark pages.

    Args:
        smiles: The molecule.
        width: Width of the box that the structure fills, in pixels.
        height: Height of the box, in pixels.

    Raises:
        InvalidSmilesError: See `parse`.
    """
    from rdkit.Chem.Draw import rdMolDraw2D

    canvas = rdMolDraw2D.MolDraw2DSVG(width, height)
    options = canvas.drawOptions()
    options.clearBackground = False  # type: ignore[assignment]  # wrong type in RDKit's stubs
    options.useBWAtomPalette()
    options.updateAtomPalette(_ATOM_COLOURS)
    with quiet_rdkit():
        rdMolDraw2D.PrepareAndDrawMolecule(canvas, parse(smiles))
    canvas.FinishDrawing()
    shapes = canvas.GetDrawingText().split("<!-- END OF HEADER -->\n", 1)[1]
    return f'<svg viewBox="0 0 {width} {height}">\n' + _SVG_REDUNDANT.sub("", shapes).replace("#000000", "currentColor")
