"""Subscriptions to a deployment's events over HTTP: the whole life of one, and every way to get it wrong."""

from __future__ import annotations

from typing import Any

import pytest

from engine.store import audit
from engine.store.sealing import Sealer
from engine.webhooks.events import SUBSCRIBABLE, Event, publish

BODY = {"url": "https://your-service.com/hooks/ainative?token=t", "events": ["deployment.active", "deployment.active"]}


def subscribe(api: Any, dep: str, **changed: Any) -> Any:
    answer = api.call("POST", f"/deployments/{dep}/webhooks", json=BODY | changed)
    assert answer.status_code == 201, answer.text
    return answer.json()


def tell(api: Any, dep: str, event: Event, key: str) -> int:
    sealer: Sealer = api.app.state.deps.sealer
    with api.database.write() as session:
        return publish(
            session, sealer, org_id="org_1", deployment_id=dep, event=event, data={}, key=key, now=api.clock.now()
        )


def test_secret_is_shown_once_and_the_address_without_its_query(api: Any) -> None:
    dep = api.create()["id"]
    made = subscribe(api, dep)
    secret = made.pop("secret")
    assert secret.startswith("whsec_") and made["id"].startswith("whs_")
    assert (made["url"], made["events"]) == ("https://your-service.com/hooks/ainative", ["deployment.active"])
    path = f"/deployments/{dep}/webhooks"
    assert api.call("GET", path).json() == {"data": [made]} and api.call("GET", f"{path}/{made['id']}").json() == made
    with api.database.read() as session:
        noted = audit.page(session, org_id="org_1")
    assert noted[0].action == "webhook.subscribed" and secret not in str(noted[0].details)


def test_subscription_is_changed_tried_rotated_and_ended(api: Any) -> None:
    dep = api.create()["id"]
    made = subscribe(api, dep)
    path = f"/deployments/{dep}/webhooks/{made['id']}"
    changed = api.call("PATCH", path, json={"events": ["deployment.scaled"]}).json()
    assert (changed["url"], changed["events"]) == (made["url"], ["deployment.scaled"])
    assert (tell(api, dep, Event.ACTIVE, "1"), tell(api, dep, Event.SCALED, "2")) == (0, 1)

    tried = api.call("POST", f"{path}/test")
    log = api.call("GET", f"{path}/deliveries").json()
    assert tried.status_code == 202 and {d["event"] for d in log["data"]} == {"ping", "deployment.scaled"}
    assert tried.json()["delivery_id"] in [d["id"] for d in log["data"]] and log["data"][0]["log"] == []
    assert len(api.call("GET", f"{path}/deliveries?limit=1").json()["data"]) == 1

    rotated = api.call("POST", f"{path}/secret/rotate").json()
    assert rotated["secret"] != made["secret"]
    assert api.call("GET", path).json()["previous_secret_until"] == rotated["previous_until"] == "2026-01-02T00:00:00Z"

    assert api.call("DELETE", path).status_code == 204
    for method, sub in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("POST", "/test"), ("GET", "/deliveries")):
        answer = api.call(method, path + sub, **({"json": {}} if method == "PATCH" else {}))
        assert answer.status_code == 404 and made["id"] in answer.json()["error"]["message"], (method, sub)
    delivery = log["data"][0]["id"]
    found = api.client.get(f"/v1/webhooks/deliveries/{delivery}", headers=api.headers).json()
    assert (found["state"], found["last_error"]) == ("given_up", "its subscription was deleted")
    again = api.client.post(f"/v1/webhooks/deliveries/{delivery}/replay", headers=api.headers)
    assert again.status_code == 409


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"events": ["deployment.exploded"]}, list(SUBSCRIBABLE)),
        ({"events": []}, list(SUBSCRIBABLE)),
        ({"url": "gopher://a.example/"}, ["http"]),
        ({"url": "http://192.168.1.1/hook"}, ["not a public address"]),
        ({"url": "http://localhost/hook"}, ["not a public address"]),
        ({"url": "https://user:word@a.example/"}, ["user name"]),
        ({"events": "deployment.active"}, ["events"]),
        ({"secret": "mine"}, ["secret"]),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_kept(api: Any, changed: Any, names: list[str]) -> None:
    dep = api.create()["id"]
    kept = subscribe(api, dep)
    path = f"/deployments/{dep}/webhooks"
    for method, where, body in (("POST", path, BODY | changed), ("PATCH", f"{path}/{kept['id']}", changed)):
        answer = api.call(method, where, json=body)
        assert answer.status_code == 422, answer.text
        assert all(name in answer.json()["error"]["message"] for name in names)
    [left] = api.call("GET", path).json()["data"]
    assert left == {k: v for k, v in kept.items() if k != "secret"}


def test_another_deployments_subscription_does_not_exist(api: Any) -> None:
    mine, other = api.create()["id"], api.create(name="other")["id"]
    made = subscribe(api, mine)
    assert api.call("GET", f"/deployments/{other}/webhooks/{made['id']}").status_code == 404
    assert api.call("DELETE", f"/deployments/{other}/webhooks/{made['id']}").status_code == 404
    api.call("DELETE", f"/deployments/{mine}")
    refused = api.call("POST", f"/deployments/{mine}/webhooks", json=BODY)
    assert refused.status_code == 409 and "torn down" in refused.json()["error"]["message"]
