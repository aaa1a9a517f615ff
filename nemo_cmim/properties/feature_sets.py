"""Features of a property model: embeddings, fingerprints and descriptors, side by side.

Shape letters: N molecules, D columns.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ConfigError
from ..molecules import descriptors_reason
from .features import builtin_featurizer, compute_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..inference import CMIMModel

__all__ = ["FeatureSet"]

_EMBEDDING = re.compile(r"(informative|mean)(?:\[(\d+(?:,\d+)*)\])?")


class _Block(NamedTuple):
    """One kind of features: its text, and for an embedding its kind and layers."""

    text: str
    kind: str = ""
    layers: tuple[int, ...] | None = None


class FeatureSet:
    """Computes features of molecules.

    Args:
        text: Names joined by "+": `informative` or `mean` (embeddings), `informative[1,2]` (decoder layers, counted from 1), `rdkit`
            (all RDKit 2D descriptors, for at most 200 heavy atoms), `morgan2048` (ECFP4 with this number of bits).
        model: The model of the embeddings: a loaded model, the name of a shipped one, or a path; None: the default shipped model.
        device: Device of the model.
        batch_size: Maximum number of molecules in a batch of the model.

    Raises:
        ConfigError: If a name is unknown or given twice.
    """

    def __init__(
        self,
        text: str,
        model: str | os.PathLike[str] | CMIMModel | None = None,
        device: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.text = text
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self._blocks = _parse(text)
        self._columns: list[tuple[str, int]] | None = None
        self._known: tuple[dict[str, int], NDArray[np.float64]] | None = None

    def __call__(self, smiles: Sequence[str]) -> NDArray[np.float64]:
        """Features of N canonical SMILES, float64 [N, D]. Values are NaN where RDKit cannot compute a descriptor.

        Raises:
            InvalidSmilesError: If the model cannot embed a molecule.
        """
        rows, table_MD = self._known or ({}, None)
        if table_MD is not None and all(one in rows for one in smiles):
            return table_MD[[rows[one] for one in smiles]]
        return np.concatenate([self._block(block, smiles) for block in self._blocks], axis=1)

    @contextmanager
    def computed(self, smiles: Sequence[str]) -> Iterator[None]:
        """Computes the features of these molecules once; within the context, calls with some of them look them up.

        If another thread begins or ends such a context meanwhile, calls compute them again.
        """
        distinct = list(dict.fromkeys(smiles))
        table = self(distinct)
        self._known = ({one: row for row, one in enumerate(distinct)}, table)
        try:
            yield
        finally:
            self._known = None

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each embedding, by its name in `text`; see `CMIMModel.fingerprint`."""
        return {b.text: self._loaded().fingerprint(b.kind, b.layers) for b in self._blocks if b.kind}

    @property
    def has_descriptors(self) -> bool:
        """Whether some columns are descriptors, which may be NaN and need preparation."""
        return any(block.text == "rdkit" for block in self._blocks)

    def columns(self) -> list[tuple[str, int]]:
        """Name and number of columns of each kind of features, in their order."""
        if self._columns is None:
            self._columns = [(block.text, self._block(block, ["C"]).shape[1]) for block in self._blocks]
        return self._columns

    @property
    def invalid_reason(self) -> Callable[[str], str | None]:
        """A function that says why features of a canonical SMILES are not computed: None if they are.

        The model may be unable to embed it, or it may be too large for descriptors, see `molecules.descriptors_reason`.
        """
        checks: list[Callable[[str], str | None]] = []
        if any(block.kind for block in self._blocks):
            checks.append(functools.partial(self._loaded().invalid_reason, is_canonical=True))  # loads once, not for each molecule
        if self.has_descriptors:
            checks.append(descriptors_reason)
        return lambda smiles: next(filter(None, (check(smiles) for check in checks)), None)

    def embedding_columns(self) -> slice | None:
        """The columns of the first embedding; None if there is none."""
        number = next((number for number, block in enumerate(self._blocks) if block.kind), None)
        if number is None:
            return None
        widths = [width for _, width in self.columns()]
        return slice(sum(widths[:number]), sum(widths[: number + 1]))

    def _block(self, block: _Block, smiles: Sequence[str]) -> NDArray[np.float64]:
        if not block.kind:
            return compute_features(block.text, builtin_featurizer(block.text), smiles)
        return (
            self._loaded().embed_canonical(smiles, block.kind, layers=block.layers, batch_size=self.batch_size).astype(np.float64)
        )

    def _loaded(self) -> CMIMModel:
        from ..inference.shipped import resolve

        return resolve(self.model, self.device)


def _parse(text: Any) -> list[_Block]:
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f'features must be text such as "informative" or "informative+rdkit", found {text!r}.')
    blocks = []
    for name in (part.strip() for part in text.split("+")):
        match = _EMBEDDING.fullmatch(name.replace(" ", ""))
        if match:
            layers = tuple(map(int, match[2].split(","))) if match[2] else None
            if layers and match[1] == "mean":
                raise ConfigError(f"features={text!r}: only informative has layers. Write mean, or informative[{match[2]}].")
            blocks.append(_Block(name, match[1], layers))
        elif name == "rdkit" or re.fullmatch(r"morgan[1-9]\d{0,5}", name):
            blocks.append(_Block(name))
        else:
            raise ConfigError(
                f"features={text!r}: {name!r} is unknown. Choose informative, mean, informative[1,2] (layers), rdkit, or morgan and a "
                "number of bits, such as morgan2048. Join several with +."
            )
    if len(set(blocks)) < len(blocks):
        raise ConfigError(f"features={text!r}: a name is given twice. Name each once.")
    return blocks
