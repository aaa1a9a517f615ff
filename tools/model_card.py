"""The text of a shipped model's card, made of facts alone: settings, the run's records, the data's manifest, measurements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from nemo_cmim.config import ModelConfig, to_mapping
from nemo_cmim.store.manifest import StoreManifest
from nemo_cmim.tokenizers import Vocabulary
from nemo_cmim.version import __version__

__all__ = ["SOURCES", "Facts", "Sampling", "Training", "card", "elements"]

SOURCES = {
    "ZINC15": (
        "ZINC15, 2D tranches of files.docking.org/2D",
        "free to use for everyone; major portions may not be passed on without the permission of ZINC's authors",
    ),
    "MOSES": (
        "MOSES, from the PyPI package molsets, drawn by its authors from the ZINC Clean Leads collection",
        "the package is under the MIT licence; ZINC's terms hold for the molecules",
    ),
}
_OBJECTIVES = {
    "cmim": "the contrastive Mutual Information Machine (cMIM, Livne 2025)",
    "mim": "the Mutual Information Machine (MIM, Livne et al. 2019), which cMIM extends by a contrastive term",
}
# What a reader may ask about, by the tokens that show it.
_RARE = {
    "triple bonds (`#`)": r"#",
    "positive nitrogen without hydrogen (`[N+]`, as in nitro groups)": r"\[N\+\]",
    "other positive atoms": r"\[(?!N\+\]).*\+\d*\]",
    "negative atoms": r"\[.*-\d*\]",
    "double bonds with stereo (`/`, `\\`)": r"[/\\]",
    "stereocentres": r"\[.*@.*\]",
    "fluorine": r"F",
    "chlorine": r"Cl",
    "bromine": r"Br",
    "iodine": r"I",
    "phosphorus": r"[Pp]|\[P.*\]",
    "boron": r"[Bb]|\[B(?!r).*\]",
    "isotopes": r"\[\d.*\]",
}
_ELEMENT = re.compile(r"(?:\[\d*([A-Z][a-z]?|se|as|te|[bcnops]).*\]|(Cl|Br|[BCNOPSFIbcnops]))")
_FAR = 0.5  # root mean square of the latents' coordinates: below, the prior N(0, I) lies outside of them
_FEW = 1000  # molecules of all: an element in fewer tokens than this was hardly learnt


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the run's records say, up to the step whose weights ship.

    Attributes:
        step: That step.
        last_step: The last step of the run.
        molecules: Seen, repetitions counted.
        batch: Molecules of a step.
        hours: Of these steps, without validation.
        order: What decides the order of molecules: `seed`, `molecules`.
        validation_loss: At that step, nats per molecule; None if it was not measured there.
        losses: Means over the last steps, by the names of `steps.jsonl`.
        averaged: So many last steps.
    """

    step: int
    last_step: int
    molecules: int
    batch: int
    hours: float
    order: Mapping[str, int]
    validation_loss: float | None
    losses: Mapping[str, float]
    averaged: int


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is decoded from latents drawn at random.

    Attributes:
        prior: Of the prior: counts of `samples`, `valid` SMILES, and `different` molecules among these.
        around: The same of q(z|x), one sample for each molecule of the test split.
        rms: Root mean square of the coordinates of these molecules' posterior means.
        std: Mean standard deviation of a coordinate under q(z|x).
    """

    prior: Mapping[str, int]
    around: Mapping[str, int]
    rms: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a card tells.

    Attributes:
        name: The model's.
        config: Its settings.
        vocabulary: Its tokens.
        parameters: Numbers in its weights.
        training: Of the run.
        data: Of the prepared folder.
        sources: For each key of `SOURCES` the `files`, and the lines `read` and `kept`.
        measured: `token_accuracy`, `reconstruction`, `validity` on `held_out` molecules.
        held_out: Molecules of the test split.
        sampling: Of the same weights; None for a model without prior.
        half: What half precision changes: the `difference` of each kind of embedding of so many `molecules`, and the shares of the
            weights that are `stored` so, made `zero` by it, or `subnormal` in it.
        hardware: What it was trained on.
        commit: Of the code that trained it.
        commands: That make it again.
        numbers: Tables by their titles: `protocol`, a text, and `rows`, mappings from column to value.
    """

    name: str
    config: ModelConfig
    vocabulary: Vocabulary
    parameters: int
    training: Training
    data: StoreManifest
    sources: Mapping[str, Mapping[str, int]]
    measured: Mapping[str, float]
    held_out: int
    sampling: Sampling | None
    half: Mapping[str, Any]
    hardware: str
    commit: str
    commands: tuple[str, ...]
    numbers: Mapping[str, Mapping[str, Any]]


