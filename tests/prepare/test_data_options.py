"""Options of the data commands: their defaults, and what their help loads."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from nemo_cmim.cli import build_parser
from nemo_cmim.prepare.settings import Settings
from nemo_cmim.zinc.transfer import RetryPolicy


@pytest.mark.parametrize(
    ("command", "settings", "without"),
    [("prepare", Settings, {"extras", "atom_maps"}), ("download", RetryPolicy, {"backoff", "longest_wait"})],
)
def test_options_have_the_defaults_of_the_settings(command: str, settings: type, without: set[str]) -> None:
    options = vars(build_parser().parse_args([command, "in", "-o", "out"]))
    defaults = {field.name: field.default for field in dataclasses.fields(settings) if field.name not in without}
    assert {name: options[name] for name in defaults} == defaults
    assert {name: type(options[name]) for name in defaults} == {name: type(value) for name, value in defaults.items()}


def test_help_shows_the_defaults_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["prepare", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "largest molecular weight to keep, Da; inf: no limit (default: 500)" in shown
    assert f"(default: {Settings.shard_molecules:,})" in shown and "(default: the paper's, 0.000137)" in shown


def test_help_loads_no_heavy_package() -> None:
    code = (
        "import sys; from nemo_cmim.cli import build_parser; build_parser(); print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "rdkit", "pandas", "numpy", "sklearn", "dask", "jinja2", "requests"}.isdisjoint(done.stdout.split())
