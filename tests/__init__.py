"""A package, so that `from tests import reference` means this folder and not the "tests" that molsets installs."""