def card(facts: Facts) -> str:
    """The card, Markdown."""
    parts = (_head, _architecture, _data, _training, _results, _downstream, _use, _limits, _storage, _licence, _again)
    return "\n".join(line for part in parts for line in (*part(facts), "")).rstrip() + "\n"


def elements(tokens: Mapping[str, int]) -> dict[str, int]:
    """How many tokens hold each element, the most frequent first."""
    counts: dict[str, int] = {}
    for token, count in tokens.items():
        if found := _ELEMENT.fullmatch(token):
            element = (found[1] or found[2]).capitalize()
            counts[element] = counts.get(element, 0) + count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _head(facts: Facts) -> Iterator[str]:
    network, objective = facts.config.network, facts.config.objective.name
    yield f"# {facts.name}"
    yield ""
    yield (
        f"Vectors of small molecules. A network of {facts.parameters / 1e6:.2f} million parameters, trained on SMILES by "
        f"{_OBJECTIVES.get(objective, f'the objective `{objective}`')}."
    )
    yield ""
    yield f'    nemo_cmim.embed(["CCO"], model="{facts.name}")   # float32 [1, {network.hidden_size}]'


def _architecture(facts: Facts) -> Iterator[str]:
    network = facts.config.network
    yield "## Architecture"
    yield ""
    bottleneck = f"{network.latents} latent{'s' if network.latents > 1 else ''} of width {network.hidden_size}"
    yield (
        f"A {network.encoder} encoder to {bottleneck if network.has_bottleneck else 'a state for each token'}, and an autoregressive "
        f"decoder that reads it. {facts.parameters:,} parameters, {len(facts.vocabulary)} tokens. All sizes:"
    )
    yield from _block(to_mapping(network))


def _data(facts: Facts) -> Iterator[str]:
    data = facts.data
    counts = {split: content["molecules"] for split, content in data.splits.items()}
    yield "## Data"
    yield ""
    yield "| source | files | lines read | molecules kept | licence |"
    yield "|---|---|---|---|---|"
    for key, found in facts.sources.items():
        text, licence = SOURCES[key]
        yield f"| {text} | {found['files']:,} | {found['read']:,} | {found['kept']:,} | {licence} |"
    yield ""
    yield (
        f"{data.counts['kept']:,} molecules, each once: {counts['train']:,} to train on, {counts['valid']:,} for validation, "
        f"{counts['test']:,} for tests. {data.counts['rejected']:,} lines were rejected: "
        + ", ".join(f"{reason} {count:,}" for reason, count in data.rejected.items())
        + "."
    )
    reactivity = sorted({code[2] for code in data.tranches})
    if reactivity:
        yield f"The {len(data.tranches)} ZINC tranches are of reactivity {', '.join(reactivity)}."
    yield "Molecules were canonicalised by RDKit " + data.versions["rdkit"] + " and prepared with these settings:"
    yield from _block(data.settings)


