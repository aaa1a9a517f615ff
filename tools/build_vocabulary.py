"""Writes the shipped vocabulary: 523 tokens, from real SMILES and from a systematic table of bracket atoms.

    python tools/build_vocabulary.py FILE... [--output nemo_cmim/tokenizers/smiles_523.vocab.txt]

Run it by hand. The same files in any order give the same vocabulary. The shipped vocabulary was made from the 2,897,860 SMILES of 112
ZINC15 2D tranches (files.docking.org/2D, reactivity A) and the 1,936,962 of MOSES (`molsets==0.3.1` from PyPI:
moses/dataset/data/{train,test,test_scaffolds}.csv.gz).

Order of the tokens: special tokens, atoms without brackets, bonds and punctuation, ring numbers, bracket atoms that occur at least
`MIN_COUNT` times (most frequent first), then those of `systematic_atoms` until there are 523 tokens.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from nemo_cmim.tokenizers import Vocabulary

SIZE = 523
MIN_COUNT = 5
OUTPUT = Path(__file__).parents[1] / "nemo_cmim" / "tokenizers" / "smiles_523.vocab.txt"

SPECIAL = ["<PAD>", "<UNK>", "<BOS>", "<EOS>", "<MASK>", "<SEP>"]
ATOMS = ["C", "c", "N", "n", "O", "o", "S", "s", "F", "Cl", "Br", "I", "P", "p", "B", "b", "*"]
PUNCTUATION = [*r"()-=#:/\.$~<>"]  # < and > are halves of the dative arrows <- and ->
RINGS = [*"1234567890", *(f"%{n}" for n in range(10, 30))]
BRACKET_ATOM = re.compile(r"\[[^\[\]\n:]+\]")  # without atom maps, which number atoms of reactions

# Element: {charge: maximum number of hydrogens}. Each entry gives the atoms with 0, 1, ... up to this number of hydrogens.
MAIN_GROUP = {
    "C": {0: 4, -1: 3, 1: 3},
    "N": {0: 3, 1: 4, -1: 2},
    "O": {0: 2, -1: 1, 1: 3, -2: 0},
    "S": {0: 3, 1: 3, -1: 1, -2: 0, 2: 0},
    "P": {0: 3, 1: 4, -1: 2, -3: 0},
    "B": {0: 3, -1: 4, 1: 0, 3: 0},
    "Si": {0: 4, -1: 3, 1: 0, 4: 0},
    "Se": {0: 2, 1: 1, -1: 1, -2: 0},
    "As": {0: 3, 1: 1, -1: 0, 3: 0},
    "F": {0: 1, -1: 0, 1: 1},
    "Cl": {0: 1, -1: 0, 1: 2, 2: 0, 3: 0},
    "Br": {0: 1, -1: 0, 1: 2},
    "I": {0: 2, -1: 0, 1: 2, 2: 0, 3: 0},
    "H": {0: 0, 1: 0, -1: 0},
    "Te": {0: 2, 1: 0, -2: 0},
    "Ge": {0: 4, 4: 0},
    "Sn": {0: 4, 2: 2, 4: 0},
    "Sb": {0: 2, 1: 0, 3: 0},
    "Al": {0: 3, 3: 0, -1: 4},
    "Ga": {0: 3, 3: 0, -1: 0},
}

CHIRAL = "C CH S S+ N N+ NH+ P PH P+ Si SiH B- Se Se+ C- As Ge"
AROMATIC = "nH n+ n- nH+ n o+ s+ se se+ te te+ c- cH- c+ c cH b- bH- p p+ pH as"

# Ions of salts and complexes: element and its charges, common ones first.
METALS = {
    "Na": (1, 0), "K": (1, 0), "Li": (1, 0), "Ca": (2, 0), "Mg": (2, 0), "Zn": (2, 0, -2), "Fe": (2, 3, 1, 0, -2, -3, -4),
    "Cu": (2, 1, 0, -2, -3), "Pt": (2, 4, 0, -2, -3, -4), "Co": (2, 3, 0, -2, -3), "Mn": (2, 3, 0), "Ni": (2, 0, -2),
    "Ag": (1, 0), "Au": (1, 3, 0), "Hg": (2, 1, 0), "Pd": (2, 0, -2, -4), "Bi": (3, 0), "Ba": (2, 0), "Sr": (2, 0),
    "Cs": (1, 0), "Rb": (1, 0), "Cr": (3, 2, 0), "Ti": (4, 2, 0), "V": (2, 0), "Zr": (4, 2, 0), "Mo": (2, 0),
    "Ru": (2, 3, 0, -2), "Rh": (3, 2, 1, 0), "Ir": (3, 1, 0, -3), "Cd": (2, 0), "Pb": (2, 4, 0), "Tl": (1, 3, 0), "Gd": (3, 0),
    "La": (3, 0), "Ce": (3, 0), "Y": (3, 0), "In": (3, 0), "W": (2, 0), "Re": (1, 0), "Os": (0,), "Nb": (5, 0), "Ta": (0,),
    "Hf": (4, 0), "Tc": (0,), "Be": (2, 0), "Sc": (3, 0), "Nd": (3, 0), "Sm": (3, 0), "Eu": (3, 0), "Tb": (3, 0), "Dy": (3, 0),
    "Lu": (3, 0), "Yb": (3, 0), "Pr": (3, 0), "Er": (3, 0), "Ho": (3, 0), "Tm": (3, 0), "U": (2, 0), "Ra": (2, 0), "Th": (4, 0),
    "Ac": (3, 0),
}  # fmt: skip
REST = "He Ne Ar Kr Xe LiH NaH KH MgH2 CaH2 Rn MgH Np Pu Am"  # noble gases, hydrides, and the rarest ions

# Isotopes of labelled and radioactive compounds, with the atoms that have them.
ISOTOPES = {
    "2": ["H"], "3": ["H"],
    "13": ["C", "CH3", "CH2", "CH", "C@H", "C@@H", "cH", "c", "C@", "C@@", "NH3"],
    "14": ["C", "CH3", "CH2", "CH", "C@H", "C@@H", "cH", "c"],
    "11": ["C", "CH3", "CH2", "CH", "cH", "c"],
    "15": ["N", "NH", "NH2", "n", "nH", "N+"],
    "18": ["F", "F-", "O", "OH", "O-"], "17": ["O"],
    "32": ["P"], "33": ["P"], "35": ["S"], "75": ["Se"], "76": ["Br"], "77": ["Br"],
    "123": ["I", "I-"], "124": ["I", "I-"], "125": ["I", "I-"], "127": ["I", "Xe"], "131": ["I", "I-"], "133": ["Xe"],
    "82": ["Rb+"], "89": ["Sr+2"], "99": ["Tc"], "111": ["In+3"], "67": ["Ga+3"], "68": ["Ga+3"], "64": ["Cu+2"], "90": ["Y+3"],
    "177": ["Lu+3"], "201": ["Tl+"], "223": ["Ra+2"],
}  # fmt: skip


def systematic_atoms() -> Iterator[str]:
    """Bracket atoms, the most useful first. An atom may occur more than once."""
    yield from (_chiral(atom, mark) for atom, mark in product(CHIRAL.split(), ("@", "@@")))
    yield from (f"[{atom}]" for atom in AROMATIC.split())
    for element, charges in MAIN_GROUP.items():
        for charge, maximum in charges.items():
            yield from (_atom(element, hydrogens, charge) for hydrogens in range(maximum + 1))
    yield from (f"[{isotope}{atom}]" for isotope, atoms in ISOTOPES.items() for atom in atoms)
    yield from (_atom(element, 0, charge) for element, charges in METALS.items() for charge in charges)
    yield from (f"[{atom}]" for atom in REST.split())


def _atom(element: str, hydrogens: int, charge: int) -> str:
    """A bracket atom in RDKit's notation: [NH4+], [Fe-3]."""
    sign = "+" if charge > 0 else "-"
    return (
        f"[{element}"
        + (f"H{hydrogens if hydrogens > 1 else ''}" if hydrogens else "")
        + (f"{sign}{abs(charge) if abs(charge) > 1 else ''}" if charge else "")
        + "]"
    )


