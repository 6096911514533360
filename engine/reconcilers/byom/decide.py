"""Decides what is to be done about own weights: which machine gets which model, and where each is in its life. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from engine.byom.memory import context_in, need_gib
from engine.model.byom import Phase
from engine.reconcilers.byom.snapshot import (
    FAILED,
    READY,
    WAITING,
    Action,
    AgentModel,
    Drop,
    ModelView,
    Place,
    Put,
    Remove,
    RemoveBytes,
    ReplicaView,
    SetPhase,
    SetPlaces,
    Snapshot,
    UploadView,
    Validate,
)

MOST_ATTEMPTS = 5
"""A model that no machine could serve after so many tries failed: its file is what is wrong."""

FIRST_BACKOFF = timedelta(seconds=5)
LONGEST_BACKOFF = timedelta(minutes=5)
NEVER_FINISHED = "the upload was not finished within 24 hours: begin a new one"
_ROUNDING_GIB = 0.005


def decide_upload(model: UploadView) -> list[Action]:
    """What is due for a model that no machine has to do with."""
    match model.phase:
        case Phase.UPLOADING if model.object_is_whole:
            return [SetPhase(model.id, Phase.VALIDATING)]
        case Phase.UPLOADING if not model.upload_is_open:
            return [SetPhase(model.id, Phase.FAILED, NEVER_FINISHED), RemoveBytes(model.id)]
        case Phase.VALIDATING:
            return [Validate(model.id)]
        case Phase.DELETING if not model.is_kept_elsewhere:
            return [Remove(model.id)]
        case _:
            return []


def decide(snapshot: Snapshot, *, now: datetime) -> list[Action]:
    """What is due for a deployment's models."""
    if snapshot.is_leaving:
        return _leave(snapshot)
    actions: list[Action] = []
    places = {model.id: _known(model, snapshot) for model in snapshot.models}
    served: dict[str, list[bool]] = {model.id: [] for model in snapshot.models}
    for replica in snapshot.replicas:
        if replica.look is None or replica.is_draining:
            continue
        contexts = allot(snapshot, replica)
        for model in snapshot.models:
            if not model.is_wanted:
                continue
            if model.id not in contexts:
                places[model.id][replica.name] = Place(reason=_no_room(replica, model))
                continue
            here = replica.look.models.get(model.name)
            place, is_put = _settle(model, places[model.id].get(replica.name, Place()), here, contexts[model.id], now)
            places[model.id][replica.name] = place
            if is_put:
                actions.append(Put(replica.name, model.id, contexts[model.id]))
            if replica.is_ready:
                served[model.id].append(place.state == READY and model.name in replica.routed)
        wanted = {model.name for model in snapshot.models if model.is_wanted}
        actions += [Drop(replica.name, name) for name in sorted(set(replica.look.models) - wanted)]
    for model in snapshot.models:
        if places[model.id] != dict(model.places):
            actions.append(SetPlaces(model.id, places[model.id]))
        if not model.is_base:
            actions += _phase(model, snapshot, places[model.id], served[model.id])
    return actions


def allot(snapshot: Snapshot, replica: ReplicaView) -> dict[str, int]:
    """Which models a machine has room for, and the context of each: those it has already first, then the oldest."""
    if replica.look is None:
        return {}
    here = replica.look.models
    wanted = [model for model in snapshot.models if model.is_wanted]
    base = next((model for model in wanted if model.is_base), None)
    room = replica.look.room_gib + _ROUNDING_GIB
    contexts: dict[str, int] = {}
    if base is not None and base.shape is not None:
        if (need := need_gib(base.shape, base.shape.least_context)) > room:
            return {}
        room -= need
    others = [model for model in wanted if not model.is_base]
    for model in sorted(others, key=lambda m: m.name not in here or here[m.name].sha256 != m.sha256):
        if model.need_gib <= room:
            contexts[model.id] = model.context_tokens
            room -= model.need_gib
    if base is not None and base.shape is not None:
        contexts[base.id] = context_in(base.shape, room + need_gib(base.shape, base.shape.least_context))
    return contexts


def _known(model: ModelView, snapshot: Snapshot) -> dict[str, Place]:
    """What was written down, without machines that are gone."""
    names = {replica.name for replica in snapshot.replicas}
    return {name: place for name, place in model.places.items() if name in names}