def _training(facts: Facts) -> Iterator[str]:
    run, config = facts.training, facts.config
    yield "## Training"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| objective | `{config.objective.name}`, tau {config.objective.tau:g}, negatives {config.objective.negatives} |"
    yield f"| steps | {run.step:,}, of a run of {run.last_step:,} |"
    epochs = run.molecules / facts.data.splits["train"]["molecules"]
    yield f"| molecules seen | {run.molecules:,}, {epochs:.2f} times the training data |"
    yield f"| batch | {run.batch:,} molecules |"
    yield f"| optimiser | {_flow(to_mapping(config.optim), without=('lr', 'sched'))} |"
    sched = "constant" if config.optim.sched is None else _flow(to_mapping(config.optim.sched))
    yield f"| learning rate | peak {config.optim.lr:g}; {sched} |"
    yield f"| augmentation | {_flow(to_mapping(config.augmentation))} |"
    yield f"| seed of the molecules' order | {run.order['seed']} |"
    yield f"| hardware | {facts.hardware} |"
    yield f"| time | {run.hours:.1f} hours of training steps, without validation |"
    yield f"| code | nemo_cmim {__version__}, commit {facts.commit} |"
    yield ""
    yield f"Means of the last {run.averaged:,} training steps, nats (per molecule, token or latent dimension as named):"
    yield ""
    yield "| term | value |"
    yield "|---|---|"
    for name, value in run.losses.items():
        yield f"| {name} | {value:.4g} |"
    if run.validation_loss is not None:
        yield f"| validation loss at that step | {run.validation_loss:.4g} |"


def _results(facts: Facts) -> Iterator[str]:
    measured = facts.measured
    yield "## Results on molecules that it was not trained on"
    yield ""
    yield (
        f"{facts.held_out:,} molecules of the test split, the weights as they ship, greedy decoding of the posterior mean."
        + (
            " Token accuracy is on canonical SMILES, although it was trained on random spellings."
            if facts.config.augmentation.enumerate_smiles
            else ""
        )
    )
    yield ""
    yield "| token accuracy (teacher forcing) | the same molecule, however spelled | valid SMILES |"
    yield "|---|---|---|"
    yield f"| {measured['token_accuracy']:.1%} | {measured['reconstruction']:.1%} | {measured['validity']:.1%} |"
    if (sampling := facts.sampling) is None:
        return
    yield ""
    yield "Latents drawn at random (seed 0), decoded greedily:"
    yield ""
    yield "| drawn | samples | valid SMILES | different molecules |"
    yield "|---|---|---|---|"
    for drawn, counts in (
        ("from the prior: `sample(n)`", sampling.prior),
        ("once around each of so many test molecules: `sample(1, smiles=..., scaled_radius=1)`", sampling.around),
    ):
        yield f"| {drawn} | {counts['samples']:,} | {_share(counts)} | {counts['different']:,} |"


def _downstream(facts: Facts) -> Iterator[str]:
    yield "## Downstream numbers"
    yield ""
    yield "How well its vectors predict measured properties, beside fingerprints and random weights: examples/RESULTS.md."
    for title, block in facts.numbers.items():
        rows = block["rows"]
        yield ""
        yield f"**{title}.** {block['protocol']}"
        yield ""
        yield "| " + " | ".join(rows[0]) + " |"
        yield "|" + "---|" * len(rows[0])
        for row in rows:
            yield "| " + " | ".join(str(row[column]) for column in rows[0]) + " |"


def _use(facts: Facts) -> Iterator[str]:
    yield "## Intended use"
    yield ""
    yield (
        "Features of organic, drug-like molecules for regression and classification of small data sets, for search by similarity, and "
        "for learning how such models work. Compare with fingerprints on your own data before you rely on them: `nemo-cmim regress`."
    )
    if facts.config.objective.name != "cmim":
        yield ""
        yield "It ships to be compared with `cmim_small`, which had the same budget and data. Use that one otherwise."


