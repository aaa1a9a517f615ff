"""A package, so that `from tests import reference` means this folder and not the "tests" that molsets installs."""

import os

# One thread per process. With more, each small operation waits until all threads have run, which takes long on a loaded machine.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
