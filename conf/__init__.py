"""The Hydra tree of training: defaults, and overrides by name. Installed as `nemo_cmim.conf`."""
