"""Training through NeMo and Lightning. Import the modules you need: this package itself pulls in nothing."""
