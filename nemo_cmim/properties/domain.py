"""How far a molecule is from the training molecules of a property model.

Shape letters: N molecules, M training molecules, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min

from ..molecules import morgan_fingerprints

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Domain", "Nearest"]

_BITS = 2048
_AT_ONCE = 4096  # training molecules in a matrix product
_SAMPLE = 2000  # training molecules whose nearest neighbours give the unit of distances


class Nearest(NamedTuple):
    """The nearest training molecule of N molecules.

    Attributes:
        smiles: Canonical SMILES of the training molecule with the highest Tanimoto similarity.
        tanimoto: float64 [N], that similarity (Morgan fingerprints, radius 2, 2,048 bits).
        distance: float64 [N], Euclidean distance to the nearest embedding of a training molecule, on columns scaled to unit variance. Unit:
            the median of these distances within the training set. NaN if the model has no embedding.
    """

    smiles: list[str]
    tanimoto: NDArray[np.float64]
    distance: NDArray[np.float64]


class Domain(NamedTuple):
    """Fingerprints and embeddings of M training molecules.

    Attributes:
        smiles: Their canonical SMILES.
        bits: uint8 [M, 256], packed Morgan fingerprints.
        embeddings: float16 [M, D], scaled to mean 0 and variance 1; D = 0 without embedding.
        location: float32 [2, D], mean and standard deviation of the columns.
        unit: The distance that counts as 1.
    """

    smiles: Sequence[str]
    bits: NDArray[np.uint8]
    embeddings: NDArray[np.float16]
    location: NDArray[np.float32]
    unit: float

    @classmethod
    def of(cls, smiles: Sequence[str], embeddings_MD: NDArray[np.float64] | None) -> Domain:
        """The domain of distinct training molecules, and their embeddings."""
        bits = np.packbits(_fingerprints(smiles).astype(np.uint8), axis=1)
        raw = np.empty((len(smiles), 0)) if embeddings_MD is None else embeddings_MD
        location = np.stack([raw.mean(axis=0), raw.std(axis=0)]).astype(np.float32)
        location[1][location[1] == 0] = 1
        domain = cls(list(smiles), bits, _scaled(raw, location), location, 1.0)
        return domain._replace(unit=domain._own_distance())

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Domain:
        """The domain whose `arrays` these are."""
        smiles = bytes(arrays["training_smiles"]).decode().split("\n")
        parts = arrays["training_bits"], arrays["training_embeddings"], arrays["embedding_location"]
        return cls(smiles, *parts, float(arrays["distance_unit"][0]))  # type: ignore[arg-type]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All content as arrays."""
        return {
            "training_smiles": np.frombuffer("\n".join(self.smiles).encode(), dtype=np.uint8),
            "training_bits": self.bits,
            "training_embeddings": self.embeddings,
            "embedding_location": self.location,
            "distance_unit": np.array([self.unit]),
        }

    def nearest(self, smiles: Sequence[str], embeddings_ND: NDArray[np.float64] | None) -> Nearest:
        """The nearest training molecules of N canonical SMILES with these embeddings."""
        index, tanimoto = self._most_similar(_fingerprints(smiles))
        if embeddings_ND is None or not len(smiles):
            distance = np.full(len(smiles), np.nan)
        else:
            queries = _scaled(embeddings_ND, self.location).astype(np.float32)
            distance = pairwise_distances_argmin_min(queries, self.embeddings.astype(np.float32))[1] / self.unit
        return Nearest([self.smiles[number] for number in index], tanimoto, distance.astype(np.float64))

    def _most_similar(self, bits_NB: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        index, best = np.zeros(len(bits_NB), dtype=np.int64), np.full(len(bits_NB), -1.0)
        own = bits_NB.sum(axis=1)[:, None]
        for start in range(0, len(self.bits), _AT_ONCE):
            training = np.unpackbits(self.bits[start : start + _AT_ONCE], axis=1).astype(np.float32)
            common = bits_NB @ training.T
            similarity = common / np.maximum(own + training.sum(axis=1) - common, 1)
            here = similarity.argmax(axis=1)
            found = similarity[np.arange(len(here)), here]
            index[found > best], best = here[found > best] + start, np.maximum(best, found)
        return index, best

    def _own_distance(self) -> float:
        """The median distance of a training molecule to its nearest neighbour in the training set; 1 if there is none."""
        count = len(self.smiles)
        if count < 2 or not self.embeddings.shape[1]:
            return 1.0
        vectors = self.embeddings.astype(np.float32)
        found = []
        for row in np.random.default_rng(0).permutation(count)[:_SAMPLE]:
            squares = np.square(vectors - vectors[row]).sum(axis=1)
            squares[row] = np.inf
            found.append(np.sqrt(squares.min()))
        return float(np.median(found)) or 1.0


def _fingerprints(smiles: Sequence[str]) -> NDArray[np.float32]:
    return morgan_fingerprints(smiles, _BITS)


def _scaled(vectors_ND: NDArray[np.float64], location: NDArray[np.float32]) -> NDArray[np.float16]:
    """Scaled and rounded to half precision, as the training molecules are kept, so that a training molecule has the distance 0."""
    limit = np.finfo(np.float16).max
    return np.clip((vectors_ND - location[0]) / location[1], -limit, limit).astype(np.float16)
