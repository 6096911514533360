"""The whole matrix: every route × every kind of caller × own and other tenant, through the real application.

What each route needs is read from the table; what callers have is stated here once more, by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.testclient import TestClient

from api import openapi
from api.access import ACCESS, Needs, check_routes
from api.app import create_app
from api.deps import DepsArg, authorise
from engine.identity.keys import KeyHasher
from engine.model.access import GrantRole, Permission, Role
from engine.model.errors import Unavailable
from engine.store import deployments, handlers, orgs
from engine.store.database import Database
from tests.fakes.clock import FakeClock
from tests.fakes.people import People
from tests.fakes.rows import deployment_row, handler_row, org_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"0123456789abcdef0123456789abcdef"

READS = "deployment:read pod:read storage:read billing:read"
BUILDS = READS + " deployment:write deployment:invoke pod:write storage:write"
EVERYTHING = BUILDS + " billing:write policy:approve org:admin"
OF_ROLE = {
    "owner": EVERYTHING,
    "admin": EVERYTHING,
    "developer": BUILDS,
    "approver": READS + " policy:approve",
    "billing": "billing:read billing:write deployment:read",
    "viewer": READS,
}
OF_GRANT = {
    "inference": "deployment:invoke",
    "viewer": "deployment:read",
    "admin": "deployment:read deployment:write deployment:invoke",
}

OWN = ("dep_own", "hdl_dep_own")
"""What scoped keys were granted: a deployment of either kind."""


@dataclass(frozen=True)
class Caller:
    """One row of the matrix.

    Attributes:
        has: permissions in `org_1`, or on deployment `dep_own` alone when it is scoped.
    """

    name: str
    kind: str  # none | session | key | scoped
    headers: dict[str, str]
    has: frozenset[str] = frozenset()
    is_member: bool = True
    is_operator: bool = False


@dataclass
class Matrix:
    client: TestClient
    callers: list[Caller]
    passed: list[str]

    def outcomes(
        self, route: RouteContext, paths: Sequence[str], callers: Sequence[Caller]
    ) -> list[tuple[str, Caller, str, int]]:
        """For every path and caller: `pass` or the status `authorise` refused with; and the answer's status."""
        assert self.client.portal is not None
        return self.client.portal.call(self._ask_all, route, paths, callers)

    async def _ask_all(
        self, route: RouteContext, paths: Sequence[str], callers: Sequence[Caller]
    ) -> list[tuple[str, Caller, str, int]]:
        """On the application's own loop: thousands of requests through a test client are mostly the client."""
        method = next(iter(sorted(route.methods or {"GET"})))
        found = []
        for path, caller in itertools.product(paths, callers):
            self.passed.clear()
            status = await self._status(method, path, caller.headers)
            found.append((path, caller, "pass" if self.passed else str(status), status))
        return found

    async def _status(self, method: str, path: str, headers: dict[str, str]) -> int:
        """Of the answer to one request without a body."""
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        sent = {"host": "testserver"} | headers
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "client": ("testclient", 50000), "server": ("testserver", 80),
        }  # fmt: skip
        await self.client.app(scope, receive, send)
        return statuses[0]


def routes() -> list[RouteContext]:
    app = create_app(openapi._NoDeps())  # type: ignore[arg-type]
    return [route for route in iter_route_contexts(app.routes) if isinstance(route.original_route, APIRoute)]


@pytest.fixture(scope="module")
def matrix(new_sqlite_url: Callable[[], str]) -> Iterator[Matrix]:
    database = Database(new_sqlite_url())
    hasher = KeyHasher(SECRET)
    with database.write() as session:
        for org in ("org_1", "org_2"):
            orgs.insert(session, org_row(NOW, org))
        for dep, org in (("dep_own", "org_1"), ("dep_ungranted", "org_1"), ("dep_foreign", "org_2")):
            gone = {"org_id": org, "deleted_at": NOW, "delete_requested_at": NOW}
            deployments.insert(session, deployment_row(NOW, dep, **gone))
            handlers.insert_once(session, handler_row(NOW, f"hdl_{dep}", **gone))
    people = People(database, hasher, NOW)
    passed: list[str] = []
    app = _app(database, hasher, passed)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Matrix(client, _callers(people), passed)
    database.close()


