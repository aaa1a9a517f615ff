"""The text of a shipped model's card, from facts only: settings, records of the run, the data's manifest, measurements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from nemo_cmim.config import ModelConfig
from nemo_cmim.mappings import to_mapping
from nemo_cmim.markdown import markdown_table
from nemo_cmim.store.manifest import StoreManifest
from nemo_cmim.tokenizers import Vocabulary
from nemo_cmim.version import __version__

__all__ = ["SOURCES", "Facts", "Sampling", "Training", "card", "elements"]

SOURCES = {
    "ZINC15": (
        "ZINC15, 2D tranches of files.docking.org/2D",
        "free to use for everyone; major portions may not be redistributed without the permission of ZINC's authors",
    ),
    "MOSES": (
        "MOSES, from the PyPI package molsets, drawn by its authors from the ZINC Clean Leads collection",
        "the package is under the MIT licence; ZINC's terms apply to the molecules",
    ),
    "diverse": (
        "Public collections outside ZINC: ChEMBL bioactives (also by FS-Mol), patent chemistry (USPTO), PubChem substances, natural "
        "products, PDB ligands, metabolites, industrial chemicals; the molecules of the reported property sets were removed",
        "per collection: CC0, CC BY 4.0 (NPAtlas), CC BY-SA 3.0 (ChEMBL) and 4.0 (RepoRT), MIT, BSD-3-Clause, Apache-2.0; the list, and "
        "why weights may be trained on them, is in docs/training.md",
    ),
}
_OBJECTIVES = {
    "cmim": "the contrastive Mutual Information Machine (cMIM, Livne 2025)",
    "mim": "the Mutual Information Machine (MIM, Livne et al. 2019), which cMIM extends by a contrastive term",
}
# Features of molecules, and regular expressions of the tokens that contain them.
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
_FAR = 0.5  # root mean square of the latents' coordinates; below it, most of the prior N(0, I) is far from all latents
_FEW = 1000  # tokens: an element with fewer was hardly learnt


@dataclass(frozen=True, kw_only=True)
class Training:
    """Records of the training run, up to the step whose weights ship.

    Attributes:
        step: The step whose weights ship.
        last_step: The last step of the run.
        molecules: Number of molecules seen, including repetitions.
        batch: Number of molecules in a step.
        hours: Duration of these steps, without validation.
        order: What the order of the molecules depends on: `seed`, `molecules`.
        validation_loss: Loss at `step`, nats per molecule; None if it was not measured there.
        curve: The learning curve: means over up to `averaged` steps before some steps, the last of them `step`. By their names in
            `steps.jsonl`: `step` and `molecules` (seen), `lr`, `train_loss` and its terms.
        averaged: Number of steps in the means of the last row.
    """

    step: int
    last_step: int
    molecules: int
    batch: int
    hours: float
    order: Mapping[str, int]
    validation_loss: float | None
    curve: Sequence[Mapping[str, float]]
    averaged: int


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What the model decodes from random latents.

    Attributes:
        prior: Samples of the prior: numbers of `samples`, of `valid` SMILES, of `different` molecules among them, and of `new` ones among
            these, which are not in the training data.
        fitted: The same numbers for samples of the fitted density; None if the model has none.
        bandwidth: Bandwidth of that density; None if it was not fitted for shipping.
        around: The same numbers for q(z|x), with one sample for each molecule of the test split.
        rms: Root mean square of the coordinates of these molecules' posterior means.
        std: Mean standard deviation of a coordinate under q(z|x).
    """

    prior: Mapping[str, int]
    fitted: Mapping[str, int] | None
    bandwidth: float | None
    around: Mapping[str, int]
    rms: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The content of a card.

    Attributes:
        name: Name of the model.
        config: Its settings.
        vocabulary: Its vocabulary.
        parameters: Its number of parameters.
        training: Records of its training run.
        data: Manifest of the token store that it was trained on.
        sources: For each key of `SOURCES` the numbers of `files`, and of lines `read` and `kept`.
        measured: `token_accuracy`, `reconstruction`, `validity` on held-out molecules.
        held_out: Number of these molecules.
        sampling: Samples of the model with the weights that ship; None for a model without prior.
        half: Effect of half precision: the largest `difference` of each kind of embedding over a number of `molecules`, and the fractions
            of the weights that are `stored` in half precision, that become `zero`, and that become `subnormal`.
        hardware: Hardware of the training.
        commit: Commit of the code that trained the model.
        commands: Commands that reproduce the model.
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
    """The number of tokens with each element, the most frequent first."""
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
        f"Embeddings of small molecules. A network of {facts.parameters / 1e6:.2f} million parameters, trained on SMILES with "
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
        f"A {network.encoder} encoder with {bottleneck if network.has_bottleneck else 'one state for each token'} as its output, and an "
        f"autoregressive decoder. {facts.parameters:,} parameters, {len(facts.vocabulary)} tokens. All sizes:"
    )
    yield from _block(to_mapping(network))


