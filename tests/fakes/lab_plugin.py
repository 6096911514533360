"""The provider plugin of the tests: `pulumi-resource-lab`, written with the SDK's `pulumi.provider`.

Everything it makes is a file in the folder of its configuration; `act` says how a resource misbehaves.
"""

from __future__ import annotations

import sys
from pathlib import Path

_SCRIPT = '''#!{python}
import asyncio, json, os, sys
from pathlib import Path

import grpc
from google.protobuf import empty_pb2
from pulumi.provider.experimental import provider as p
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc, status_pb2


def text(values, key, default=""):
    value = values.get(key)
    return default if value is None or value.value is None else value.value


def measured(values, words):
    facts = {{"size": float(len(words)), "pid": float(os.getpid()), "tone": os.environ.get("LAB_TONE", "")}}
    return {{**values, **{{key: PropertyValue(fact) for key, fact in facts.items()}}}}


class Lab(p.Provider):
    folder = None
    greeting = ""
    stamp = ""

    async def parameterize(self, request):
        self.stamp = request.parameters.value.decode()
        name = "another" if self.stamp == "wrong" else request.parameters.name
        return p.ParameterizeResponse(name, request.parameters.version)

    async def check_config(self, request):
        known = "folder" in request.new_inputs or "LAB_FOLDER" in os.environ
        failures = [] if known else [p.CheckFailure("folder", "say where")]
        return p.CheckResponse(request.new_inputs, failures)

    async def diff_config(self, request):
        return p.DiffResponse(changes=None)

    async def configure(self, request):
        self.folder = Path(text(request.args, "folder", os.environ.get("LAB_FOLDER")))
        self.greeting = text(request.args, "greeting")
        with (self.folder / "configured").open("a") as file:
            file.write(f"{{os.getpid()}} {{self.greeting}}\\n")
        return p.ConfigureResponse(
            accept_secrets=True, supports_preview=True, accept_resources=True, accept_outputs=False)

    async def check(self, request):
        failures = [p.CheckFailure("text", "too short")] if text(request.new_inputs, "text") == "" else []
        return p.CheckResponse(request.new_inputs, failures)

    async def diff(self, request):
        old, new = text(request.old_state, "text"), text(request.new_inputs, "text")
        kind = p.PropertyDiffKind.UPDATE_REPLACE if new.startswith("replace") else p.PropertyDiffKind.UPDATE
        detail = {{"text": p.PropertyDiff(kind, True)}} if old != new else {{}}
        replaces = ["text"] if detail and new.startswith("replace") else []
        return p.DiffResponse(changes=old != new, replaces=replaces, detailed_diff=detail)

    async def create(self, request):
        if request.preview:
            return p.CreateResponse(resource_id="", properties=request.properties)
        words = text(request.properties, "text")
        if (source := request.properties.get("source")) is not None:
            words = Path(source.value.path).read_text()
        if words == "die":
            (self.folder / "half").write_text("made before the end")
            print("lab: out of memory", file=sys.stderr, flush=True)
            os._exit(3)
        if words == "refuse":
            raise RuntimeError("the lab is closed")
        path = self.folder / f"{{request.name}}-{{len(list(self.folder.iterdir()))}}"
        path.write_text(self.stamp + words)
        return p.CreateResponse(str(path), measured(request.properties, words))

    async def update(self, request):
        words = text(request.news, "text")
        if not request.preview:
            Path(request.resource_id).write_text(words)
        return p.UpdateResponse(measured(request.news, words))

    async def read(self, request):
        path = Path(request.resource_id)
        if not path.exists():
            return p.ReadResponse("", {{}}, {{}})
        words = path.read_text()
        known = {{"text": PropertyValue(words)}}
        properties = measured({{**request.properties, **known}}, words)
        return p.ReadResponse(str(path), {{**request.inputs, **known}}, properties)

    async def delete(self, request):
        Path(request.resource_id).unlink(missing_ok=True)

    async def invoke(self, request):
        if not request.tok.endswith(":index:greet"):
            return p.InvokeResponse({{}}, [p.CheckFailure("tok", f"no function {{request.tok}}")])
        words = f"{{self.stamp}}{{self.greeting}} {{text(request.args, 'who')}}"
        return p.InvokeResponse({{"words": PropertyValue(words)}}, [])


class Servicer(ProviderServicer):
    """Adds what the SDK's server cannot say: a handshake, half a create, a state that goes stale, a log message."""

    hello = None
    cancelled = asyncio.Event()

    async def Handshake(self, request, context):
        self.hello = request
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True, accept_resources=True, supports_autonaming_configuration=True)

    async def Attach(self, request, context):
        return empty_pb2.Empty()

    async def Configure(self, request, context):
        response = await super().Configure(request, context)
        told = {{"root": self.hello.root_directory, "stale": self.hello.supports_refresh_before_update,
                 "is_engine": self.hello.engine_address == sys.argv[1]}}
        (self._provider.folder / "hello").write_text(json.dumps(told))
        return response

    async def Check(self, request, context):
        response = await super().Check(request, context)
        if request.HasField("autonaming"):
            response.inputs.fields["proposed"].string_value = request.autonaming.proposed_name
        return response

    async def Cancel(self, request, context):
        (self._provider.folder / "cancelled").write_text("")
        self.cancelled.set()
        return empty_pb2.Empty()

    async def Call(self, request, context):
        if request.tok != "lab:index:Paper/read":
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no method {{request.tok}}")
        response = provider_pb2.CallResponse()
        fields = getattr(response, "return").fields
        if request.args.fields["who"].string_value == "nobody":
            response.failures.add(property="who", reason="somebody must read it")
        fields["words"].string_value = f"{{request.args.fields['who'].string_value}} reads in {{request.stack}}"
        response.returnDependencies["words"].urns.extend(request.argDependencies["who"].urns)
        return response

    async def say(self, request):
        async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
            await engine_pb2_grpc.EngineStub(channel).Log(engine_pb2.LogRequest(
                severity=engine_pb2.WARNING, message="the paper is thin", urn=request.urn))
        print("lab: the press is warm", file=sys.stderr, flush=True)

    async def Create(self, request, context):
        fields = request.properties.fields
        if fields["text"].string_value == "loud" and not request.preview:
            await self.say(request)
        if fields["text"].string_value == "slow" and not request.preview:
            (self._provider.folder / "slow").write_text("")
            await self.cancelled.wait()
            await context.abort(grpc.StatusCode.ABORTED, "stopped in time")
        if fields["text"].string_value == "half" and not request.preview:
            failed = provider_pb2.ErrorResourceInitFailed(
                id=str(self._provider.folder / "half"), properties=request.properties,
                reasons=["it does not answer"], inputs=request.properties)
            (self._provider.folder / "half").write_text("half")
            status = status_pb2.Status(code=2, message="it was made and does not work")
            status.details.add().Pack(failed)
            await context.abort(grpc.StatusCode.UNKNOWN, "it was made and does not work",
                (("grpc-status-details-bin", status.SerializeToString()),))
        response = await super().Create(request, context)
        response.refresh_before_update = fields["text"].string_value.startswith("volatile")
        return response

    async def Update(self, request, context):
        response = await super().Update(request, context)
        response.refresh_before_update = request.news.fields["text"].string_value.startswith("volatile")
        return response

    async def Read(self, request, context):
        response = await super().Read(request, context)
        if response.id:
            response.refresh_before_update = True
            with (self._provider.folder / "reads").open("a") as file:
                file.write("read\\n")
        return response


async def serve():
    server = grpc.aio.server(options=_GRPC_CHANNEL_OPTIONS)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(
        Servicer(sys.argv[1:], "{version}", Lab(), engine_address=sys.argv[1]), server)
    port = server.add_insecure_port(f"127.0.0.1:{{sys.argv[2] if len(sys.argv) > 2 else 0}}")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


asyncio.run(serve())
'''


def install(folder: Path, version: str = "1.0.0", *, name: str = "lab", text: str = "text") -> Path:
    """Write the plugin into a folder; returns the program.

    Args:
        name: of the package; its types may be any.
        text: the input that has the words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"pulumi-resource-{name}"
    program.write_text(_SCRIPT.format(python=sys.executable, version=version).replace('"text"', f'"{text}"'))
    program.chmod(0o755)
    return program
