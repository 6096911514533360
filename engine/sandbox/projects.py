"""Routes of `/v2/projects`. Whatever no other project lists is in the default one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.sandbox import shapes
from engine.sandbox.assets import Asset, Cluster, Domain, LoadBalancer, Project, ReservedIp, Volume
from engine.sandbox.cloud import Cloud
from engine.sandbox.errors import ApiError, bad_request, conflict, unprocessable
from engine.sandbox.records import Account
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of

URN = re.compile(r"do:(dbaas|domain|droplet|floatingip|reservedip|loadbalancer|space|volume|kubernetes|vpc):.+")
ENVIRONMENTS = ("Development", "Staging", "Production")
PURPOSE = "Just trying out DigitalOcean"
OWNED: tuple[type[Asset], ...] = (Volume, ReservedIp, LoadBalancer, Domain, Cluster)


def default_project(cloud: Cloud, account: Account) -> Project:
    """The account's default project, made when it is first needed."""
    for project in account.table(Project).values():
        if project.is_default:
            return project
    made = Project(
        id=cloud.new_uuid(), account=account.name, name=account.name, created_at=cloud.now(), purpose=PURPOSE,
        updated_at=cloud.now(), is_default=True,
    )  # fmt: skip
    cloud.assets.add(account, made)
    return made


def project_of(cloud: Cloud, account: Account, urn: str) -> Project:
    """The project a thing is in."""
    listing = (p for p in account.table(Project).values() if urn in p.resources)
    return next(listing, None) or default_project(cloud, account)


def check_project(request: Request) -> Project | None:
    """The project the body's `project_id` names; None where it names none, or the default one.

    Raises:
        ApiError: 422: no such project.
    """
    id = request.text("project_id", "")
    if not id:
        return None
    if (found := request.account.table(Project).get(id)) is None:
        raise unprocessable(f"project {id} does not exist")
    return None if found.is_default else found


def _urns(account: Account) -> Iterator[tuple[str, float]]:
    """Everything that can be in a project, with the time it was made."""
    for droplet in account.droplets.values():
        yield f"do:droplet:{droplet.id}", droplet.created_at
    for kind in OWNED:
        for asset in account.table(kind).values():
            yield asset.urn, asset.created_at


def _contents(account: Account, project: Project) -> dict[str, float]:
    if not project.is_default:
        return project.resources
    elsewhere = {urn for p in account.table(Project).values() for urn in p.resources}
    return {urn: at for urn, at in _urns(account) if urn not in elsewhere}


def _project(request: Request) -> Project:
    if request.values.get("project", "default") == "default":
        return default_project(request.cloud, request.account)
    return request.asset(Project, "project")


def list_projects(request: Request) -> Reply:
    """GET /v2/projects"""
    default_project(request.cloud, request.account)
    found = list(request.account.table(Project).values())
    return page_of(request, "projects", found, lambda p: shapes.project(p, request.account))


def get(request: Request) -> Reply:
    """GET /v2/projects/{project}, and /v2/projects/default"""
    return Reply(200, {"project": shapes.project(_project(request), request.account)})


def create(request: Request) -> Reply:
    """POST /v2/projects"""
    cloud, account = request.cloud, request.account
    default_project(cloud, account)
    project = Project(
        id=cloud.new_uuid(), account=account.name, created_at=cloud.now(), updated_at=cloud.now(),
        name=_name(request, None), description=_short(request, "description", "", 255),
        purpose=_short(request, "purpose", None, 255), environment=_environment(request, "Development"),
    )  # fmt: skip
    cloud.assets.add(account, project, hits=request.hits)
    return Reply(201, {"project": shapes.project(project, account)})


def _name(request: Request, existing: Project | None) -> str:
    name = _short(request, "name", None, 175)
    if any(p.name == name and p is not existing for p in request.account.table(Project).values()):
        raise conflict("a project with this name already exists")
    return name


def _short(request: Request, field: str, default: str | None, length: int) -> str:
    text = request.text(field, default)
    if len(text) > length:
        raise unprocessable(f"{field} may have at most {length} characters")
    return text


def _environment(request: Request, default: str) -> str:
    """Whatever the case, as DigitalOcean takes it."""
    text = request.text("environment", default).capitalize()
    if text not in ENVIRONMENTS:
        raise unprocessable(f"environment must be one of {', '.join(ENVIRONMENTS)}")
    return text


