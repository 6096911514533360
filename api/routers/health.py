"""`/healthz`, `/readyz`, `/metrics`: for whoever watches the installation. No key needed, nothing of tenants shown."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from api.deps import DepsArg
from api.metrics import ApiMetrics
from engine.store import deployments, leases

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """`ok`, or what is missing."""

    status: str


class Readiness(BaseModel):
    """Whether new deployments would be worked on, and each check's result."""

    status: str
    checks: dict[str, str]


@router.get("/healthz", summary="The process answers")
def healthz() -> Health:
    return Health(status="ok")


@router.get(
    "/readyz", summary="Database and worker are there", response_model=Readiness, responses={503: {"model": Readiness}}
)
def readyz(deps: DepsArg) -> JSONResponse:
    checks: dict[str, str] = {}
    try:
        with deps.database.read() as session:
            alive = leases.live_executors(session, deps.clock.now())
        checks["database"] = "ok"
        checks["worker"] = "ok" if alive else "no worker has reported lately: start `stackyard worker`"
    except SQLAlchemyError as err:
        checks["database"] = f"does not answer: {type(err.__cause__ or err).__name__}"
    ready = all(value == "ok" for value in checks.values())
    body = Readiness(status="ready" if ready else "not ready", checks=checks)
    return JSONResponse(body.model_dump(), status_code=200 if ready else 503)


@router.get("/metrics", summary="Prometheus' text format", response_class=Response)
def metrics(request: Request, deps: DepsArg) -> Response:
    registry: ApiMetrics = request.app.state.metrics
    with deps.database.read() as session:
        registry.set_deployments(deployments.count_by_phase(session))
    return Response(registry.exposition(), media_type="text/plain; version=0.0.4")
