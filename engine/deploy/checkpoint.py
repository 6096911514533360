"""The stored form of a snapshot: Pulumi's deployment JSON, version 3, with its exact names, order and omissions.

Knows no files (`backend/`) and no engine. Source: pulumi `sdk/go/common/apitype/core.go`,
`pkg/resource/stack/deployment.go`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from engine.deploy.property import (
    ARCHIVE_SIGNATURE,
    ASSET_SIGNATURE,
    RESOURCE_SIGNATURE,
    SECRET_SIGNATURE,
    SIGNATURE,
    UNKNOWN,
    UNKNOWN_VALUE,
    Archive,
    Asset,
    Output,
    PropertyMap,
    PropertyValue,
    ResourceReference,
    Secret,
)
from engine.deploy.resource import PendingOperation, ResourceState
from engine.deploy.secrets import PROVIDER_TYPE, PassphraseSecrets, SecretsError, secret_text
from engine.deploy.snapshot import IntegrityError, Snapshot

COMPATIBLE_VERSION = "3.260.0"
"""The official engine whose files and answers these are; the version written into manifests."""

SCHEMA_VERSION = 3
_FEATURE_SCHEMA_VERSION = 4  # version 3 plus a list of features a reader must know
_FEATURES: Mapping[str, str] = {  # feature → the field of a resource that needs it
    "hooks": "hooks",
    "refreshBeforeUpdate": "refresh_before_update",
    "replaceWith": "replace_with",
    "taint": "taint",
}
_CLI_HINT = "use the official CLI for this stack (STACKYARD_PULUMI=cli)"

_TEXT_FIELDS = {
    "id": "id",
    "parent": "parent",
    "provider": "provider",
    "importID": "import_id",
    "deletedWith": "deleted_with",
    "created": "created",
    "modified": "modified",
}
_FLAG_FIELDS = {
    "delete": "delete",
    "protect": "protect",
    "external": "external",
    "pendingReplacement": "pending_replacement",
    "taint": "taint",
    "retainOnDelete": "retain_on_delete",
    "refreshBeforeUpdate": "refresh_before_update",
}
_LIST_FIELDS = {
    "dependencies": "dependencies",
    "initErrors": "init_errors",
    "additionalSecretOutputs": "additional_secret_outputs",
    "aliases": "aliases",
    "replaceWith": "replace_with",
    "ignoreChanges": "ignore_changes",
    "hideDiff": "hide_diffs",
    "replaceOnChanges": "replace_on_changes",
}
_ORDER = (
    "urn", "custom", "delete", "id", "type", "inputs", "outputs", "parent", "protect", "taint", "external",
    "dependencies", "initErrors", "provider", "propertyDependencies", "pendingReplacement",
    "additionalSecretOutputs", "aliases", "customTimeouts", "importID", "retainOnDelete", "deletedWith",
    "replaceWith", "created", "modified", "sourcePosition", "stackTrace", "ignoreChanges", "hideDiff",
    "replaceOnChanges", "replacementTrigger", "deleteBeforeReplace", "refreshBeforeUpdate", "viewOf",
    "resourceHooks",
)  # fmt: skip


class CheckpointError(Exception):
    """Stored state that must not be used; the message says what is wrong with it and what to do."""


@dataclass(frozen=True)
class Deployment:
    """A snapshot with what its stored form carries beside it.

    Attributes:
        time, version: the manifest's; "" where nothing was stored yet.
        salt: state of the passphrase secrets manager; "" without one.
        extra: members of the deployment this engine does not interpret.
        manifest: the manifest's further members (`plugins`).
    """

    snapshot: Snapshot = field(default_factory=Snapshot)
    time: str = ""
    version: str = ""
    salt: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)


def new_magic(version: str) -> str:
    """The manifest's integrity number: SHA-256 of the version text (pulumi: `deploy/manifest.go`, NewMagic)."""
    return hashlib.sha256(version.encode()).hexdigest() if version else ""


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC as Go writes it: the fraction without trailing zeros."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return text + "Z"


