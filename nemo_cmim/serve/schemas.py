"""Bodies of requests and answers: the fields, ranges and defaults of MolMIM's service, and a few of our own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "CAFFEINE", "IBUPROFEN",
    "DecodeBody", "Decoded", "EmbeddingBody", "Embeddings", "Error", "GenerateBody", "Generated", "Health", "HiddenBody", "Hiddens",
    "Metadata", "Sampled", "SamplingBody", "Unprocessable",
]  # fmt: skip

CAFFEINE, IBUPROFEN = "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CC(Cc1ccc(cc1)C(C(=O)O)C)C"
"""Molecules of the examples."""

# fail_fast: a list with a million mistakes has one error, not a million.
Finite = Annotated[float, Field(allow_inf_nan=False)]
Sequences = Annotated[
    list[str], Field(fail_fast=True, min_length=1, description="SMILES of molecules.", examples=[[CAFFEINE, IBUPROFEN]])
]
Layers = Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(fail_fast=True, min_length=1, max_length=100)]
Latent = Annotated[list[Finite], Field(fail_fast=True)]
Latents = Annotated[list[Annotated[list[Latent], Field(fail_fast=True)]], Field(fail_fast=True, min_length=1)]
Mask = Annotated[list[Annotated[list[bool], Field(fail_fast=True)]], Field(fail_fast=True)]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Seed = Annotated[
    int | None,
    Field(
        ge=0,
        le=2**63 - 1,
        description="Ours: the same request with the same seed has the same answer. Default: different in each call.",
    ),
]


class _Body(BaseModel):
    """A body; unknown fields are ignored, as in FastAPI."""

    model_config = ConfigDict(extra="ignore")


class EmbeddingBody(_Body):
    """Molecules to embed."""

    sequences: Sequences
    kind: Literal["mean", "informative"] | None = Field(
        None,
        description="Ours. Default: MolMIM's embedding, the posterior mean, averaged over the K latents; with K = 1, as in MolMIM, it "
        'is the latent. "mean": the posterior mean, K * D numbers. "informative": averaged states of the decoder, D numbers.',
    )
    layers: Layers | None = Field(
        None, description='Ours, for kind="informative": decoder layers whose states are concatenated. Default: the last one.'
    )
    on_invalid: Literal["raise", "nan"] = Field(
        "raise",
        description='Ours. "raise": an invalid molecule is an error. "nan": its row is null, and `invalid` gives its index and the reason.',
    )


class HiddenBody(_Body):
    """Molecules whose hidden states are computed."""

    sequences: Sequences


class DecodeBody(_Body):
    """Hidden states to decode, as `/hidden` returns them."""

    hiddens: Latents = Field(description="Latents [N, K, D].")
    mask: Mask | None = Field(None, description="True for each latent [N, K]. Default: all true.")


class SamplingBody(_Body):
    """Molecules to sample around."""

    sequences: Sequences
    beam_size: int = Field(1, ge=1, le=10, description="Partial sequences that are kept while a latent is decoded.")
    num_molecules: int = Field(
        1, ge=1, le=1000, description="Molecules around each molecule; at most 10 in MolMIM. With a beam: at most 1000 / beam_size."
    )
    scaled_radius: Finite = Field(0.7, ge=0, le=2, description="Size of the noise that is added to the latent, in the unit.")
    unit: Literal["absolute", "spread", "posterior"] | None = Field(
        None,
        description="Ours. Default: the setting of the service, see `radius` in /v1/metadata; usually MolMIM's radius, scaled to the "
        'latents of the model. "absolute": the numbers of the latent. "spread": the spread of the latents of molecules. '
        '"posterior": standard deviations of q(z|x).',
    )
    temperature: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = Field(
        None, description="Ours: draw tokens from softmax(logits / temperature). Default: the most likely ones."
    )
    must_contain: Pattern | Annotated[list[Pattern], Field(fail_fast=True, max_length=10)] | None = Field(
        None, description="Ours: SMARTS of substructures. Molecules without them are replaced."
    )
    unique: bool = Field(False, description="Ours: replace molecules that repeat an earlier one around the same molecule.")
    seed: Seed = None

    @model_validator(mode="after")
    def _check_beams(self) -> SamplingBody:
        if self.num_molecules * self.beam_size > 1000:
            raise ValueError(f"num_molecules * beam_size must be at most 1000, found {self.num_molecules} * {self.beam_size}.")
        return self


class GenerateBody(_Body):
    """A molecule to search around."""

    smi: str = Field(description="SMILES of the molecule.", examples=[CAFFEINE])
    algorithm: Literal["CMA-ES", "none"] = Field("CMA-ES", description='"none" samples around the molecule, without a search.')
    num_molecules: int = Field(10, ge=1, le=100, description="Maximum number of molecules in the answer.")
    property_name: Literal["QED", "plogP"] = Field("QED", description="Score of a molecule; plogP is penalised logP.")
    minimize: bool = Field(False, description="Search for low scores instead of high ones.")
    min_similarity: Finite = Field(
        0.7, ge=0, le=1, description='Minimum Tanimoto similarity to the molecule. It has no effect with algorithm="none".'
    )
    particles: int = Field(30, ge=2, le=1000, description="Molecules of an iteration.")
    iterations: int = Field(10, ge=1, le=1000, description="Steps of the search.")
    scaled_radius: Finite = Field(1.0, ge=0, le=2, description="Size of the noise of the first iteration, in the unit.")
    unit: Literal["absolute", "spread"] | None = Field(None, description="Ours, see /sampling.")
    seed: Seed = None


class InvalidMolecule(BaseModel):
    """A molecule that cannot be used."""

    index: int = Field(description="Its index in `sequences`.")
    reason: str


class Embeddings(BaseModel):
    """Vectors, in the order of the molecules."""

    embeddings: list[list[float] | None]
    invalid: list[InvalidMolecule] | None = Field(None, description='Only with on_invalid="nan".')


class Hiddens(BaseModel):
    """Posterior means [N, K, D], and a mask [N, K], which is true."""

    hiddens: list[list[list[float]]]
    mask: list[list[bool]]


class Decoded(BaseModel):
    """A SMILES for each latent. It can be invalid."""

    generated: list[str]
    warnings: list[str] | None = Field(None, description="Ours, if there are any: latents far from those of molecules.")


class Sampled(BaseModel):
    """SMILES around each molecule. They can be invalid."""

    generated: list[list[str]]
    warnings: list[str] | None = Field(None, description="Ours, if there are any: fewer molecules than asked for.")


class Scored(BaseModel):
    """A molecule with its score."""

    smiles: str
    score: float


class Generated(BaseModel):
    """The molecules that were found, the best first, in the forms of MolMIM's hosted and local services."""

    molecules: str = Field(description="As the hosted service: a string that holds a JSON list of {sample, score}.")
    score_type: str = Field(description="As the hosted service: the name of the score.")
    generated: list[Scored] = Field(description="As the local service: a list of {smiles, score}.")
    note: str | None = Field(None, description="Ours: why there are fewer molecules than asked for. Only then.")


class Health(BaseModel):
    """The state of the service."""

    status: str


class Metadata(BaseModel):
    """The model and the limits of the service."""

    model_config = ConfigDict(protected_namespaces=())

    version: str
    modelInfo: list[dict[str, str]]
    model: dict[str, int | str | list[str]]
    limits: dict[str, float]
    radius: dict[str, str | float] = Field(description="Unit of `scaled_radius`, and the factor by which it is multiplied first.")


class Error(BaseModel):
    """Why a request was not answered."""

    detail: str


class Mistake(BaseModel):
    """A mistake in a body. `index` and `reason` are present for a molecule of a list that cannot be used."""

    type: str
    loc: list[int | str]
    msg: str
    index: int | None = None
    reason: str | None = None


class Unprocessable(BaseModel):
    """The mistakes in a body: the first ones, if there are many."""

    detail: list[Mistake]
