"""Feeds random files and SMILES to the reader, the tokenizer and `embed`, and checks that nothing is lost or changed.

    python -m tools.fuzz --files 20000 --smiles 1000000

A file is random bytes, a damaged table, or a table of a random CSV dialect and compression. It must be read or refused with a message,
never with another exception; a well-formed table must give its rows and cells, byte for byte and in order. SMILES are mutated molecules.
The tokenizer must lose no character; `embed` must give one row for each SMILES, NaN if and only if there is a reason; and all SMILES of a
molecule must get the same vector. A file that fails is made smaller by hypothesis and printed.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import lzma
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rdkit.Chem import rdCIPLabeler

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.inference import CMIMModel, list_models, load
from nemo_cmim.molecules import is_valid, parse, randomized_smiles
from nemo_cmim.tables.layout import ReadOptions
from nemo_cmim.tables.rows import MoleculeTable

__all__ = [
    "OPTIONS",
    "SEEDS",
    "SUFFIXES",
    "Table",
    "check_damaged",
    "check_smiles",
    "check_table",
    "damaged",
    "main",
    "mutated",
    "tables",
]

SEEDS = (
    "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "F/C=C/F", "C/C(F)=C\\Cl", "[O-][N+](=O)c1ccc(Br)cc1", "CN1C=NC2=C1C(=O)N(C)C(=O)N2C",
    "C1CC[C@@H]2CCCC[C@H]2C1", "[2H]C([2H])([2H])O", "O=S(=O)(N)c1ccc(cc1)-n1nc(cc1-c1ccc(C)cc1)C(F)(F)F", "[Na+].[Cl-]",
    "C#CC[Si](C)(C)C", "c1ccc2c(c1)[nH]c1ccccc12", "C%10CCCCC%10", "CC(C)C[C@H](NC(=O)[C@@H](N)Cc1ccccc1)C(=O)O", "OB(O)c1ccsc1",
    "[Se]1C=CC=C1", "N[C@](C)(F)O",
)  # fmt: skip
_LETTERS = "CNOPSFIBrClcnops[]()=#/\\@+-.123%0HH2* \t|&:é\u00a0\u3000"
_COMPRESSIONS: tuple[Callable[[bytes], bytes], ...] = (bytes, bytes, bytes, gzip.compress, bz2.compress, lzma.compress)
_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ['a "b" c', "x,y;z", "two\nlines", " padded ", "007", "", "\t", '"', "é"]
)
SUFFIXES = (".csv", ".tsv", ".smi", ".txt", ".sdf", ".mol", ".parquet", "", ".csv.gz")
OPTIONS = st.builds(
    ReadOptions,
    smiles=st.none() | st.sampled_from(["smiles", "1", "2", "9", "none"]),
    delimiter=st.none() | st.sampled_from([",", ";", "tab", "space", "xx", '"']),
    header=st.sampled_from([None, None, False, True]),
)


class Table(NamedTuple):
    """A table, and the file that it was written to."""

    names: list[str]
    rows: list[list[str]]
    content: bytes
    suffix: str


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Tables with a SMILES column, written in random dialects."""
    width, smiles = draw(st.integers(1, 4)), draw(st.integers(0, 3))
    names = [f"column {i}" for i in range(width)]
    names[smiles % width] = draw(st.sampled_from(["smiles", "SMILES", "Canonical_Smiles", "isomeric smiles"]))
    rows = draw(st.lists(st.lists(_CELLS, min_size=width, max_size=width), min_size=1, max_size=6))
    for row in rows:
        row[smiles % width] = draw(st.sampled_from(SEEDS))
    delimiter = draw(st.sampled_from(",;\t|"))
    text = io.StringIO(newline="")
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    writer = csv.writer(
        text, delimiter=delimiter, lineterminator=line_end, quoting=draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    )
    writer.writerow(names)
    for row in rows:
        if any("\r" in cell for cell in row):  # csv does not quote it before Python 3.13
            csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerow(row)
        else:
            writer.writerow(row)
    content = text.getvalue().encode("utf-8-sig" if draw(st.booleans()) else "utf-8")
    return Table(names, rows, draw(st.sampled_from(_COMPRESSIONS))(content), draw(st.sampled_from([".csv", ".tsv", ".csv.gz"])))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Random bytes, and tables of which a part is replaced by random bytes."""
    noise = draw(st.binary(max_size=40))
    if draw(st.booleans()):
        return (
            noise
            + draw(st.sampled_from([b"", b"\n", b"smiles\n", b"$$$$\n", b"PAR1", b"\x1f\x8b", b"BZh"]))
            + draw(st.binary(max_size=200))
        )
    content = draw(tables()).content
    start = draw(st.integers(0, len(content)))
    return content[:start] + noise + content[start + draw(st.integers(0, 20)) :]


def check_table(table: Table, folder: Path) -> None:
    """A table is read cell for cell."""
    path = folder / f"table{table.suffix}"
    path.write_bytes(table.content)
    with MoleculeTable(path) as opened:
        blocks = list(opened.blocks(2))
        assert opened.names == table.names
    found = [list(row.values()) for block in blocks for row in block.rows.to_pylist()]
    assert found == table.rows, (found, table.rows)


def check_damaged(content: bytes, suffix: str, options: ReadOptions, folder: Path) -> bool:
    """Whether any bytes are read; if not, they are refused with a message."""
    path = folder / f"damaged{suffix}"
    path.write_bytes(content)
    try:
        with MoleculeTable(path, options) as table:
            blocks = list(table.blocks(3))
    except (DataError, ConfigError) as error:
        assert str(error)
        return False
    numbers = [number for block in blocks for number in block.numbers]
    assert numbers == sorted(set(numbers))
    assert all(len(block.smiles) == len(block.numbers) == block.rows.num_rows for block in blocks)
    assert all((cell is None) == (index in block.problems) for block in blocks for index, cell in enumerate(block.smiles))
    return True


def mutated(rng: random.Random, count: int) -> list[str]:
    """SMILES with random characters inserted, removed, replaced, repeated or cut."""
    made = []
    for _ in range(count):
        text = rng.choice(SEEDS)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            place = rng.randrange(len(text) + 1)
            kind = rng.randrange(5)
            if kind == 0:
                text = text[:place] + rng.choice(_LETTERS) + text[place:]
            elif kind == 1:
                text = text[:place] + text[place + 1 :]
            elif kind == 2:
                text = text[:place] + rng.choice(_LETTERS) + text[place + 1 :]
            elif kind == 3:
                text = text[:place] + text[max(0, place - rng.randrange(6)) : place] + text[place:]
            else:
                text = rng.choice(SEEDS)[:place] + text[place:]
        made.append(text)
    return made


def check_smiles(smiles: Sequence[str], model: CMIMModel, seed: int) -> int:
    """Checks tokenizer and `embed`. Returns the number of valid molecules."""
    for one in smiles:
        assert "".join(model.tokenizer.tokenize(one)) == one, one
    vectors, reasons, _ = model.embed_or_explain(smiles, "mean")
    assert vectors.shape == (len(smiles), model.width("mean"))
    assert np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist() == sorted(reasons)
    rng = random.Random(seed)
    for index in rng.sample(range(len(smiles)), min(10, len(smiles))):
        assert (model.invalid_reason(smiles[index]) is None) == (index not in reasons), smiles[index]
    valid = [index for index in range(len(smiles)) if index not in reasons]
    others = [randomized_smiles(smiles[index], 1, seed=seed)[0] for index in valid]
    # RDKit cannot read each SMILES that it writes.
    others = [other if is_valid(other) else smiles[index] for index, other in zip(valid, others)]
    if others:
        again, wrong, _ = model.embed_or_explain(others, "mean")
        assert not wrong, wrong
        difference = np.abs(again - vectors[valid]).max(1)
        different = [
            (smiles[i], others[n], float(difference[n]))
            for n, i in enumerate(valid)
            if difference[n] > 1e-4 and _description(smiles[i]) == _description(others[n])
        ]
        assert not different, different
    return len(valid)


def _description(smiles: str) -> Counter[str]:
    """Bonds and configurations of a molecule. They differ if RDKit has written another molecule.

    It leaves out `:` next to a double bond, and inverts some phosphorus atoms that were written as aromatic.
    """
    mol = parse(smiles)
    rdCIPLabeler.AssignCIPLabels(mol)
    centres = [f"{atom.GetSymbol()} {atom.GetProp('_CIPCode')}" for atom in mol.GetAtoms() if atom.HasProp("_CIPCode")]
    return Counter([*centres, *(str(bond.GetBondType()) for bond in mol.GetBonds())])


def main() -> None:
    """Runs the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, metavar="N", help="number of files (default: %(default)s)")
    parser.add_argument("--smiles", type=int, default=20_000, metavar="N", help="number of SMILES (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the mutations (default: %(default)s)")
    args = parser.parse_args()
    start, counts = time.process_time(), Counter[str]()
    model, batch = load(list_models()[0]), 1000

    def examples(count: int) -> settings:
        return settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        @examples(args.files // 2)
        @given(tables())
        def well_formed(table: Table) -> None:
            check_table(table, folder)
            counts["tables"] += 1

        @examples(args.files - args.files // 2)
        @given(damaged(), st.sampled_from(SUFFIXES), OPTIONS)
        def damaged_files(content: bytes, suffix: str, options: ReadOptions) -> None:
            counts["read" if check_damaged(content, suffix, options, folder) else "refused"] += 1

        well_formed()
        damaged_files()
    for first in range(0, args.smiles, batch):
        seed = args.seed + first
        smiles = mutated(random.Random(seed), min(batch, args.smiles - first))
        counts["valid"] += check_smiles(smiles, model, seed)
        counts["smiles"] += len(smiles)
    print(
        f"{counts['tables']:,} well-formed tables: all cells equal. {counts['read'] + counts['refused']:,} other files: {counts['read']:,} "
        f"read, {counts['refused']:,} refused with a message. {counts['smiles']:,} SMILES: {counts['valid']:,} valid molecules, the others "
        f"reported. {time.process_time() - start:.0f} s of CPU time."
    )


if __name__ == "__main__":
    main()
