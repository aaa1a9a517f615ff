"""Training with NeMo and Lightning. Import the modules that you need: importing this package loads no other module."""