def _limits(facts: Facts) -> Iterator[str]:
    kept, tokens = facts.data.counts["kept"], facts.data.tokens
    seen = elements(tokens)
    chemical = [t for t, is_chemical in zip(facts.vocabulary.tokens, facts.vocabulary.is_chemical) if is_chemical]
    unseen = sum(token not in tokens for token in chemical)
    longest = max(int(n) for content in facts.data.splits.values() for n in content["lengths"])
    yield "## Limits"
    yield ""
    yield "* Not for clinical or safety decisions, nor for any decision on a molecule without an experiment."
    yield f"* A tiny model: {facts.parameters / 1e6:.2f} million parameters, where the paper's has 65, and far fewer molecules seen."
    yield f"* SMILES of at most {facts.config.network.max_tokens} tokens; longer ones are an error. In its data the longest has {longest}."
    few = [element for element, count in seen.items() if count < _FEW]
    yield f"* Elements in its data: {', '.join(e for e in seen if e not in few)}" + (
        f"; in fewer than {_FEW:,} tokens: {', '.join(few)}." if few else "."
    )
    yield (
        f"* {unseen} of the {len(chemical)} chemical tokens never occur in its data. A molecule that holds one is embedded all the "
        "same, by numbers which no molecule of its data taught it."
    )
    yield from _far_prior(facts)
    yield "* What is rare in its data is embedded badly. Tokens per 1,000 of its molecules:"
    yield ""
    yield "| what | per 1,000 molecules |"
    yield "|---|---|"
    for what, pattern in _RARE.items():
        count = sum(n for token, n in tokens.items() if re.fullmatch(pattern, token))
        yield f"| {what} | {1000 * count / kept:.3g} |"


def _far_prior(facts: Facts) -> Iterator[str]:
    """What to expect of samples, where latents are much smaller than the prior says."""
    found = facts.sampling
    if found is None or found.rms > _FAR:
        return
    clamped = found.std < 1.01 * facts.config.network.min_variance**0.5
    yield (
        f"* Its latents lie close to the origin: their coordinates have a root mean square of {found.rms:.2g}, and the standard deviation "
        f"of q(z|x) is {found.std:.2g}{', the least that `min_variance` allows' if clamped else ''}, where the prior N(0, I) has 1. So "
        f"`model.sample(n)`, which draws from the prior, lies far outside of them: {_share(found.prior)} of its SMILES are valid, against "
        f"{_share(found.around)} around molecules, at `scaled_radius=1`."
    )


def _share(counts: Mapping[str, int]) -> str:
    return f"{counts['valid'] / counts['samples']:.1%}"


def _storage(facts: Facts) -> Iterator[str]:
    half = facts.half
    differences = ", ".join(f"{value:.1e} (`{kind}`)" for kind, value in half["difference"].items())
    yield "## Half precision"
    yield ""
    yield (
        f"{half['stored']:.0%} of the weights are stored as float16, norms, biases and the heads of the posterior as float32; all are "
        f"computed with as float32. Against the trained weights, the embeddings of {half['molecules']:,} held-out molecules change by at "
        f"most, relative to their length: {differences}. {half['zero']:.2%} of the weights become zero, {half['subnormal']:.2%} lose "
        "digits because they are below 6e-5."
    )


def _licence(facts: Facts) -> Iterator[str]:
    yield "## Licence"
    yield ""
    yield "The weights are under Apache-2.0, as the package. No molecules ship with them; those of the data have the licences named above."


def _again(facts: Facts) -> Iterator[str]:
    yield "## How to make it again"
    yield ""
    yield f"With the code of commit {facts.commit}:"
    yield ""
    for command in facts.commands:
        yield f"    {command}"


def _block(mapping: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    for line in yaml.safe_dump({k: v for k, v in mapping.items() if v is not None}, sort_keys=False).splitlines():
        yield f"    {line}"


def _flow(mapping: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    return ", ".join(f"{k} {v}" for k, v in mapping.items() if v is not None and k not in without)
