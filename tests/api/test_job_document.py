"""The document names every path of jobs that the gateway serves, and no other."""

from __future__ import annotations

import re
from typing import Any, cast

from api import openapi
from api.job_document import OPERATIONS
from engine.jobs.calls import GpuCalls
from engine.jobs.runpod_client import RunpodClients


def test_document_and_gateway_name_the_same_paths() -> None:
    nobody = cast(Any, None)
    routes = [*GpuCalls(nobody).routes(), *RunpodClients(nobody).routes()]
    served = {(route.method.lower(), route.pattern.pattern) for route in routes}
    named = set()
    for operation in OPERATIONS:
        path = re.sub(r"{\w+}", "some-name", operation.path)
        matching = {(m, p) for m, p in served if m == operation.method and re.fullmatch(p, path)}
        assert len(matching) == 1, operation
        named |= matching
    assert named == served
    paths = openapi.document()["paths"]
    assert all(operation.method in paths[operation.path] for operation in OPERATIONS)
    assert "/v1/gpu/pods" in paths and "/v1/deployments" in paths