def _app(database: Database, hasher: KeyHasher, passed: list[str]) -> FastAPI:
    """The real application; nothing it is asked to do is done, because its store keeps nothing."""

    class Unwritable:
        def read(self) -> Any:
            return database.read()

        @contextmanager
        def write(self) -> Iterator[Any]:
            with database.write() as session:
                yield session
                raise Unavailable("nothing is kept in this test")

    class Parts(openapi._NoDeps):
        public_url = "http://testserver"

        def __getattr__(self, name: str) -> Any:  # other parts are met only behind `authorise`
            raise Unavailable(f"no {name} in this test")

    deps = Parts()
    deps.__dict__.update(database=Unwritable(), hasher=hasher, clock=FakeClock(NOW), new_id=lambda prefix: prefix)
    app = create_app(deps)  # type: ignore[arg-type]

    def noting(request: Request, deps: DepsArg) -> Any:
        principal = authorise(request, deps)
        passed.append(request.url.path)
        return principal

    app.dependency_overrides[authorise] = noting
    return app


def _callers(people: People) -> list[Caller]:
    stranger = people.user("stranger")
    operator = people.user("operator", is_operator=True, org_1=Role.VIEWER)
    callers = [
        Caller("nobody", "none", {}),
        Caller("unknown key", "none", {"Authorization": "Bearer sk_unknown"}),
        Caller("unknown session", "none", {"Cookie": "stackyard_session=st_unknown"}),
        Caller("operator's key", "key", people.key("org_1")[1], frozenset(EVERYTHING.split())),
        Caller("session of no member", "session", people.session(stranger), is_member=False),
        Caller("operator's session", "session", people.session(operator), frozenset(READS.split()), is_operator=True),
    ]
    for role, has in OF_ROLE.items():
        user, allowed = people.user(role, org_1=Role(role)), frozenset(has.split())
        callers.append(Caller(f"session of {role}", "session", people.session(user), allowed))
        callers.append(Caller(f"key of {role}", "key", people.key("org_1", user)[1], allowed))
        for grant, granted in OF_GRANT.items():
            _, headers = people.key("org_1", user, granted=dict.fromkeys(OWN, GrantRole(grant)))
            both = allowed & frozenset(granted.split())
            callers.append(Caller(f"{role}'s key scoped as {grant}", "scoped", headers, both))
    only_invoke = people.key("org_1", "user_owner", scopes=[Permission.DEPLOYMENT_INVOKE])[1]
    callers.append(Caller("key with one scope", "key", only_invoke, frozenset({"deployment:invoke"})))
    for caller in callers:
        if caller.kind == "session":
            caller.headers["Stackyard-Org"] = "org_1"
    return callers


def expected(name: str, path: str, caller: Caller) -> str:
    """What the rules say, without the code that applies them."""
    access = ACCESS[name]
    if access == "public":
        return "pass"
    if caller.kind == "none":
        return "401"
    if not caller.is_member or "org_2" in path:
        return "404"  # of an organisation the caller does not belong to nothing is said
    if caller.kind == "scoped" and "dep_foreign" in path:
        return "404"
    if access == "signed_in":
        return "pass"
    if access == "session":
        return "pass" if caller.kind == "session" else "403"
    if access == "operator":
        return "pass" if caller.is_operator else "403"
    permission = access.permission.value if isinstance(access, Needs) else str(access)
    wide = isinstance(access, Needs) and access.or_session and caller.kind == "session"
    listed = isinstance(access, Needs) and access.filtered
    reaches = caller.kind != "scoped" or listed or "dep_own" in path
    return "pass" if wide or (reaches and permission in caller.has) else "403"


def paths(route: RouteContext) -> list[str]:
    """The route's path for what is the caller's own, for what of that a scoped key lacks, and for another tenant's."""
    assert route.path is not None
    made = []
    for org, dep in (("org_1", "dep_own"), ("org_1", "dep_ungranted"), ("org_1", "dep_foreign"), ("org_2", "dep_own")):
        path = route.path.replace("{org_id}", org).replace("{deployment_id}", dep)
        path = path.replace("{handler}", f"hdl_{dep}")
        while "{" in path:
            path = path[: path.index("{")] + "thing_1" + path[path.index("}") + 1 :]
        made.append(path)
    return sorted(set(made))


@pytest.mark.parametrize("route", routes(), ids=lambda route: route.name)
def test_every_caller_gets_what_the_matrix_says(matrix: Matrix, route: RouteContext) -> None:
    assert route.name
    wrong = []
    for path, caller, outcome, status in matrix.outcomes(route, paths(route), matrix.callers):
        wanted = expected(route.name, path, caller)
        if outcome != wanted:
            wrong.append(f"{caller.name} at {path}: {outcome} instead of {wanted}")
        elif outcome == "pass" and "dep_foreign" in path and status not in (404, 422):
            wrong.append(f"{caller.name} at {path}: another tenant's deployment answered {status}")
    assert not wrong, "\n".join(wrong)


def test_table_has_no_route_too_many() -> None:
    app = create_app(openapi._NoDeps())  # type: ignore[arg-type]
    assert set(ACCESS) == {route.name for route in iter_route_contexts(app.routes)}


