"""What a search found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..arguments import check_integer
from ..errors import ConfigError
from ..molecules import drawing_grid

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PICTURES", "Candidate", "SearchResult", "check_suffix"]

PICTURES = (".png", ".svg")


class Candidate(NamedTuple):
    """A molecule that a search found.

    Attributes:
        smiles: Canonical SMILES.
        score: Its score.
        similarity: Tanimoto similarity to the seed (Morgan fingerprints of radius 2), 0 to 1.
        step: The step that found it, from 1.
    """

    smiles: str
    score: float
    similarity: float
    step: int


@dataclass
class SearchResult:
    """The molecules that a search found from one seed.

    Attributes:
        seed: The molecule from which it started, canonical SMILES.
        seed_score: Its score; NaN if it has none.
        objective: Name of the score.
        molecules: Molecules that meet all conditions, without repeats, the best first; the seed itself is left out.
        evaluations: Number of latents that were decoded.
        dropped: How many decoded SMILES were not used, by reason: "invalid", "the seed itself", "without the substructure", "with more
            fragments than the seed", "too dissimilar", "no score".
        error: The first error that a scoring function raised, with its SMILES; empty if there was none.
        best_similarity: Highest similarity of a molecule other than the seed, whether it met the conditions or not; NaN without one.
        history: Best score of all molecules found until the end of each step; NaN before the first one.
    """

    seed: str
    seed_score: float
    objective: str
    molecules: list[Candidate] = field(default_factory=list)
    evaluations: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    error: str = ""
    best_similarity: float = float("nan")
    history: list[float] = field(default_factory=list)

    def explain(self) -> str:
        """How many molecules were found, and why others were not used."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items() if count) or "none was dropped"
        found = f"{len(self.molecules):,} molecules from {self.evaluations:,} evaluations ({reasons})"
        sentences = [found]
        if self.molecules:
            sentences.append(f"Best {self.objective}: {self.molecules[0].score:.4g}; that of the seed: {self.seed_score:.4g}")
        elif self.dropped.get("too dissimilar"):
            sentences.append(f"The most similar molecule has the similarity {self.best_similarity:.2f} to the seed")
        if self.error:
            sentences.append(f"The first error of a scoring function: {self.error}")
        return f"{'. '.join(sentences)}."

    def to_frame(self) -> pd.DataFrame:
        """The molecules as a table with the columns seed, smiles, score, similarity and step."""
        import pandas as pd

        return pd.DataFrame([{"seed": self.seed, **candidate._asdict()} for candidate in self.molecules], columns=_COLUMNS)

    def plot(self, path: str | Path) -> None:
        """Writes a picture of the best score over the evaluations (.png, .svg or .pdf).

        Raises:
            ConfigError: If the path has a different suffix.
        """
        check_suffix(path, [*PICTURES, ".pdf"])
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes: Any = figure.add_subplot()
        steps = len(self.history)
        axes.plot([self.evaluations * (step + 1) / steps for step in range(steps)], self.history, label="best molecule")
        axes.axhline(self.seed_score, color="0.5", linestyle="--", label="seed")
        axes.set(xlabel="evaluations", ylabel=self.objective, xlim=(0, max(1, self.evaluations)))
        axes.legend()
        figure.savefig(path, dpi=150)

    def grid(self, path: str | Path, count: int = 12) -> None:
        """Writes a picture of the seed and of the best molecules, with score and similarity (.png or .svg).

        Raises:
            ConfigError: If the path has a different suffix, or if `count` is below 1.
        """
        check_suffix(path, PICTURES)
        check_integer("count", count)
        labels = {self.seed: f"seed: {self.seed_score:.3g}"}
        labels |= {one.smiles: f"{one.score:.3g}, similarity {one.similarity:.2f}" for one in self.molecules[:count]}
        Path(path).write_bytes(drawing_grid(labels, png=Path(path).suffix.lower() == ".png"))


def check_suffix(path: str | Path, suffixes: Sequence[str], name: str = "path") -> None:
    """Raises a `ConfigError` if a picture, the argument `name`, cannot be written because of its suffix."""
    if Path(path).suffix.lower() not in suffixes:
        raise ConfigError(f"{name}={str(path)!r}: a picture is written as {' or '.join(suffixes)}. Choose one of these suffixes.")


_COLUMNS = ["seed", *Candidate._fields]
