"""`nemo-cmim serve`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from ..errors import ConfigError
from .commands import Commands
from .reading import add_model, add_precision

__all__ = ["add_commands"]

_KEY = "NEMO_CMIM_API_KEY"
_SETTINGS = (
    "model", "device", "precision", "host", "port", "workers", "threads", "radius_unit", "max_rows", "max_characters", "max_evaluations",
    "max_bytes", "max_connections", "idle_timeout", "body_timeout", "deadline", "drain", "queue", "max_batch",
)  # fmt: skip


def add_commands(commands: Commands) -> None:
    """Adds the command of this module to the command line."""
    about = (
        "Serves a model over HTTP, with the endpoints of NVIDIA's MolMIM service. The page /docs describes them. Needs "
        "`pip install 'nemo_cmim[serve]'`."
    )
    parser = commands.add_parser("serve", help="serve a model over HTTP", description=about)
    add = parser.add_argument
    add_model(add)
    add_precision(add)
    add("--host", help="address to listen on (default: 127.0.0.1, this computer only)")
    add("--port", type=int, metavar="N", help="port to listen on; 0 = a free one (default: 8000)")
    add("--workers", type=int, metavar="N", help="processes, each with its own copy of the model (default: 1)")
    add("--threads", type=int, metavar="N", help="threads of torch in each process (default: cores / workers)")
    add("--api-key-file", metavar="FILE", help=f"file with the key that clients must send (default: the variable {_KEY}, or none)")
    origin = "origin whose web pages may call the service, for example https://lab.example.org; can be repeated (default: none)"
    add("--cors-origin", action="append", metavar="URL", help=origin)
    name = "name under which clients call the service, as in the header Host; can be repeated (default: of this computer; any with --host)"
    add("--allowed-host", action="append", metavar="NAME", help=name)
    unit = "unit of scaled_radius: auto = MolMIM's radius, scaled to the latents of the model (default: auto)"
    add("--radius-unit", choices=("auto", "absolute", "spread"), help=unit)
    add("--max-rows", type=int, metavar="N", help="maximum number of molecules in a request (default: 1000)")
    add("--max-characters", type=int, metavar="N", help="maximum number of characters of a SMILES (default: 2000)")
    evaluations = "maximum number of molecules decoded for a request, such as particles * iterations (default: 100000)"
    add("--max-evaluations", type=int, metavar="N", help=evaluations)
    add("--max-bytes", type=int, metavar="N", help="maximum size of a request (default: 16 MiB)")
    add("--max-connections", type=int, metavar="N", help="maximum number of open connections of a process (default: 1000)")
    add(
        "--idle-timeout", type=float, metavar="S", help="seconds for which a connection may be open without a request (default: 15)"
    )
    add("--body-timeout", type=float, metavar="S", help="seconds within which a request must arrive (default: 10)")
    add("--deadline", type=float, metavar="S", help="seconds within which a request must be answered (default: 300)")
    add("--drain", type=float, metavar="S", help="seconds for which requests are still answered after SIGTERM (default: 30)")
    add(
        "--queue",
        type=int,
        metavar="N",
        help="maximum number of short requests that wait in a process, and of long ones (default: 256)",
    )
    add("--max-batch", type=int, metavar="N", help="maximum number of molecules that are computed together (default: 256)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ..serve.settings import ServeSettings

    given = {name: value for name in _SETTINGS if (value := getattr(args, name)) is not None}
    settings = ServeSettings(
        **given,
        api_key=_api_key(args.api_key_file),
        cors_origins=tuple(args.cors_origin or ()),
        allowed_hosts=tuple(args.allowed_host or ()),
    )
    # oneDNN, in torch, keeps code for each shape that it has computed, by default for 1,024 of them. 32 are as fast, and memory stays flat.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    try:
        from ..serve.run import listening_socket, run, set_up_log
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "prometheus_client", "starlette", "uvicorn", "pydantic"):
            raise
        raise ConfigError(f"serve needs the package {error.name}: pip install 'nemo_cmim[serve]'.") from error
    set_up_log()
    if not settings.is_loopback and settings.api_key is None:
        print(
            f"nemo-cmim serve: warning: anybody who can reach {settings.host} can use the service. Set an API key.", file=sys.stderr
        )
    listening = listening_socket(settings)
    host, port = listening.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}/docs", flush=True)
    if settings.workers == 1:
        got = run(settings, listening)
    else:
        from ..serve.supervisor import supervise

        got = supervise(settings, listening)
    if got == signal.SIGINT:
        raise KeyboardInterrupt
    if got is None:
        raise ConfigError("The service ended because its processes failed. The lines above have the reason.")


def _api_key(file: str | None) -> str | None:
    if file is None:
        return os.environ.get(_KEY) or None
    return Path(file).read_text(encoding="utf-8").strip()