class CheckpointCodec:
    """Turns snapshots into deployment JSON and back for one stack.

    Remembers the ciphertexts it has read or made, by place: a secret that did not change keeps its ciphertext, so
    that a checkpoint does not differ where nothing changed.
    """

    def __init__(self, secrets: PassphraseSecrets | None) -> None:
        self._secrets = secrets
        self._known: dict[tuple[str, ...], tuple[str, str]] = {}

    def load(self, deployment: Mapping[str, Any]) -> Deployment:
        """Read a deployment object (the `latest` of a checkpoint, the `deployment` of an export).

        Raises:
            CheckpointError: it breaks the format.
            SecretsError: a secret cannot be decrypted.
        """
        try:
            manifest = dict(deployment.get("manifest") or {})
            provider = deployment.get("secrets_providers") or {}
            snapshot = Snapshot(
                resources=[self.load_resource(r) for r in deployment.get("resources") or ()],
                pending_operations=[
                    PendingOperation(type=str(o["type"]), resource=self.load_resource(o["resource"], place="pending"))
                    for o in deployment.get("pending_operations") or ()
                ],
                metadata=deployment.get("metadata") or {},
            )
        except (KeyError, TypeError, AttributeError, ValueError) as err:
            raise CheckpointError(f"the deployment breaks Pulumi's format ({err!r}); {_RESTORE}") from err
        known = {"manifest", "secrets_providers", "resources", "pending_operations", "metadata"}
        return Deployment(
            snapshot=snapshot,
            time=str(manifest.pop("time", "")),
            version=_checked_version(manifest),
            salt=salt_of(provider),
            extra={k: v for k, v in deployment.items() if k not in known},
            manifest=manifest,
        )

    def dump(self, deployment: Deployment, *, show_secrets: bool = False) -> dict[str, Any]:
        """The deployment object; secrets as ciphertexts, or as `plaintext` for an export that shows them."""
        manifest = {"time": deployment.time, "magic": new_magic(deployment.version), "version": deployment.version}
        data: dict[str, Any] = {"manifest": {**manifest, **deployment.manifest}}
        if deployment.salt:
            data["secrets_providers"] = {"type": PROVIDER_TYPE, "state": {"salt": deployment.salt}}
        snapshot = deployment.snapshot
        if snapshot.resources:
            data["resources"] = [self.dump_resource(r, show_secrets=show_secrets) for r in snapshot.resources]
        if snapshot.pending_operations:
            data["pending_operations"] = [
                {
                    "resource": self.dump_resource(o.resource, place="pending", show_secrets=show_secrets),
                    "type": o.type,
                }
                for o in snapshot.pending_operations
            ]
        data["metadata"] = dict(snapshot.metadata)
        return {**data, **deployment.extra}

    def load_resource(self, data: Mapping[str, Any], *, place: str = "live") -> ResourceState:
        """One resource object of a checkpoint."""
        urn = str(data["urn"])
        fields: dict[str, Any] = {"urn": urn, "type": str(data["type"]), "custom": bool(data.get("custom", False))}
        place = _place(place, bool(data.get("delete")), str(data.get("id", "")))
        fields.update({name: str(data[key]) for key, name in _TEXT_FIELDS.items() if data.get(key)})
        fields.update({name: bool(data[key]) for key, name in _FLAG_FIELDS.items() if data.get(key)})
        fields.update({name: tuple(data[key]) for key, name in _LIST_FIELDS.items() if data.get(key)})
        for part in ("inputs", "outputs"):
            values = data.get(part) or {}
            fields[part] = {k: self._load_value(v, (urn, place, part, k)) for k, v in values.items()}
        if "propertyDependencies" in data:
            fields["property_dependencies"] = {
                k: tuple(v) if v is not None else () for k, v in data["propertyDependencies"].items()
            }
        if "customTimeouts" in data:
            fields["custom_timeouts"] = dict(data["customTimeouts"])
        if data.get("deleteBeforeReplace") is not None:
            fields["delete_before_replace"] = bool(data["deleteBeforeReplace"])
        if "resourceHooks" in data:
            fields["hooks"] = {when: tuple(names) for when, names in data["resourceHooks"].items()}
        if data.get("replacementTrigger") is not None:
            trigger = data["replacementTrigger"]
            fields["replacement_trigger"] = self._load_value(trigger, (urn, place, "replacementTrigger"))
        fields["extra"] = {k: v for k, v in data.items() if k not in _INTERPRETED}
        return ResourceState(**fields)

    def dump_resource(self, state: ResourceState, *, place: str = "live", show_secrets: bool = False) -> dict[str, Any]:
        """One resource object, members in Pulumi's order, empty ones left out."""
        place = _place(place, state.delete, state.id)
        members: dict[str, Any] = {"urn": state.urn, "custom": state.custom, "type": state.type, **state.extra}
        members.update({key: getattr(state, name) for key, name in _TEXT_FIELDS.items() if getattr(state, name)})
        members.update({key: True for key, name in _FLAG_FIELDS.items() if getattr(state, name)})
        members.update({key: list(getattr(state, name)) for key, name in _LIST_FIELDS.items() if getattr(state, name)})
        for part, values in (("inputs", state.inputs), ("outputs", state.outputs)):
            if values:
                members[part] = self.dump_properties(values, (state.urn, place, part), show_secrets=show_secrets)
        if state.property_dependencies:
            dependencies = state.property_dependencies
            members["propertyDependencies"] = {k: list(dependencies[k]) for k in sorted(dependencies)}
        if state.custom_timeouts:
            members["customTimeouts"] = dict(state.custom_timeouts)
        if state.delete_before_replace is not None:
            members["deleteBeforeReplace"] = state.delete_before_replace
        if state.replacement_trigger is not None:
            where = (state.urn, place, "replacementTrigger")
            members["replacementTrigger"] = self._dump_value(state.replacement_trigger, where, show_secrets)
        if state.hooks:
            members["resourceHooks"] = {when: list(names) for when, names in sorted(state.hooks.items())}
        ordered = {key: members.pop(key) for key in _ORDER if key in members}
        return {**ordered, **members}

    def dump_properties(
        self, values: PropertyMap, place: tuple[str, ...], *, show_secrets: bool = False
    ) -> dict[str, Any]:
        """A property map in stored form, keys sorted as Go's encoder sorts them."""
        return {k: self._dump_value(values[k], (*place, k), show_secrets) for k in sorted(values)}

    def load_properties(self, values: Mapping[str, Any], place: tuple[str, ...]) -> PropertyMap:
        """A property map from its stored form."""
        return {k: self._load_value(v, (*place, k)) for k, v in values.items()}

    def _load_value(self, value: Any, place: tuple[str, ...]) -> PropertyValue:
        if isinstance(value, list):
            return [self._load_value(v, (*place, str(i))) for i, v in enumerate(value)]
        if isinstance(value, dict):
            if SIGNATURE in value:
                return self._load_marked(value, place)
            return {k: self._load_value(v, (*place, k)) for k, v in value.items()}
        return UNKNOWN if value == UNKNOWN_VALUE else value

    def _load_marked(self, value: Mapping[str, Any], place: tuple[str, ...]) -> PropertyValue:
        fields = {k: v for k, v in value.items() if k != SIGNATURE}
        match value[SIGNATURE]:
            case s if s == SECRET_SIGNATURE:
                return Secret(self._load_value(json.loads(self._open(value, place)), (*place, "secret")))
            case s if s == ASSET_SIGNATURE:
                return Asset(fields)
            case s if s == ARCHIVE_SIGNATURE:
                return Archive({k: self._load_value(v, (*place, k)) for k, v in fields.items()})
            case s if s == RESOURCE_SIGNATURE:
                package_version = str(fields.get("packageVersion", ""))
                return ResourceReference(str(fields["urn"]), fields.get("id"), package_version)
        raise CheckpointError(f"unrecognized signature {value[SIGNATURE]!r} at {'.'.join(place)}; {_CLI_HINT}")

    def _open(self, value: Mapping[str, Any], place: tuple[str, ...]) -> str:
        if "plaintext" in value:
            return str(value["plaintext"])
        if self._secrets is None:
            raise SecretsError(
                "the stack has secrets and no passphrase was given: "
                "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE"
            )
        ciphertext = str(value["ciphertext"])
        plaintext = self._secrets.decrypt(ciphertext)
        self._known[place] = (plaintext, ciphertext)
        return plaintext

    def _dump_value(self, value: PropertyValue, place: tuple[str, ...], show: bool) -> Any:
        if isinstance(value, dict):
            return {k: self._dump_value(value[k], (*place, k), show) for k in sorted(value)}
        if isinstance(value, list | tuple):
            return [self._dump_value(v, (*place, str(i)), show) for i, v in enumerate(value)]
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
            return int(value)  # Go writes 720, not 720.0
        if value is UNKNOWN:
            return UNKNOWN_VALUE
        if isinstance(value, Secret):
            return self._dump_secret(value, place, show)
        if isinstance(value, Output):
            inner: PropertyValue = value.value if value.known else UNKNOWN
            return self._dump_value(Secret(inner) if value.secret else inner, place, show)
        if isinstance(value, Asset):
            return {SIGNATURE: ASSET_SIGNATURE, **value.fields}
        if isinstance(value, Archive):
            members = {k: self._dump_value(v, (*place, k), show) for k, v in value.fields.items()}
            return {SIGNATURE: ARCHIVE_SIGNATURE, **members}
        if isinstance(value, ResourceReference):
            return _dump_reference(value)
        return value

    def _dump_secret(self, secret: Secret, place: tuple[str, ...], show: bool) -> dict[str, Any]:
        plaintext = secret_text(self._dump_value(secret.value, (*place, "secret"), True))
        if show:
            return {SIGNATURE: SECRET_SIGNATURE, "plaintext": plaintext}
        return {SIGNATURE: SECRET_SIGNATURE, "ciphertext": self._seal(plaintext, place)}

    def _seal(self, plaintext: str, place: tuple[str, ...]) -> str:
        known = self._known.get(place)
        if known is not None and known[0] == plaintext:
            return known[1]
        if self._secrets is None:
            raise SecretsError("a secret cannot be stored without a passphrase: set PULUMI_CONFIG_PASSPHRASE")
        ciphertext = self._secrets.encrypt(plaintext)
        self._known[place] = (plaintext, ciphertext)
        return ciphertext


