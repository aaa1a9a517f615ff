"""Table 1 of the paper as printed, with the differences of its protocol."""

from __future__ import annotations

from nemo_cmim.markdown import markdown_table

__all__ = ["PUBLISHED", "published_section"]

COLUMNS = ("ESOL SVM", "ESOL MLP", "FreeSolv SVM", "FreeSolv MLP", "Lipophilicity SVM", "Lipophilicity MLP", "reconstruction")
PUBLISHED: dict[str, tuple[str, ...]] = {
    "MIM (1 x 512), mean": ("0.65", "0.34", "2.23", "1.82", "0.663", "0.61", "100 %"),
    "cMIM (1 x 512), mean": ("0.47", "0.19", "2.32", "1.67", "0.546", "0.38", "100 %"),
    "MIM (1 x 512), informative": ("0.21", "0.29", "1.55", "1.40", "0.234", "0.28", "100 %"),
    "cMIM (1 x 512), informative": ("0.21", "0.24", "1.74", "1.35", "0.24", "0.23", "100 %"),
    "CDDD (512); trained with property prediction as a regulariser": ("0.33", "-", "0.94", "-", "0.40", "-", "-"),
    "MegaMolBART (N x 512), from Reidenbach et al. 2023": ("0.37", "0.43", "1.24", "1.40", "0.46", "0.61", "100 %"),
    "Perceiver (4 x 512), from Reidenbach et al. 2023": ("0.40", "0.36", "1.22", "1.05", "0.48", "0.47", "100 %"),
    "VAE (4 x 512), from Reidenbach et al. 2023": ("0.55", "0.49", "1.65", "3.30", "0.63", "0.55", "46 %"),
    "Morgan fingerprint, 512 bits": ("1.52", "1.26", "5.09", "3.94", "0.63", "0.61", "-"),
}
"""The cells of each row, in the order of `COLUMNS`."""

DIFFERENCES = """\
Copied from Table 1 of the paper (Livne 2025). **Nothing in this table was measured here**, and its cells cannot be compared with those of
the tables above one by one:

* Models: the paper's networks have 58.9 to 65.2 M parameters and were trained for 250,000 steps of 16,384 molecules, from 723 M of ZINC15.
* Heads: SVR of scikit-learn with its default values, and an MLP of 128 hidden units for 10,000 steps, as here. The paper does not say how
  it scaled features and targets.
* Split and repetitions: not reported. Each cell is one number, without a spread. Whether molecules of the data sets were in the pretraining
  data is not reported either.
* Unit: the caption says RMSE. But an RMSE of 5.09 or 3.94 for Morgan fingerprints on FreeSolv would be worse than that of predicting the
  mean (3.85). So the paper may print mean squared errors. This is an inference; the paper does not say so."""


def published_section() -> list[str]:
    """The Markdown section."""
    rows = [[name, *cells] for name, cells in PUBLISHED.items()]
    return [
        "## Published numbers, with a different protocol",
        DIFFERENCES,
        markdown_table(["model (latent K x D)", *COLUMNS], rows),
    ]
