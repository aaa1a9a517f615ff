"""Settings of the service, checked."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ..arguments import check_choice, check_integer, check_positive
from ..errors import ConfigError
from .radius import RADIUS_UNITS

__all__ = ["ServeSettings"]

_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class ServeSettings:
    """Settings of `nemo-cmim serve`.

    Attributes:
        model: Name of a shipped model, or path of a model file; None: the default shipped model.
        device: Device of the network; None: a GPU if there is one, else the CPU.
        precision: See `load`.
        host: Address to listen on.
        port: Port to listen on; 0: a free one.
        workers: Number of processes, each with its own copy of the model.
        threads: Threads of torch in each process; None: the cores divided by the workers.
        api_key: Key that clients must send; None: none is needed.
        cors_origins: Origins whose web pages may call the service.
        allowed_hosts: Names under which the service may be called, in addition to those of this computer, see `hosts`.
        radius_unit: What `scaled_radius` of a request means: "auto", MolMIM's radius, scaled to the latents of the model; "absolute"; or
            "spread", see `CMIMModel.sample`.
        max_rows: Maximum number of molecules or latents in a request.
        max_characters: Maximum number of characters of a SMILES.
        max_evaluations: Maximum number of molecules that are decoded for a request: particles * iterations of a search.
        max_bytes: Maximum size of a body.
        max_pending_bytes: Maximum size of all bodies that a process holds while they are read; at least one body may be read.
        max_connections: Maximum number of open connections of a process.
        idle_timeout: Seconds for which a connection may be open without a request.
        body_timeout: Seconds within which a body must arrive.
        deadline: Seconds within which a request must be answered, counted from the end of its body.
        drain: Seconds for which requests are still answered after SIGTERM.
        queue: Maximum number of short requests that wait for the worker of a process, and of long ones.
        max_batch: Maximum number of molecules that are computed together.
        batch_wait: Seconds for which an idle worker waits for more requests.

    Raises:
        ConfigError: If one is out of range.
    """

    model: str | None = None
    device: str | None = None
    precision: str = "fp32"
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int | None = None
    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    radius_unit: str = "auto"
    max_rows: int = 1000
    max_characters: int = 2000
    max_evaluations: int = 100_000
    max_bytes: int = 16 * 2**20
    max_pending_bytes: int = 256 * 2**20
    max_connections: int = 1000
    idle_timeout: float = 15.0
    body_timeout: float = 10.0
    deadline: float = 300.0
    drain: float = 30.0
    queue: int = 256
    max_batch: int = 256
    batch_wait: float = 0.002

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, _PRECISIONS)
        check_choice("radius_unit", self.radius_unit, RADIUS_UNITS)
        check_integer("port", self.port, 0, 65535)
        check_integer("workers", self.workers, 1, 256)
        check_integer("threads", self.threads, 1, optional=True)
        for name in ("max_rows", "max_characters", "max_evaluations", "max_bytes", "max_pending_bytes"):
            check_integer(name, getattr(self, name))
        for name in ("max_connections", "queue", "max_batch"):
            check_integer(name, getattr(self, name))
        for name in ("idle_timeout", "body_timeout", "deadline", "drain"):
            check_positive(name, getattr(self, name))
        if self.batch_wait:
            check_positive("batch_wait", self.batch_wait, 1.0)
        for name in self.allowed_hosts:
            if not _HOST.fullmatch(name):
                raise ConfigError(
                    f"allowed_hosts must have names without scheme, port and path, found {name!r}. Pass a name such as my-server.example."
                )
        if self.api_key is not None and (len(self.api_key) < 8 or not self.api_key.isascii() or not self.api_key.isprintable()):
            raise ConfigError("The API key must have at least 8 printable ASCII characters.")

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this computer can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that the header `Host` of a request may contain, without the port; None: any.

        A service that listens on this computer only is protected from web pages whose name is resolved to this computer (DNS rebinding).
        """
        if not self.is_loopback and not self.allowed_hosts:
            return None
        own = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset(name.lower() for name in ("localhost", "127.0.0.1", "[::1]", own, *self.allowed_hosts))