_INTERPRETED = frozenset(
    {
        "urn",
        "type",
        "custom",
        "inputs",
        "outputs",
        "propertyDependencies",
        "customTimeouts",
        "deleteBeforeReplace",
        "replacementTrigger",
        "resourceHooks",
    }
    | _TEXT_FIELDS.keys()
    | _FLAG_FIELDS.keys()
    | _LIST_FIELDS.keys()
)
_RESTORE = "restore the stack from its .bak file, backups/ or history/ and run `pulumi stack import`"


def _place(place: str, delete: bool, id: str) -> str:
    # Two copies of one URN (a replacement and its old one) must not share remembered ciphertexts.
    return f"{place}/{id}" if delete else place


def _dump_reference(reference: ResourceReference) -> dict[str, Any]:
    data = {SIGNATURE: RESOURCE_SIGNATURE, "urn": reference.urn, "packageVersion": reference.package_version}
    if reference.id is not None:
        data["id"] = UNKNOWN_VALUE if reference.id is UNKNOWN else reference.id
    return data


def _checked_version(manifest: dict[str, Any]) -> str:
    version, magic = str(manifest.pop("version", "")), manifest.pop("magic", None)
    if magic is not None and str(magic) != new_magic(version):
        raise CheckpointError(
            f"the manifest's magic does not belong to version {version!r}: the checkpoint was altered; {_RESTORE}"
        )
    return version


