"""Credentials of image registries: stored, given with a deployment or pod, and never shown again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.model.errors import InvalidSpec
from engine.model.registries import ImagePull, LocalImages, RegistryLogin, check_allowed, parse_allowed, registry_of
from engine.store import registries
from engine.store.handler_tables import HandlerRow
from engine.store.registry_tables import RegistryCredentialRow
from engine.store.tables import OrgRow

PASSWORD = "ghp_very_secret"
LOGIN = {"username": "ann", "password": PASSWORD}
CREATE = {"slug": "echo", "dockerImage": "ghcr.io/you/echo:v1", "gpuTypes": "AMPERE_16"}


def call(api: Any, method: str, path: str, **options: Any) -> Any:
    return api.client.request(method, f"/v1{path}", headers=api.headers, **options)


def pull_of(api: Any, handler_id: str, local: LocalImages = LocalImages.TRUSTED) -> ImagePull:
    with api.database.read() as session:
        row = session.get_one(HandlerRow, handler_id)
        return registries.pull_of(
            session, api.app.state.deps.sealer, org_id=row.org_id, image=row.spec["image"],
            auth_sealed=row.registry_auth_sealed, local_images=local,
        )  # fmt: skip


def test_stored_credentials_are_sealed_used_by_host_and_forgotten(api: Any) -> None:
    put = call(api, "PUT", "/registries/GHCR.io", json=LOGIN)
    assert put.status_code == 200 and (put.json()["registry"], put.json()["username"]) == ("ghcr.io", "ann")
    assert (
        PASSWORD not in put.text + call(api, "GET", "/registries").text + call(api, "GET", "/registries/ghcr.io").text
    )
    with api.database.read() as session:
        assert PASSWORD not in session.get_one(RegistryCredentialRow, ("org_1", "ghcr.io")).model_dump_json()
    made = call(api, "POST", "/deployments", json=CREATE).json()
    assert pull_of(api, made["id"]).login == RegistryLogin("ghcr.io", "ann", PASSWORD)
    call(api, "PUT", "/registries/ghcr.io", json=LOGIN | {"password": "other"})
    found = pull_of(api, made["id"]).login
    assert found is not None and found.password == "other"
    assert call(api, "DELETE", "/registries/ghcr.io").status_code == 204
    assert pull_of(api, made["id"]).login is None and call(api, "GET", "/registries/ghcr.io").status_code == 404
    assert call(api, "PUT", "/registries/not%20a%20host", json=LOGIN).status_code == 422
    refused = call(api, "PUT", "/registries/ghcr.io", json={"username": "a:b", "password": PASSWORD})
    assert refused.status_code == 422 and PASSWORD not in refused.text


def test_credentials_of_a_deployment_are_its_images_alone(api: Any) -> None:
    call(api, "PUT", "/registries/ghcr.io", json={"username": "org", "password": "x"})
    made = call(api, "POST", "/deployments", json=CREATE | {"registryAuth": LOGIN})
    assert made.json()["registryAuth"] == {"registry": "ghcr.io", "username": "ann"} and PASSWORD not in made.text
    id = made.json()["id"]
    with api.database.read() as session:
        assert PASSWORD not in session.get_one(HandlerRow, id).model_dump_json()
    assert pull_of(api, id).login == RegistryLogin("ghcr.io", "ann", PASSWORD)
    other = call(api, "PATCH", f"/deployments/{id}", json={"registryAuth": LOGIN | {"registry": "quay.io"}})
    assert other.status_code == 422 and "quay.io" in other.text and PASSWORD not in other.text
    call(api, "PATCH", f"/deployments/{id}", json={"dockerImage": "quay.io/you/echo:v1"})
    assert pull_of(api, id).login is None, "a password goes to no other registry than it was given for"
    call(api, "PATCH", f"/deployments/{id}", json={"dockerImage": "ghcr.io/you/echo:v2"})
    assert pull_of(api, id).login == RegistryLogin("ghcr.io", "ann", PASSWORD)
    forgotten = call(api, "PATCH", f"/deployments/{id}", json={"registryAuth": None}).json()
    assert forgotten["registryAuth"] is None and forgotten["generation"] == 4
    assert pull_of(api, id).login == RegistryLogin("ghcr.io", "org", "x")


def test_operators_allow_registries_by_name(api: Any) -> None:
    allowed = parse_allowed("ghcr.io/You, docker.io/library")
    api.app.state.deps = replace(api.app.state.deps, image_registries=("ghcr.io/you", "docker.io/library"))
    assert call(api, "POST", "/deployments", json=CREATE).status_code == 201
    for image in ("ghcr.io/younger/echo", "quay.io/you/echo", "you/echo"):
        for path, body in (
            ("/deployments", CREATE | {"slug": "other", "dockerImage": image}),
            ("/deployments/echo", {"dockerImage": image}),
        ):
            answer = call(api, "PATCH" if path.endswith("echo") else "POST", path, json=body)
            assert answer.status_code == 422 and "ghcr.io/you, docker.io/library" in answer.text, answer.text
    check_allowed("nginx:1.27", allowed)
    with pytest.raises(InvalidSpec, match=r"allowed: ghcr\.io/you"):
        check_allowed("ghcr.io/younger/echo", allowed)
    assert [registry_of(i) for i in ("a/b", "localhost/a", "h:5000/a", "index.docker.io/a/b", "HOST/a")] == [
        "docker.io", "localhost", "h:5000", "docker.io", "host",
    ]  # fmt: skip


def test_only_trusted_organisations_use_what_a_host_has(api: Any) -> None:
    id = call(api, "POST", "/deployments", json=CREATE).json()["id"]
    asked = {local: pull_of(api, id, local).always for local in LocalImages}
    assert asked == {LocalImages.TRUSTED: False, LocalImages.ALL: False, LocalImages.NONE: True}
    with api.database.write() as session:
        session.get_one(OrgRow, "org_1").credit_limit_microdollars = 0  # a customer
    assert pull_of(api, id, LocalImages.TRUSTED).always and not pull_of(api, id, LocalImages.ALL).always
