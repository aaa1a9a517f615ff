"""The paper's image experiments (Sec. 3.1-3.6, D.1). `python -m examples.images --help` explains how to run them."""