def update(request: Request) -> Reply:
    """PUT and PATCH /v2/projects/{project}, and of the default one."""
    project, cloud = _project(request), request.cloud
    whole = request.method == "PUT"
    if whole and (missing := [k for k in ("name", "purpose", "environment") if k not in request.body]):
        raise unprocessable(f"{missing[0]} is required: PUT replaces the project; PATCH changes parts of it")
    name = _name(request, project) if "name" in request.body else project.name
    description = _short(request, "description", project.description, 255)
    purpose = _short(request, "purpose", project.purpose, 255)
    environment = _environment(request, project.environment)
    becomes_default = request.flag("is_default", project.is_default)
    if project.is_default and not becomes_default:
        raise unprocessable("the default project stays it until another project becomes it")
    project.name, project.description, project.purpose = name, description, purpose
    project.environment, project.updated_at = environment, cloud.now()
    if becomes_default and not project.is_default:
        _make_default(request, project)
    cloud.save(project)
    cloud.journal.add(cloud.now(), request.account.name, "project.updated", project.id, name=project.name)
    return Reply(200, {"project": shapes.project(project, request.account)})


def _make_default(request: Request, project: Project) -> None:
    """The old one keeps what was in it: from now on that is written down."""
    old = default_project(request.cloud, request.account)
    old.resources = _contents(request.account, old)
    old.is_default, project.is_default = False, True
    project.resources = {}
    request.cloud.save(old)


def delete(request: Request) -> Reply:
    """DELETE /v2/projects/{project}"""
    project = request.asset(Project, "project")
    if project.is_default:
        raise unprocessable("The default project cannot be deleted.")
    if project.resources:
        raise ApiError(412, "precondition_failed", "cannot delete a project with resources. Move them first")
    request.cloud.assets.remove(request.account, project)
    return NO_CONTENT


def list_resources(request: Request) -> Reply:
    """GET /v2/projects/{project}/resources"""
    found = list(_contents(request.account, _project(request)).items())
    return page_of(
        request, "resources", found,
        lambda item: shapes.project_resource(item[0], item[1], "ok", _link(request, item[0])),
    )  # fmt: skip


def assign(request: Request) -> Reply:
    """POST /v2/projects/{project}/resources; what does not exist is answered as `not_found`, the rest moves."""
    project, cloud, account = _project(request), request.cloud, request.account
    urns = [u.replace("do:reservedip:", "do:floatingip:") for u in request.list_of("resources", str)]
    if bad := [u for u in urns if not URN.fullmatch(u)]:
        raise bad_request(f"{bad[0]!r} is not a uniform resource name such as do:droplet:4126873")
    present, here, answer = dict(_urns(account)), _contents(account, project), []
    for urn in urns:
        status = "not_found" if urn not in present else "already_assigned" if urn in here else "assigned"
        if status == "assigned":
            cloud.assets.leave_projects(account, urn)
            if not project.is_default:
                project.resources[urn] = cloud.now()
        answer.append(shapes.project_resource(urn, cloud.now(), status, _link(request, urn)))
    cloud.save(project)
    return Reply(200, {"resources": answer})


def _link(request: Request, urn: str) -> str:
    places = {
        "droplet": "droplets", "volume": "volumes", "floatingip": "reserved_ips", "loadbalancer": "load_balancers",
        "domain": "domains", "kubernetes": "kubernetes/clusters", "vpc": "vpcs", "dbaas": "databases",
        "space": "spaces",
    }  # fmt: skip
    _, kind, id = urn.split(":", 2)
    return f"{request.origin}/v2/{places[kind]}/{id}"


ROUTES = (
    ("GET", "/v2/projects", list_projects),
    ("POST", "/v2/projects", create),
    ("GET", "/v2/projects/default", get),
    ("PUT", "/v2/projects/default", update),
    ("PATCH", "/v2/projects/default", update),
    ("GET", "/v2/projects/default/resources", list_resources),
    ("POST", "/v2/projects/default/resources", assign),
    ("GET", "/v2/projects/{project}", get),
    ("PUT", "/v2/projects/{project}", update),
    ("PATCH", "/v2/projects/{project}", update),
    ("DELETE", "/v2/projects/{project}", delete),
    ("GET", "/v2/projects/{project}/resources", list_resources),
    ("POST", "/v2/projects/{project}/resources", assign),
)