def _chiral(atom: str, mark: str) -> str:
    """A chiral bracket atom. The mark is after the element: NH+ becomes [N@H+]."""
    return re.sub(r"^([A-Z][a-z]?)(.*)$", rf"[\1{mark}\2]", atom)


def count_bracket_atoms(paths: list[Path]) -> Counter[str]:
    """How often each bracket atom occurs in files of SMILES (`.smi`, `.txt`, `.csv`; plain, gz or xz)."""
    counts: Counter[str] = Counter()
    for path in paths:
        opened = gzip.open if path.suffix == ".gz" else lzma.open if path.suffix == ".xz" else open
        with opened(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                counts.update(BRACKET_ATOM.findall(line))
    return counts


def build(counts: Counter[str]) -> Vocabulary:
    """The vocabulary of `SIZE` tokens."""
    seen = sorted((atom for atom in counts if counts[atom] >= MIN_COUNT), key=lambda atom: (-counts[atom], atom))
    tokens = list(dict.fromkeys([*SPECIAL, *ATOMS, *PUNCTUATION, *RINGS, *seen, *systematic_atoms()]))
    print(f"{len(counts)} bracket atoms in the files, {len(seen)} at least {MIN_COUNT} times; {len(tokens)} tokens to choose from")
    if len(tokens) < SIZE:
        raise SystemExit(f"build_vocabulary: found only {len(tokens)} tokens. Add systematic atoms until there are {SIZE}.")
    print("left out:", *tokens[SIZE:])
    return Vocabulary(tuple(tokens[:SIZE]))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    build(count_bracket_atoms(args.files)).save(args.output)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
