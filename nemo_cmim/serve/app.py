"""The application: endpoints, health, metadata, metrics, and the description of all of them (OpenAPI)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response

from ..inference import CMIMModel
from ..inference.shipped import list_models, load
from ..version import __version__
from . import schemas
from .limits import Gate, known_paths
from .metrics import CONTENT_TYPE, Metrics
from .radius import radius_unit
from .service import ENDPOINTS, Service
from .settings import ServeSettings
from .worker import Worker

__all__ = ["create_app"]

_LAST_STEP_S = 5.0  # for the step of the worker that nobody waits for any more
_PAGE = Path(__file__).with_name("page.html")
_BODIES: dict[str, tuple[type[Any], type[Any], str]] = {
    "/embedding": (schemas.EmbeddingBody, schemas.Embeddings, "Vectors of molecules"),
    "/hidden": (schemas.HiddenBody, schemas.Hiddens, "Latents of molecules, which /decode accepts"),
    "/decode": (schemas.DecodeBody, schemas.Decoded, "SMILES from latents"),
    "/sampling": (schemas.SamplingBody, schemas.Sampled, "Molecules around molecules"),
    "/generate": (schemas.GenerateBody, schemas.Generated, "Molecules around a molecule, with better scores"),
}
_OTHERS = ("/v1/health/live", "/v1/health/ready", "/v1/metadata", "/v1/metrics", "/openapi.json", "/docs")
_REASONS = {
    400: "The request is malformed", 401: "The API key is missing or wrong", 408: "The body did not arrive in time",
    413: "The body is too large", 415: "The body is not JSON", 421: "The header Host has a name that is not allowed",
    500: "Internal error", 503: "The service is busy, not ready or stopping",
    504: "The deadline has passed",
}  # fmt: skip
_EXAMPLES: dict[str, dict[str, Any]] = {
    "/embedding": {"sequences": [schemas.CAFFEINE, schemas.IBUPROFEN]},
    "/hidden": {"sequences": [schemas.CAFFEINE]},
    "/sampling": {"sequences": [schemas.CAFFEINE], "num_molecules": 3, "scaled_radius": 0.7},
    "/generate": {
        "smi": schemas.CAFFEINE, "algorithm": "CMA-ES", "num_molecules": 5, "property_name": "QED", "minimize": False,
        "min_similarity": 0.2, "particles": 8, "iterations": 3,
    },
}  # fmt: skip


def create_app(
    settings: ServeSettings,
    *,
    loader: Callable[[], CMIMModel] | None = None,
    all_ready: Callable[[bool], bool] = lambda is_ready: is_ready,
    on_failure: Callable[[Exception], None] = lambda error: None,
) -> Any:
    """The ASGI application. Its lifespan starts and ends the worker.

    Args:
        settings: Settings of the service.
        loader: Loads the model; None: by the settings.
        all_ready: Is told whether this process is ready, and returns whether all processes of the service are.
        on_failure: Called, in the event loop, if the model cannot be loaded.
    """
    metrics = Metrics()

    def load_model() -> CMIMModel:
        return load(settings.model or list_models()[0], settings.device, settings.precision, engine="torch")

    worker = Worker(
        loader or load_model, places=settings.queue, max_batch=settings.max_batch, batch_wait=settings.batch_wait, metrics=metrics
    )
    service = Service(worker, settings, metrics)

    async def watch() -> None:
        while worker.is_alive and not worker.is_warm:
            await asyncio.sleep(0.05)
        all_ready(worker.is_warm)
        if worker.error is not None:
            on_failure(worker.error)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        watching = asyncio.ensure_future(watch())
        yield
        watching.cancel()
        all_ready(False)
        await asyncio.get_running_loop().run_in_executor(None, worker.stop, _LAST_STEP_S)  # all requests are answered
        service.close()

    app = FastAPI(
        title="nemo-cmim", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
        description="Embeds, decodes and generates molecules. The endpoints have the fields and defaults of NVIDIA's MolMIM service.",
    )  # fmt: skip
    _add_endpoints(app, service)
    _add_status(app, worker, metrics, settings, all_ready)
    _add_description(app, worker, settings)
    gate: Any = Gate(app, settings, metrics, known_paths(tuple(ENDPOINTS), _OTHERS))
    if settings.cors_origins:
        headers = ("Authorization", "Content-Type", "X-API-Key")
        gate = CORSMiddleware(gate, settings.cors_origins, allow_methods=("GET", "POST"), allow_headers=headers)
    return gate


def _add_endpoints(app: FastAPI, service: Service) -> None:
    for path, (_, answer, summary) in _BODIES.items():
        responses: dict[int | str, dict[str, Any]] = {
            status: {"model": schemas.Error, "description": reason} for status, reason in _REASONS.items()
        }
        responses[422] = {"model": schemas.Unprocessable, "description": "The body has mistakes"}
        add = app.post(path, response_model=answer, responses=responses, summary=summary, tags=["molecules"], name=path[1:])
        add(_endpoint(service, ENDPOINTS[path]))


def _endpoint(service: Service, read: Callable[[Service, bytes], Any]) -> Callable[..., Any]:
    async def endpoint(request: HttpRequest) -> Response:
        return await service.answer(request, read)

    return endpoint


def _add_status(app: FastAPI, worker: Worker, metrics: Metrics, settings: ServeSettings, all_ready: Callable[[bool], bool]) -> None:
    not_ready: dict[int | str, dict[str, Any]] = {503: {"model": schemas.Health, "description": "Not now"}}
    guarded: dict[int | str, dict[str, Any]] = {401: {"model": schemas.Error, "description": _REASONS[401]}}

    @app.head("/v1/health/live", include_in_schema=False)
    @app.get("/v1/health/live", response_model=schemas.Health, responses=not_ready, summary="The process runs", tags=["status"])
    async def live() -> Response:
        is_live = worker.is_alive or worker.error is None
        return JSONResponse({"status": "live" if is_live else "failed"}, 200 if is_live else 503)

    summary = "The model is loaded in every process, and has computed something"

    @app.head("/v1/health/ready", include_in_schema=False)
    @app.get("/v1/health/ready", response_model=schemas.Health, responses=not_ready, summary=summary, tags=["status"])
    async def ready() -> Response:
        is_ready = all_ready(worker.is_warm)
        return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)

    @app.get(
        "/v1/metadata", response_model=schemas.Metadata, responses=guarded | not_ready, summary="Model and limits", tags=["status"]
    )
    async def metadata() -> Response:
        if not worker.is_warm or worker.model is None:
            return JSONResponse({"status": "not ready"}, 503)
        return JSONResponse(_metadata(worker.model, settings))

    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get("/v1/metrics", response_class=Response, responses=guarded | text, summary="Counters for Prometheus", tags=["status"])
    async def counters() -> Response:
        metrics.waiting(worker.waiting)
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _metadata(model: CMIMModel, settings: ServeSettings) -> dict[str, Any]:
    network = model.config.network
    name = Path(model.name or "").name.removesuffix(".nemo")
    kinds = ["mean", "informative"] if network.decoder_layers else ["mean"]
    unit, factor = radius_unit(settings.radius_unit, None, model.density is not None)
    return {
        "version": __version__,
        "modelInfo": [{"shortName": name, "modelUrl": ""}],
        "model": {
            "name": name, "objective": model.config.objective.name, "latents": network.latents, "width": network.hidden_size,
            "layers": network.decoder_layers, "max_tokens": network.max_tokens, "precision": model.precision, "kinds": kinds,
            "fingerprint": model.fingerprint("mean"),
        },
        "limits": {
            "rows": settings.max_rows, "characters": settings.max_characters, "bytes": settings.max_bytes,
            "evaluations": settings.max_evaluations, "deadline": settings.deadline, "queue": settings.queue,
        },
        "radius": {"unit": unit, "factor": factor},
    }  # fmt: skip


def _add_description(app: FastAPI, worker: Worker, settings: ServeSettings) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(_description(app, worker.example, settings))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": policy})


def _description(app: FastAPI, latents: list[Any] | None, settings: ServeSettings) -> dict[str, Any]:
    """The OpenAPI document, with the limits of the settings, and examples that run with the model, once it is loaded."""
    document: dict[str, Any] = {**app.openapi(), "paths": {path: dict(each) for path, each in app.openapi()["paths"].items()}}
    examples = dict(_EXAMPLES)
    if latents is not None:
        examples["/decode"] = {"hiddens": latents, "mask": [[True] * len(latents[0])]}
    for path, (body, _, _) in _BODIES.items():
        schema = body.model_json_schema()
        if "sequences" in schema["properties"]:
            sequences = schema["properties"]["sequences"]
            sequences |= {"maxItems": settings.max_rows, "items": {"type": "string", "maxLength": settings.max_characters}}
        content = {"schema": schema} | ({"example": examples[path]} if path in examples else {})
        post = {**document["paths"][path]["post"], "requestBody": {"required": True, "content": {"application/json": content}}}
        if settings.api_key is not None:
            post["security"] = [{"key": []}]
        document["paths"][path] = {"post": post}
    if settings.api_key is not None:
        components = {**document.get("components", {}), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        document["components"] = components
    return document