def _data(facts: Facts) -> Iterator[str]:
    data = facts.data
    counts = {split: content["molecules"] for split, content in data.splits.items()}
    yield "## Data"
    yield ""
    rows = []
    for key, found in facts.sources.items():
        text, licence = SOURCES[key]
        rows.append([text, f"{found['files']:,}", f"{found['read']:,}", f"{found['kept']:,}", licence])
    yield markdown_table(["source", "files", "lines read", "molecules kept", "licence"], rows)
    yield ""
    yield (
        f"{data.counts['kept']:,} different molecules: {counts['train']:,} for training, {counts['valid']:,} for validation, "
        f"{counts['test']:,} for tests. {data.counts['rejected']:,} lines were rejected: "
        + ", ".join(f"{reason} {count:,}" for reason, count in data.rejected.items())
        + "."
    )
    reactivity = sorted({code[2] for code in data.tranches})
    if reactivity:
        yield f"The {len(data.tranches)} ZINC tranches have the reactivity {', '.join(reactivity)}."
    yield "Molecules were canonicalised by RDKit " + data.versions["rdkit"] + " and prepared with these settings:"
    yield from _block(data.settings)


def _training(facts: Facts) -> Iterator[str]:
    run, config, start = facts.training, facts.config, facts.config.restore_from_path
    yield "## Training"
    yield ""
    epochs = run.molecules / facts.data.splits["train"]["molecules"]
    sched = "constant" if config.optim.sched is None else _flow(to_mapping(config.optim.sched))
    settings = {
        "objective": f"`{config.objective.name}`, tau {config.objective.tau:g}, negatives {config.objective.negatives}",
        "initial weights": f"those of `{start}`; its own training is not counted below" if start else "random",
        "steps": f"{run.step:,}, of a run of {run.last_step:,}",
        "molecules seen": f"{run.molecules:,}, {epochs:.2f} times the training data",
        "batch": f"{run.batch:,} molecules",
        "optimiser": _flow(config.optim.arguments, without=("lr",)),
        "learning rate": f"peak {config.optim.lr:g}; {sched}",
        "augmentation": _flow(to_mapping(config.augmentation)),
        "seed of the order of molecules": str(run.order["seed"]),
        "hardware": facts.hardware,
        "time": f"{run.hours:.1f} hours of training steps, without validation",
        "code": f"nemo_cmim {__version__}, commit {facts.commit}",
    }
    yield markdown_table(["setting", "value"], settings.items())
    yield ""
    yield (
        f"Learning curve: means over {run.averaged:,} training steps, in nats (per molecule, token or latent dimension, as in the name)."
        + ("" if run.validation_loss is None else f" Validation loss at the last of them: {run.validation_loss:.4g}.")
    )
    yield ""
    cells = [[f"{row[name]:,.0f}" if name in ("step", "molecules") else f"{row[name]:.4g}" for name in row] for row in run.curve]
    yield markdown_table([name.removeprefix("train/") for name in run.curve[-1]], cells)


def _results(facts: Facts) -> Iterator[str]:
    measured = facts.measured
    yield "## Results on held-out molecules"
    yield ""
    yield (
        f"{facts.held_out:,} molecules of the test split, with the weights that ship; greedy decoding of the posterior mean."
        + (
            " Token accuracy is measured on canonical SMILES, although the model was trained on randomized SMILES."
            if facts.config.augmentation.strings != "canonical"
            else ""
        )
    )
    yield ""
    fractions = [f"{measured[name]:.1%}" for name in ("token_accuracy", "reconstruction", "validity")]
    yield markdown_table(
        ["token accuracy (teacher forcing)", "exact reconstruction (the same molecule)", "valid SMILES"], [fractions]
    )
    if (sampling := facts.sampling) is None:
        return
    yield ""
    yield "Random latents (seed 0), decoded greedily:"
    yield ""
    bandwidth = f" (bandwidth {sampling.bandwidth:g})" if sampling.bandwidth else ""
    drawn = {
        f"from the fitted density{bandwidth}: `sample(n)`": sampling.fitted,
        'from the prior: `sample(n, density="normal")`': sampling.prior,
        'from q(z|x) of test molecules, one sample each: `sample(1, smiles=..., unit="posterior")`': sampling.around,
    }
    rows = [
        [name, f"{counts['samples']:,}", _valid(counts), f"{counts['different']:,}", f"{counts['new']:,}"]
        for name, counts in drawn.items()
        if counts
    ]
    yield markdown_table(["drawn", "samples", "valid SMILES", "different molecules", "of these, not in the training data"], rows)


