"""The provider plugin of the conformance tests, `pulumi-resource-cells`: everything about it is the same on every run.

Each cell is a JSON file in the folder of the provider's configuration. Not a tidy provider: `fail` says where a cell
misbehaves. Installed as a script that runs this module (`install`).
"""

from __future__ import annotations

import json
import stat
import sys
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format, struct_pb2
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
REPLACING = ("place", "site")  # inputs that need a new cell; a new site also needs the old one gone first


def install(home: Path, versions: tuple[str, ...] = ("1.0.0",)) -> None:
    """Put the plugin into a `PULUMI_HOME` as `pulumi plugin install` does."""
    root = Path(__file__).parents[2]
    for version in versions:
        folder = home / "plugins" / f"resource-cells-v{version}"
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "pulumi-resource-cells"
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
            f"from tests.fakes.cells_plugin import serve\nserve({version!r})\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


def serve(version: str) -> None:
    """Serve until the engine ends the process."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Cells(version), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    with suppress(KeyboardInterrupt):  # an engine that ends, ends its plugins by a signal
        server.wait_for_termination()


class Cells(provider_pb2_grpc.ResourceProviderServicer):
    """One configured provider."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._folder = Path()
        self._greeting = ""

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=self._version)

    def Attach(self, request: Any, context: Any) -> Any:
        return Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        return Empty()

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "cells", "version": self._version}))

    def CheckConfig(self, request: Any, context: Any) -> Any:
        news = plain(request.news)
        failures = [] if "folder" in news else [provider_pb2.CheckFailure(property="folder", reason="say where")]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        olds, news = plain(request.old_inputs), plain(request.news)
        differs = sorted(k for k in olds.keys() | news.keys() if olds.get(k) != news.get(k) and k != "version")
        changes = provider_pb2.DiffResponse.DIFF_SOME if differs else provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(changes=changes, diffs=differs, replaces=[k for k in differs if k == "zone"])

    def Configure(self, request: Any, context: Any) -> Any:
        values = plain(request.args)
        self._folder, self._greeting = Path(str(values["folder"])), str(values.get("greeting", ""))
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, acceptResources=True, acceptOutputs=False
        )

    def Check(self, request: Any, context: Any) -> Any:
        news = plain(request.news)
        failures = []
        if news.get("fail") == "check":
            failures.append(provider_pb2.CheckFailure(property="fail", reason="a cell cannot be like that"))
        inputs = struct(request.news)
        inputs.setdefault("colour", "grey")
        return provider_pb2.CheckResponse(inputs=packed(inputs), failures=failures)

    def Diff(self, request: Any, context: Any) -> Any:
        if plain(request.news).get("fail") == "diff":
            context.abort(grpc.StatusCode.UNKNOWN, "the cells differ too much")
        olds, news = plain(request.old_inputs), plain(request.news)
        differs = sorted(
            k for k in olds.keys() | news.keys() if olds.get(k) != news.get(k) and k not in request.ignoreChanges
        )
        if not differs:
            return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)
        replaces = [k for k in differs if k in REPLACING]
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME,
            diffs=differs,
            replaces=replaces,
            deleteBeforeReplace="site" in replaces,
            hasDetailedDiff=True,
            detailedDiff={k: provider_pb2.PropertyDiff(kind=_kind(k, olds, news), inputDiff=True) for k in differs},
        )

    def Create(self, request: Any, context: Any) -> Any:
        inputs = struct(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(id="", properties=packed(self._outputs(inputs, UNKNOWN)))
        fail = plain(request.properties).get("fail")
        if fail == "create":
            context.abort(grpc.StatusCode.UNKNOWN, "no cell could be made")
        name = request.urn.rpartition("::")[2]
        id = f"{name}-{len(list(self._folder.glob(f'{name}-*')))}"
        outputs = self._outputs(inputs, id.upper())
        self._write(id, inputs, outputs)
        if fail == "partial":
            _half_done(context, id, inputs, outputs, "it was made and does not work")
        return provider_pb2.CreateResponse(id=id, properties=packed(outputs))

    def Read(self, request: Any, context: Any) -> Any:
        path = self._folder / request.id
        if not path.exists():
            return provider_pb2.ReadResponse()
        held = json.loads(path.read_text())
        if held["inputs"].get("fail") == "read":
            context.abort(grpc.StatusCode.UNKNOWN, "nobody may look into this cell")
        if held["inputs"].get("fail") == "half-read":
            _half_done(context, request.id, held["inputs"], held["outputs"], "it does not answer")
        return provider_pb2.ReadResponse(
            id=request.id, inputs=packed(held["inputs"]), properties=packed(held["outputs"])
        )

    def Update(self, request: Any, context: Any) -> Any:
        inputs = struct(request.news)
        outputs = self._outputs(inputs, request.id.upper())
        if request.preview:
            return provider_pb2.UpdateResponse(properties=packed(outputs))
        fail = plain(request.news).get("fail")
        if fail == "update":
            context.abort(grpc.StatusCode.UNKNOWN, "the cell will not change")
        self._write(request.id, inputs, outputs)
        if fail == "partial-update":
            _half_done(context, request.id, inputs, outputs, "it changed and does not work")
        return provider_pb2.UpdateResponse(properties=packed(outputs))

    def Delete(self, request: Any, context: Any) -> Any:
        if plain(request.properties).get("fail") == "delete":
            context.abort(grpc.StatusCode.UNKNOWN, "the cell stays")
        (self._folder / request.id).rename(self._folder / f"{request.id}-gone")
        return Empty()

    def Invoke(self, request: Any, context: Any) -> Any:
        args = plain(request.args)
        if request.tok == "cells:index:greet":
            words = f"{self._greeting} {args.get('who')}"
            value = {**SECRET, "value": words} if args.get("hush") else words
            return provider_pb2.InvokeResponse(**{"return": packed({"words": value})})
        if request.tok == "cells:index:refuse":
            failure = provider_pb2.CheckFailure(property="who", reason="nobody is called that")
            return provider_pb2.InvokeResponse(failures=[failure])
        return context.abort(grpc.StatusCode.UNKNOWN, f"no function {request.tok}")

    def Call(self, request: Any, context: Any) -> Any:
        args = plain(request.args)
        return provider_pb2.CallResponse(**{"return": packed({"words": f"{args.get('what')}!".upper()})})

    def _outputs(self, inputs: dict[str, Any], serial: str) -> dict[str, Any]:
        text = inputs.get("text", "")
        size = len(text) if isinstance(text, str) and text != UNKNOWN else UNKNOWN if text == UNKNOWN else 0
        key = {"key": {**SECRET, "value": f"key of {serial}"}} if inputs.get("keyed") else {}
        return {**inputs, **key, "size": size, "serial": serial}

    def _write(self, id: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        (self._folder / id).write_text(json.dumps({"inputs": inputs, "outputs": outputs}, sort_keys=True))


def struct(message: Any) -> dict[str, Any]:
    """A struct's values, secrets still marked."""
    found: dict[str, Any] = json_format.MessageToDict(message)
    return found


def plain(message: Any) -> dict[str, Any]:
    """A struct's values with secrets opened."""
    opened: dict[str, Any] = _opened(struct(message))
    return opened


def packed(values: dict[str, Any]) -> Any:
    """Values as a struct."""
    return json_format.ParseDict(values, struct_pb2.Struct())


def _opened(value: Any) -> Any:
    if isinstance(value, dict):
        if all(value.get(k) == v for k, v in SECRET.items()):
            return _opened(value["value"])
        return {k: _opened(v) for k, v in value.items()}
    return [_opened(v) for v in value] if isinstance(value, list) else value


def _kind(key: str, olds: dict[str, Any], news: dict[str, Any]) -> int:
    verb = "ADD" if key not in olds else "DELETE" if key not in news else "UPDATE"
    suffix = "_REPLACE" if key in REPLACING else ""
    return int(provider_pb2.PropertyDiff.Kind.Value(f"{verb}{suffix}"))


def _half_done(context: Any, id: str, inputs: dict[str, Any], outputs: dict[str, Any], reason: str) -> None:
    failed = provider_pb2.ErrorResourceInitFailed(
        id=id, properties=packed(outputs), reasons=[reason], inputs=packed(inputs)
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=reason)
    status.details.add().Pack(failed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNKNOWN, reason)


def edit(folder: Path, id: str, **changes: Any) -> None:
    """Somebody changed a cell behind the engine's back."""
    path = folder / id
    held = json.loads(path.read_text())
    for values in held.values():
        values.update(changes)
    path.write_text(json.dumps(held, sort_keys=True))
