"""Which outputs become secret because an input was, or because the program asked.

Not encryption (`secrets.py`). Source: pulumi `sdk/go/common/resource/plugin/provider_plugin.go`, annotateSecrets.
"""

from __future__ import annotations

from engine.deploy.property import PropertyMap, PropertyValue, Secret, contains_secret
from engine.deploy.resource import ResourceState


def mark_secrets(state: ResourceState, outputs: PropertyMap) -> PropertyMap:
    """The outputs with `additional_secret_outputs` and the echoes of secret inputs made secret."""
    marked = annotate(outputs, state.inputs)
    for key in state.additional_secret_outputs:
        if key in marked:
            marked[key] = _secret(marked[key])
    return marked


def annotate(values: PropertyMap, secrets_of: PropertyMap) -> PropertyMap:
    """`values` with what is secret in `secrets_of` made secret.

    One secret element makes its whole list secret, unless the list says itself which of its elements are.
    """
    marked = dict(values)
    for key, model in secrets_of.items():
        if key in marked:
            marked[key] = _annotate(marked[key], model)
    return marked


def _annotate(value: PropertyValue, model: PropertyValue) -> PropertyValue:
    if isinstance(value, Secret):
        return value
    if isinstance(model, Secret):
        return Secret(value)
    if isinstance(value, dict) and isinstance(model, dict):
        return annotate(value, model)
    if isinstance(model, list) and contains_secret(model) and not contains_secret(value):
        return Secret(value)
    return value


def _secret(value: PropertyValue) -> PropertyValue:
    return value if isinstance(value, Secret) else Secret(value)
