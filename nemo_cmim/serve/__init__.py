"""The HTTP service: the endpoints of NVIDIA's MolMIM service, for a model of this package.

A request goes through `limits` (size, time and key), `parsing` (bounded validation) and `app` (one function per endpoint) into the queue of
`worker`, whose thread owns the model. `run` starts one process, `supervisor` several. FastAPI, uvicorn and prometheus_client belong to the
extra [serve]; only modules of this folder import them.
"""

from .settings import ServeSettings

__all__ = ["ServeSettings"]