def test_route_without_an_entry_stops_the_start() -> None:
    with pytest.raises(ValueError, match="no access was decided for forgotten"):
        check_routes({"healthz": True, "forgotten": True})
    with pytest.raises(ValueError, match="nothing enforces the access of create_key"):
        check_routes({"healthz": False, "create_key": False})


NEEDS = {
    "public": (
        "openapi swagger_ui_html swagger_ui_redirect healthz readyz metrics sign_up log_in verify_email "
        "resend_verification forgot_password reset_password verify_email_page reset_password_page begin_oidc "
        "finish_oidc accept_invitation_page list_tiers"
    ),
    "session": (
        "current_session log_out log_out_everywhere get_account patch_account close_account list_sessions "
        "revoke_session send_phone_code verify_phone create_org accept_invitation admit_to_jobs admit_to_reading_jobs"
    ),
    "deployment:write": (
        "patch_sla "
        "create_deployment delete_deployment patch_scaling create_handler patch_handler delete_handler replay_delivery "
        "patch_preset create_subscription patch_subscription delete_subscription test_subscription "
        "rotate_subscription_secret "
        "put_registry delete_registry"
    ),
    "deployment:write filtered": (
        "upload_model begin_model_upload list_model_parts complete_model_upload abort_model_upload delete_model_byom"
    ),
    "deployment:read filtered": ("list_deployments list_handlers list_models_byom get_model_byom"),
    "deployment:read": (
        "get_sla list_sla_breaches get_deployment_metrics "
        "get_deployment get_handler get_scaling get_logs get_stack get_cost list_deliveries get_delivery "
        "list_subscriptions get_subscription list_subscription_deliveries "
        "list_registries get_registry"
    ),
    "signed_in": ("gpu_model_configs list_pod_types list_orgs get_org"),
    "pod:read": ("list_pods get_pod"),
    "pod:write": ("create_pod stop_pod start_pod restart_pod delete_pod"),
    "deployment:invoke": (
        "chat complete embed list_models chat_for_org complete_for_org embed_for_org list_models_for_org "
        "respond cancel_response rerank score tokenize detokenize transcribe translate get_response delete_response "
        "respond_for_org cancel_response_for_org rerank_for_org score_for_org tokenize_for_org detokenize_for_org "
        "transcribe_for_org translate_for_org get_response_for_org delete_response_for_org "
        "admit_deleting admit_deleting_for_org "
        "admit admit_reading admit_for_org admit_reading_for_org"
    ),
    "org:admin or_session": (
        "create_key list_keys get_key rotate_key revoke_key manage_create_key manage_list_keys manage_get_key "
        "manage_rotate_key manage_revoke_key list_members remove_member grant_permission list_permissions "
        "withdraw_permission"
    ),
    "org:admin": (
        "rename_org change_role transfer_org create_invitation list_invitations revoke_invitation list_audit "
        "get_webhook_secret rotate_webhook_secret"
    ),
    "storage:write": (
        "begin_upload commit_upload begin_multipart list_parts complete_multipart abort_multipart patch_object "
        "delete_object"
    ),
    "storage:read": ("list_objects get_storage_usage get_bucket get_object"),
    "billing:read": ("get_balance list_transactions list_budgets"),
    "billing:write": ("put_budget delete_budget"),
    "operator": ("record_deposit"),
}
"""What each route needs, by hand: weakening an entry of the table has to be said twice."""


def test_table_asks_for_what_was_decided() -> None:
    found: dict[str, set[str]] = {}
    for name, access in ACCESS.items():
        wide = "".join(f" {w}" for w in ("filtered", "or_session") if isinstance(access, Needs) and getattr(access, w))
        needs = access.permission.value if isinstance(access, Needs) else access.value
        found.setdefault(needs + wide, set()).add(name)
    assert found == {needs: set(names.split()) for needs, names in NEEDS.items()}


SAMPLES = {
    "delete_deployment": {"owner", "admin", "developer"},
    "get_logs": {"owner", "admin", "developer", "approver", "billing", "viewer"},
    "chat": {"owner", "admin", "developer"},
    "gpu_model_configs": {"owner", "admin", "developer", "approver", "billing", "viewer"},
}


@pytest.mark.parametrize(("name", "roles"), SAMPLES.items())
def test_roles_that_may_are_these(matrix: Matrix, name: str, roles: set[str]) -> None:
    route = next(route for route in routes() if route.name == name)
    role_of = {f"{kind} of {role}": role for role in OF_ROLE for kind in ("session", "key")}
    callers = [caller for caller in matrix.callers if caller.name in role_of]
    assert len(callers) == 2 * len(OF_ROLE)
    for _, caller, outcome, _ in matrix.outcomes(route, paths(route)[-1:], callers):
        assert (outcome == "pass") == (role_of[caller.name] in roles), (caller.name, outcome)
