"""Settings and the command line of the service, without starting it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError
from nemo_cmim.serve import ServeSettings


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"port": 70000}, "port must be at most 65535"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"deadline": 0.0}, "deadline must be a number above 0"),
        ({"queue": 0}, "queue must be at least 1"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"api_key": "short"}, "at least 8"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ServeSettings(**settings)


def test_only_this_computer_can_connect_by_default() -> None:
    assert ServeSettings().is_loopback and ServeSettings(host="::1").is_loopback and ServeSettings(host="localhost").is_loopback
    assert not ServeSettings(host="0.0.0.0").is_loopback and not ServeSettings(host="example.org").is_loopback


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_a_missing_extra_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("nemo_cmim.serve") or name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve", "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"needs the package {package}: pip install 'nemo_cmim[serve]'" in said


def test_an_option_out_of_range_is_named_as_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--max-rows", "0"]) == 2
    assert "--max-rows must be at least 1" in capsys.readouterr().err
