"""Everything that uses RDKit: parsing, canonical SMILES, properties, scaffolds, fingerprints, descriptors and drawings."""

from .descriptors import (
    Properties,
    check_properties,
    descriptors,
    descriptors_reason,
    logp,
    molecular_weight,
    morgan_fingerprints,
    murcko_scaffold,
    observed_properties,
    properties,
)
from .drawing import drawing, drawing_grid
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
    what_follows,
    without_stereo,
)
from .scores import penalised_logp, qed, similarity_to
from .standardisation import Standardised, atom_map, standard_smiles, standardise, standardised, without_extras
from .substructures import contains, substructures

__all__ = [
    "CANONICALISATION",
    "Mol",
    "Properties",
    "Standardised",
    "atom_map",
    "canonical_or_none",
    "canonical_smiles",
    "check_properties",
    "contains",
    "descriptors",
    "descriptors_reason",
    "drawing",
    "drawing_grid",
    "forbidden_character",
    "is_valid",
    "logp",
    "molecular_weight",
    "morgan_fingerprints",
    "murcko_scaffold",
    "observed_properties",
    "parse",
    "penalised_logp",
    "properties",
    "qed",
    "quiet_rdkit",
    "randomized_smiles",
    "shorten",
    "similarity_to",
    "smiles_of_mol_block",
    "standard_smiles",
    "standardise",
    "standardised",
    "substructures",
    "to_canonical_smiles",
    "what_follows",
    "without_extras",
    "without_stereo",
]
