"""What the command line prints: options in place of Python arguments, one line for an error or a warning, `--version`, old option names."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cmim import __version__, cli
from nemo_cmim.cli import build_parser, main
from nemo_cmim.cli.messages import with_options
from nemo_cmim.errors import DataError


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("input")
    made.add_argument("--on-invalid")
    made.add_argument("--smiles", dest="column")
    made.add_argument("--layers", nargs="+")
    made.add_argument("--standardise")
    made.add_argument("--kind")
    made.add_argument("--processes", type=int)
    made.add_argument("--scheduler")
    made.add_argument("--mlp-steps", type=int)
    made.add_argument("--overwrite", action="store_true")
    made.add_argument("--compute-logp", dest="trust_tranches", action="store_false")
    made.add_argument("--column", dest="column", help=argparse.SUPPRESS)
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Pass on_invalid="nan" to keep it.', "Pass --on-invalid nan to keep it."),
        ("Pass on_invalid='nan'.", "Pass --on-invalid nan."),
        ('column="my column"', "--smiles 'my column'"),
        ("name it with column=SMILES, or", "name it with --smiles SMILES, or"),
        ("or pass overwrite=True to replace it.", "or pass --overwrite to replace it."),
        ("Set trust_tranches=False.", "Set --compute-logp."),
        ("Set layers=(1, 2) or layers=(1,).", "Set --layers 1 2 or --layers 1."),
        ('standardise=("desalt", "neutralise")', "--standardise desalt,neutralise"),
        ("processes=4 and scheduler=tcp://a:1 exclude each other", "--processes 4 and --scheduler tcp://a:1 exclude each other"),
        ("processes must be at least 1, found 0.", "--processes must be at least 1, found 0."),
        ("mlp_steps must be at least 1, found 0.", "--mlp-steps must be at least 1, found 0."),
        ('(on_invalid="nan")', "(--on-invalid nan)"),
        ("use on_invalid=nan: a row", "use --on-invalid nan: a row"),
        ("name it with --column.", "name it with --smiles."),  # as other commands call it
        ("--column-names --smiles", "--column-names --smiles"),
        # not arguments of this command
        ("model.kind=mean and kinds=3", "model.kind=mean and kinds=3"),
        ("SMILES at index 0 ('kind=C') is the kind of", "SMILES at index 0 ('kind=C') is the kind of"),
        ("begun with column=None, overwrite=False", "begun with column=None, overwrite=False"),
        ("canonical=True, input=3, --kind mean, mlp_steps_x=1", "canonical=True, input=3, --kind mean, mlp_steps_x=1"),
        ("two processes of mlp_steps(3)", "two processes of mlp_steps(3)"),
        # texts of the user
        ("the SMILES ('CC(kind=O)C1') could not be parsed", "the SMILES ('CC(kind=O)C1') could not be parsed"),
        ("kind=mean.csv, line 3: set kind='mean' and kind=x", "kind=mean.csv, line 3: set --kind mean and --kind x"),
    ],
)
def test_arguments_become_options(text: str, expected: str) -> None:
    assert with_options(text, parser(), ["kind=mean.csv", "--kind"]) == expected


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Runs `nemo-cmim models` with a body of the test's choice."""

    def run(body) -> int:
        monkeypatch.setattr(cli.molecules, "_run_models", lambda args: body())
        return main(["models"])

    return run


def raises(error: BaseException):
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (DataError("a\n  b\n"), 2, "nemo-cmim models: a b"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x.csv"),
            2,
            "nemo-cmim models: x.csv: No such file or directory",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "nemo-cmim models: No space left on device"),
        (OSError("of a library"), 2, "nemo-cmim models: of a library"),
        (KeyboardInterrupt(), 130, "nemo-cmim models: interrupted."),
    ],
)
def test_an_error_is_one_line(run, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str) -> None:
    assert run(raises(error)) == status
    assert capsys.readouterr().err == f"{line}\n"


def test_other_errors_are_bugs_and_keep_their_traceback(run) -> None:
    with pytest.raises(ZeroDivisionError):
        run(raises(ZeroDivisionError()))


def test_a_warning_is_one_line_without_source() -> None:
    code = (
        "import warnings; from nemo_cmim import cli\n"
        "cli.molecules._run_models = lambda args: warnings.warn('left out\\n 3 rows: pass device=\"cpu\"')\n"
        "cli.main(['models'])\n"
        "warnings.warn('afterwards')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stderr.splitlines()
    assert first == 'nemo-cmim models: warning: left out 3 rows: pass device="cpu"'
    assert second.endswith("UserWarning: afterwards")


def test_the_version_needs_no_heavy_package() -> None:
    code = (
        "import sys; from nemo_cmim.cli import main\n"
        "try: main(['--version'])\n"
        "finally: print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"nemo-cmim {__version__}\n"
    assert {"torch", "numpy", "rdkit", "pandas"}.isdisjoint(done.stderr.split())


@pytest.mark.parametrize(
    "arguments", [["--format", "table"], ["--format", "uri"]]
)  # the second is longer than the buffer of stdout
def test_a_full_disk_behind_stdout_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "nemo_cmim.cli", "tranches", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "nemo-cmim tranches: No space left on device"
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_the_same_option_has_the_same_name_and_old_names_still_work() -> None:
    parse = build_parser().parse_args
    assert parse(["prepare", "in", "-o", "out", "--smiles", "x"]).column == "x"
    assert parse(["prepare", "in", "-o", "out", "--column", "x"]).column == "x"
    assert (
        parse(["overlap", "data", "in", "--smiles", "x"]).smiles == parse(["overlap", "data", "in", "--column", "x"]).smiles == "x"
    )
    assert parse(["prepare", "in", "-o", "out", "--standardise", "neutralise, desalt"]).standardise == ("neutralise", "desalt")


@pytest.mark.parametrize("command", ["prepare", "overlap"])
def test_old_names_are_not_in_the_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert "--smiles" in shown and "--column" not in shown and "--desalt" not in shown


@pytest.mark.parametrize(
    "options", ["--standardise neutralise,desalt", "--desalt --neutralise", "--standardise desalt --neutralise"]
)
def test_the_steps_of_standardisation_are_the_settings_of_prepare(tmp_path: Path, options: str) -> None:
    from nemo_cmim.store.manifest import StoreManifest

    (tmp_path / "in.csv").write_text("structure\nCC[O-].[Na+]\nCCO\n")
    command = [
        "prepare",
        str(tmp_path / "in.csv"),
        "-o",
        str(tmp_path / "out"),
        "--processes",
        "1",
        "--smiles",
        "structure",
        *options.split(),
    ]
    assert main(command) == 0
    manifest = StoreManifest.load(tmp_path / "out")
    assert manifest.settings["desalt"] and manifest.settings["neutralise"] and manifest.settings["column"] == "structure"
    assert manifest.rejected == {"duplicate": 1}


def test_an_unknown_step_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.smi").write_text("CCO\n")
    assert main(["prepare", str(tmp_path / "in.smi"), "-o", str(tmp_path / "out"), "--standardise", "salt"]) == 2
    assert (
        "--standardise salt: this step is unknown. Known steps: extras, atom-maps, desalt, neutralise." in capsys.readouterr().err
    )
