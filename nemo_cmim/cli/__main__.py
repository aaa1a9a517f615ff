"""`python -m nemo_cmim.cli` is `nemo-cmim`."""

import sys

from . import main

sys.exit(main())