def _no_room(replica: ReplicaView, model: ModelView) -> str:
    room = replica.look.room_gib if replica.look else 0.0
    return (
        f"the machine was made to leave {room:.2f} GiB to own weights, {model.need_gib:.2f} GiB more are needed: "
        "another one takes its place"
    )


def _settle(
    model: ModelView, place: Place, here: AgentModel | None, context_tokens: int, now: datetime
) -> tuple[Place, bool]:
    """How far a model is on a machine, and whether it is to be sent there now."""
    is_due = place.retry_at is None or now >= place.retry_at
    if here is None or (here.sha256, here.context_tokens) != (model.sha256, context_tokens):
        return (replace(place, state=WAITING, retry_at=None), True) if is_due else (place, False)
    if here.state == READY:
        return Place(READY), False
    if here.state != FAILED:
        reason = f"{here.fetched_bytes} of {model.size_bytes} bytes" if here.state == "downloading" else here.reason
        return replace(place, state=here.state, reason=reason or place.reason), False
    if here.attempts != place.counted:
        attempts = place.attempts + 1
        backoff = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(attempts - 1, 10))
        return Place(FAILED, here.reason, attempts, here.attempts, now + backoff), False
    return (replace(place, state=WAITING, retry_at=None), True) if is_due else (place, False)


def _phase(model: ModelView, snapshot: Snapshot, places: dict[str, Place], served: list[bool]) -> list[Action]:
    """The phase that follows, for a model of the deployment's own."""
    if model.phase is Phase.DELETING:
        return [] if _is_held(model, snapshot) else [Remove(model.id)]
    if not model.is_wanted:
        return []
    if served and all(served):
        return [] if model.phase is Phase.READY else [SetPhase(model.id, Phase.READY)]
    worst = max(places.values(), key=lambda place: place.attempts, default=Place())
    if not any(served) and worst.attempts >= MOST_ATTEMPTS:
        return [SetPhase(model.id, Phase.FAILED, f"after {worst.attempts} attempts: {worst.reason}")]
    if model.phase is Phase.READY and (any(served) or not served):
        return []  # a new machine gets it meanwhile, or nothing runs that could
    reason = _why_not(snapshot, places)
    is_same = model.phase is Phase.DISTRIBUTING and model.reason == reason
    return [] if is_same else [SetPhase(model.id, Phase.DISTRIBUTING, reason)]


def _why_not(snapshot: Snapshot, places: dict[str, Place]) -> str:
    """Why a model is not ready, without numbers that change all the time."""
    if not snapshot.replicas:
        return "the deployment has no machine now: it gets the model when it has one"
    if failed := next((place for place in places.values() if place.attempts), None):
        return f"attempt {failed.attempts} of {MOST_ATTEMPTS} failed, it is tried again: {failed.reason}"
    waiting = [place.reason for place in places.values() if place.state == WAITING and place.reason]
    if waiting and len(waiting) == len(places):
        return waiting[0]
    return "machines fetch and load it" if places else "no machine of the deployment answers yet"


def _is_held(model: ModelView, snapshot: Snapshot) -> bool:
    """Whether a machine that was sent a model may still have it."""
    for replica in snapshot.replicas:
        if replica.look is None:
            if replica.name in model.places:
                return True
            continue
        here = replica.look.models.get(model.name)
        if here is not None and here.sha256 == model.sha256 and not _has_successor(model, snapshot):
            return True
    return False


def _has_successor(model: ModelView, snapshot: Snapshot) -> bool:
    """Whether another model has the very same file and name by now."""
    return any(m.is_wanted and (m.name, m.sha256) == (model.name, model.sha256) for m in snapshot.models)


def _leave(snapshot: Snapshot) -> list[Action]:
    """Models end with their deployment; its machines are gone whatever they held."""
    actions: list[Action] = []
    for model in snapshot.models:
        if model.is_base:
            if model.places:
                actions.append(SetPlaces(model.id, {}))
        elif model.phase is Phase.DELETING:
            actions.append(Remove(model.id))
        else:
            actions.append(SetPhase(model.id, Phase.DELETING, "its deployment was torn down"))
    return actions