def salt_of(provider: Mapping[str, Any]) -> str:
    """The passphrase salt of a `secrets_providers` object; "" without one.

    Raises:
        CheckpointError: another secrets provider.
    """
    if not provider:
        return ""
    if provider.get("type") != PROVIDER_TYPE:
        raise CheckpointError(
            f"the stack's secrets are kept by {provider.get('type')!r}; the embedded engine knows only the passphrase "
            f"provider: {_CLI_HINT}, or `pulumi stack change-secrets-provider passphrase`"
        )
    return str((provider.get("state") or {}).get("salt", ""))


def parse_versioned(text: str | bytes, where: str, member: str) -> dict[str, Any]:
    """Read the envelope of a checkpoint file (`member` "checkpoint") or an export ("deployment"); returns the inside.

    Raises:
        CheckpointError: truncated, not JSON, an older or newer schema, or features this engine does not know.
    """
    try:
        data = json.loads(text)
    except ValueError as err:
        raise CheckpointError(f"{where} is not complete JSON ({err}); {_RESTORE}") from err
    if not isinstance(data, dict) or not isinstance(data.get(member, {}), dict):
        raise CheckpointError(f"{where} is not a Pulumi {member}; {_RESTORE}")
    version = data.get("version")
    unknown = set(data.get("features") or ()) - _FEATURES.keys()
    if version == _FEATURE_SCHEMA_VERSION and unknown:
        raise CheckpointError(f"{where} uses features unknown here ({', '.join(sorted(unknown))}); {_CLI_HINT}")
    if version not in (SCHEMA_VERSION, _FEATURE_SCHEMA_VERSION):
        what = "newer" if isinstance(version, int) and version > SCHEMA_VERSION else "older"
        raise CheckpointError(
            f"{where} has schema version {version}, {what} than the {SCHEMA_VERSION} understood here; {_CLI_HINT}"
        )
    return dict(data.get(member) or {})


def versioned(member: str, inside: Mapping[str, Any], resources: Sequence[ResourceState]) -> dict[str, Any]:
    """The envelope; schema version 4 only where a resource needs a feature, as the official engine does."""
    features = [feature for feature, name in _FEATURES.items() if any(getattr(r, name) for r in resources)]
    if features:
        return {"version": _FEATURE_SCHEMA_VERSION, "features": features, member: dict(inside)}
    return {"version": SCHEMA_VERSION, member: dict(inside)}


def verified(snapshot: Snapshot, where: str) -> Snapshot:
    """The snapshot itself if it keeps every rule.

    Raises:
        CheckpointError: a duplicate URN, an unknown parent, provider or dependency.
    """
    try:
        snapshot.verify_integrity()
    except IntegrityError as err:
        raise CheckpointError(f"{where}: snapshot integrity failure; refusing to use it: {err}; {_RESTORE}") from err
    return snapshot


def stamped(deployment: Deployment, snapshot: Snapshot, now: datetime, salt: str) -> Deployment:
    """The deployment to store after an update: this engine's version and time, the given snapshot and salt."""
    return replace(
        deployment, snapshot=snapshot, time=format_time(now), version=f"v{COMPATIBLE_VERSION}", salt=salt, manifest={}
    )
