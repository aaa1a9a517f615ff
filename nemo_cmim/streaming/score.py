"""Scores the molecules of a file by their log-likelihood."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..errors import InvalidSmilesError
from ..inference import CMIMModel
from ..inference.capabilities import require_decoder
from ..inference.inputs import EXPLAIN
from ..steps import Steps
from ..tables.layout import DETECT, ReadOptions
from ..tables.rows import Block, MoleculeTable
from .rows import DEFAULTS, Found, Streamed, StreamOptions, check_outputs, stream_rows

__all__ = ["score_file"]


def score_file(
    model: CMIMModel,
    source: str | Path,
    target: str | Path,
    *,
    given: str | None = None,
    per_token: bool = False,
    standardise: Steps = (),
    read: ReadOptions = DETECT,
    options: StreamOptions = DEFAULTS,
) -> Streamed:
    """Writes log p(x|z) of each molecule of a file, in nats, in the column `log_p`, and its number of tokens in `tokens`.

    Args:
        model: The model.
        source: Molecules, as `MoleculeTable` reads them.
        target: The output, as `tables.row_writers.row_writer` writes it, but not .smi.
        given: The molecule whose posterior mean is z; None: each molecule itself.
        per_token: Also write the column `log_p_per_token`: a JSON list of the terms, one for each token and one for `<EOS>`.
        standardise: See `CMIMModel.embed`.
        read: How the source is read.
        options: Common options.

    Raises:
        InvalidSmilesError: If `given` cannot be used, or a molecule cannot be used and `options.on_invalid` is "raise".
        DataError: See `stream_rows`.
        ConfigError: See `CMIMModel.log_likelihood`.
    """
    require_decoder(model.config, "log_likelihood")
    if given is not None and (reason := model.invalid_reason(given)):
        raise InvalidSmilesError(f"given={given!r} cannot be used: {reason}.")
    check_outputs(source, target, options, smi=False)
    columns = {"log_p": pa.float64(), "tokens": pa.int32()} | ({"log_p_per_token": pa.string()} if per_token else {})

    def compute(first: int, block: Block, report: Callable[[int, int], None]) -> list[Found]:
        terms = model.log_likelihood(
            block.smiles, given, per_token=True, on_invalid=EXPLAIN, standardise=standardise, progress=report
        )
        missing = {i: block.smiles[i] for i, one in enumerate(terms) if one is None}
        problems = {i: block.problems.get(i) or model.invalid_reason(smiles, standardise) or "" for i, smiles in missing.items()}
        found = []
        for i, one in enumerate(terms):
            if one is None:
                found.append(Found((), problems[i], is_valid=False))
            else:
                record = (float(one.sum(dtype=np.float64)), len(one) - 1, json.dumps([float(f"{term:.7g}") for term in one]))
                found.append(Found([record[: len(columns)]]))
        return found

    with MoleculeTable(source, read) as table:
        return stream_rows(table, target, columns, "log_p", compute, options)
