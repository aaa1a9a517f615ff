"""Writes the vectors of three molecules for each shipped model. Run it after a model was shipped:

python -m tests.inference.golden_shipped
"""

from __future__ import annotations

import json
from pathlib import Path

from nemo_cmim.inference import list_models, load

__all__ = ["GOLDEN", "SMILES", "vectors"]

GOLDEN = Path(__file__).with_name("golden_shipped.json")
SMILES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "CN1CCC[C@H]1c1cccnc1"]


def vectors(name: str) -> dict[str, list[list[float]]]:
    """Both kinds of embedding of `SMILES`, [3, width]."""
    model = load(name, "cpu")
    return {kind: model.embed(SMILES, kind).astype(float).round(4).tolist() for kind in ("informative", "mean")}


if __name__ == "__main__":
    lines = [
        f' "{name}": {{\n' + ",\n".join(f'  "{kind}": {json.dumps(rows)}' for kind, rows in vectors(name).items()) + "\n }"
        for name in sorted(list_models())
    ]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
