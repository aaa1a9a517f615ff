"""Everything that uses RDKit: parsing, canonical SMILES, properties, scaffolds, fingerprints, descriptors and drawings."""

from .descriptors import (
    Properties,
    check_properties,
    descriptors,
    logp,
    molecular_weight,
    morgan_fingerprints,
    murcko_scaffold,
    observed_properties,
    properties,
)
from .drawing import drawing
from .mol_blocks import smiles_of_mol_block
from .parsing import (
    CANONICALISATION,
    Mol,
    canonical_or_none,
    canonical_smiles,
    forbidden_character,
    is_valid,
    parse,
    quiet_rdkit,
    randomized_smiles,
    shorten,
    to_canonical_smiles,
    without_stereo,
)
from .standardisation import standard_smiles, standardise, without_extras

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
    "quiet_rdkit",
    "randomized_smiles",
    "shorten",
    "smiles_of_mol_block",
    "standard_smiles",
    "standardise",
    "to_canonical_smiles",
    "without_extras",
    "without_stereo",
]