def _downstream(facts: Facts) -> Iterator[str]:
    yield "## Property prediction"
    yield ""
    yield "Errors of predicted properties, compared with fingerprints and random weights, are in examples/RESULTS.md."
    for title, block in facts.numbers.items():
        rows = block["rows"]
        yield ""
        yield f"**{title}.** {block['protocol']}"
        yield ""
        yield markdown_table(list(rows[0]), [[str(row[column]) for column in rows[0]] for row in rows])


def _use(facts: Facts) -> Iterator[str]:
    yield "## Intended use"
    yield ""
    yield (
        "Features of organic, drug-like molecules for regression and classification on small data sets, for similarity search, and for "
        "learning how such models work. Compare them with fingerprints on your own data before you rely on them: `nemo-cmim regress`."
    )
    if not facts.config.network.heads.sources:
        yield ""
        yield (
            "This model ships as a control, trained without observed properties: compare `cmim_eq9_small_v3` (Eq. 9) with `mim_small_v3` "
            "(no contrastive term), which had the same data and number of steps. For everything else, use the default model."
        )


def _limits(facts: Facts) -> Iterator[str]:
    kept, tokens = facts.data.counts["kept"], facts.data.tokens
    seen = elements(tokens)
    chemical = [t for t, is_chemical in zip(facts.vocabulary.tokens, facts.vocabulary.is_chemical) if is_chemical]
    unseen = sum(token not in tokens for token in chemical)
    longest = max(int(n) for content in facts.data.splits.values() for n in content["lengths"])
    yield "## Limits"
    yield ""
    yield "* Not for clinical or safety decisions, and not for any decision on a molecule without an experiment."
    yield (
        f"* A tiny model: {facts.parameters / 1e6:.2f} million parameters, compared with the paper's 65 million, trained on far fewer "
        "molecules."
    )
    max_tokens = facts.config.network.max_tokens
    yield f"* SMILES of at most {max_tokens} tokens; longer ones are an error. The longest in its training data has {longest}."
    few = [element for element, count in seen.items() if count < _FEW]
    yield f"* Elements in its training data: {', '.join(e for e in seen if e not in few)}" + (
        f"; in fewer than {_FEW:,} tokens: {', '.join(few)}." if few else "."
    )
    yield (
        f"* {unseen} of the {len(chemical)} chemical tokens never occur in its training data. A molecule with such a token is embedded, "
        "but the weights for the token are not trained."
    )
    yield from _far_prior(facts)
    yield "* Molecules with features that are rare in its training data are embedded poorly. Tokens per 1,000 of its training molecules:"
    yield ""
    counts = {what: sum(n for token, n in tokens.items() if re.fullmatch(pattern, token)) for what, pattern in _RARE.items()}
    rows = [[what, f"{1000 * count / kept:.3g}"] for what, count in counts.items()]
    yield markdown_table(["feature", "tokens per 1,000 molecules"], rows)


def _far_prior(facts: Facts) -> Iterator[str]:
    """What to expect of samples if the latents are much smaller than under the prior."""
    found = facts.sampling
    if found is None or found.rms > _FAR:
        return
    clamped = found.std < 1.01 * facts.config.network.min_variance**0.5
    yield (
        f"* Its latents are close to the origin: their coordinates have a root mean square of {found.rms:.2g}, and the standard deviation "
        f"of q(z|x) is {found.std:.2g}{', the minimum that `min_variance` allows' if clamped else ''}. Both are 1 for the prior N(0, I). "
        f"So samples of the prior are far from the latents of molecules: {_valid(found.prior)} of their SMILES are valid, compared with "
        f"{_valid(found.around)} from q(z|x)."
    )


def _valid(counts: Mapping[str, int]) -> str:
    return f"{counts['valid'] / counts['samples']:.1%}"


def _storage(facts: Facts) -> Iterator[str]:
    half = facts.half
    differences = ", ".join(f"{value:.1e} (`{kind}`)" for kind, value in half["difference"].items())
    yield "## Half precision"
    yield ""
    yield (
        f"{half['stored']:.0%} of the weights are stored as float16; norms and biases are stored as float32. All "
        f"computations are in float32. Compared with the trained weights, the largest relative changes of the embeddings of "
        f"{half['molecules']:,} held-out molecules are {differences}. {half['zero']:.2%} of the weights become zero, and "
        f"{half['subnormal']:.2%} lose digits because they are below 6e-5."
    )


def _licence(facts: Facts) -> Iterator[str]:
    yield "## Licence"
    yield ""
    yield "The weights are under Apache-2.0, like the package. No molecules ship with them; the licences of the data are given above."


def _again(facts: Facts) -> Iterator[str]:
    yield "## How to reproduce it"
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
