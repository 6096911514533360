"""The commands as an operator runs them: keys on the store, deployments over HTTP, doctor from the outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import deployments as deployments_cli
from api.cli import doctor, main
from api.settings import Settings
from engine.identity import installation_secret
from engine.model.hosts import DockerHost
from engine.store.database import Database
from engine.store.migrate import migrate
from tests.fakes.served_app import served

CREATE = ["create", "prod", "--model", "llama-3.3-70b-instruct", "--gpu", "h100", "--region", "nyc2"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `stackyard …` in this process on an installation of its own."""
    for name in [n for n in os.environ if n.startswith(("STACKYARD_", "DIGITALOCEAN_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STACKYARD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def call(*args: str, code: int = 0) -> Any:
        result = runner.invoke(main.build(), args)
        assert result.exit_code == code, result.output + repr(result.exception)
        return json.loads(result.stdout) if "json" in args else result

    return call


def test_keys_first_one_makes_the_first_organisation(run: Any, tmp_path: Path) -> None:
    first = run("keys", "create", "demo", "--output", "json")
    second = run("keys", "create", "ci", "--prefix", "ck", "--output", "json")
    assert first["key"].startswith("sk_") and second["key"].startswith("ck_") and first["org_id"] == second["org_id"]
    other = run("keys", "create", "them", "--new-org", "customer", "--output", "json")
    assert other["org_id"] != first["org_id"]
    assert run("keys", "create", "them too", "--org", other["org_id"], "--output", "json")["org_id"] == other["org_id"]
    assert {k["id"] for k in run("keys", "list", "--output", "json")} == {first["id"], second["id"]}
    assert run("keys", "revoke", first["id"], "--output", "json")["revoked_at"]
    shown = run("keys", "list").stdout
    assert first["id"] in shown and first["key"] not in shown
    assert (tmp_path / "data" / "secret.key").stat().st_mode & 0o777 == 0o600


def test_keys_create_prints_only_the_key_for_scripts(run: Any) -> None:
    assert run("keys", "create", "demo").stdout.strip().startswith("sk_")


def test_known_failures_are_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STACKYARD_")}
    for args, says in [
        (["keys", "revoke", "key_none"], "no key key_none: `stackyard keys list` shows them"),
        (["deployments", "list"], "set STACKYARD_API_KEY"),
        (["keys", "create", "x", "--org", "org_none"], "no organisation org_none"),
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "api.cli.main", *args], capture_output=True, text=True, check=False, timeout=60,
            env=environment | {"STACKYARD_DATA_DIR": str(tmp_path)}, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 1 and done.stdout == "", done.stderr
        assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_help_names_every_command_without_importing_them() -> None:
    code = "import sys\nfrom api.cli.main import build\ntry:\n    build()(['--help'])\nexcept SystemExit:\n    pass\n"
    code += (
        "heavy = {'pulumi', 'fastapi', 'sqlalchemy', 'aiohttp', 'httpx'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in main.COMMANDS)


def test_every_listed_command_can_be_loaded_and_explains_itself() -> None:
    for name in main.COMMANDS:
        assert main.load(name).help, name


@pytest.mark.parametrize("module", ["api.gateway", "api.server", "api.cli.keys", "api.cli.deployments"])
def test_processes_that_never_touch_stacks_do_not_import_pulumi(module: str) -> None:
    code = f"import sys, {module}\nassert not {{'pulumi', 'grpc', 'dbos'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_gateway_does_not_import_fastapi() -> None:
    code = "import sys, api.gateway\nassert not {'fastapi', 'starlette', 'alembic'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_deployments_from_create_to_delete(run: Any, api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(api.app) as url:
        monkeypatch.setenv("STACKYARD_URL", url)
        monkeypatch.setenv("STACKYARD_API_KEY", api.headers["Authorization"].removeprefix("Bearer "))
        assert run("deployments", "list", "--output", "json") == []
        made = run("deployments", *CREATE, "--output", "json")
        assert made["status"] == "provisioning" and made["id"] in run("deployments", "list").stdout
        assert run("deployments", "scale", made["id"], "3", "--output", "json")["replicas"] == 3
        assert run("deployments", "scale", made["id"], "--min", "1", "--output", "json")["scaling"]["min_replicas"] == 1
        own = ("--max", "4", "--zero", "--idle", "60", "--queue-depth", "8", "--latency-ms", "900")
        scaling = run("deployments", "scale", made["id"], *own, "--output", "json")["scaling"]
        assert list(scaling.values()) == [1, 4, True, 60, 8, 900]
        api.activate(made["id"], 3)
        settled = run("deployments", "get", made["id"], "--watch", "--output", "json")
        assert settled["status"] == "active" and settled["ready_replicas"] == 3
        api.logs.lines = {"r1-0": ["loading"], "r1-1": ["loaded"]}
        logs = run("deployments", "logs", made["id"])
        assert "r1-1  loaded" in logs.stdout and "r1-2  replica r1-2 does not answer" in logs.stderr
        assert run("deployments", "cost", made["id"]).stdout.startswith("$0.000000 so far, $13.23/hour now")
        tuned = run("deployments", "preset", made["id"], "speed", "--vllm=--max-num-seqs=64", "--output", "json")
        assert (tuned["preset"], tuned["vllm_args"]) == ("speed", ["--max-num-seqs", "64"])
        assert run("deployments", "preset", made["id"], "none", "--output", "json")["preset"] is None
        hook = run("webhooks", "add", made["id"], "https://a.example/h", "-e", "deployment.active", "--output", "json")
        assert hook["id"] in run("webhooks", "list", made["id"]).stdout and hook["secret"].startswith("whsec_")
        sent = run("webhooks", "test", made["id"], hook["id"]).stdout.strip()
        assert sent in run("webhooks", "log", made["id"], hook["id"]).stdout
        assert run("webhooks", "rotate", made["id"], hook["id"]).stdout.startswith("whsec_")
        run("webhooks", "delete", made["id"], hook["id"])
        assert run("webhooks", "list", made["id"], "--output", "json") == []
        targets = run("deployments", "sla", made["id"], "--ttft-ms", "500", "--tps", "99.5", "--output", "json")
        assert (targets["ttft_target_ms"], targets["throughput_target_tps"]) == (500, 99.5)
        shown = run("deployments", "sla", made["id"], "--tps", "none").stdout
        assert "first token 500 ms, throughput none" in shown
        assert run("deployments", "metrics", made["id"], "--output", "json")["window"] == "1h"
        assert "0 requests in 1m" in run("deployments", "metrics", made["id"], "-w", "1m").stdout
        assert "teardown" in run("deployments", "delete", made["id"]).stdout
        refused = run("deployments", "get", "dep_none", code=1).exception
        assert refused.status == 404 and refused.message == "no deployment dep_none"


def test_watching_ends_when_nothing_is_left_to_happen() -> None:
    looks: list[Any] = [
        {"status": "provisioning", "ready_replicas": 0, "replicas": 1},
        {"status": "active", "ready_replicas": 0, "replicas": 1},
        {"status": "active", "ready_replicas": 1, "replicas": 1},
    ]
    shown: list[Any] = []
    waits: list[float] = []
    last = deployments_cli.until_settled(lambda: looks[len(shown)], shown.append, waits.append)
    assert last == looks[2] and shown == looks and len(waits) == 2


def levels(settings: Settings, environment: dict[str, str]) -> dict[str, str]:
    return {f.check: f.level for f in doctor.examine(settings, environment)}


def test_doctor_finds_what_a_new_machine_lacks(tmp_path: Path) -> None:
    found = levels(Settings(data_dir=tmp_path / "new", port=0), {"PATH": ""})
    assert found["data folder"] == "ok" and found["cloud token"] == "problem"
    assert found["secret key"] == found["database"] == "note" and found["pulumi"] == "ok"


def test_doctor_says_what_to_do_about_each_problem(tmp_path: Path) -> None:
    installation_secret.load_or_create(tmp_path)
    (tmp_path / "secret.key").chmod(0o644)
    settings = Settings(
        data_dir=tmp_path, port=0, pulumi="cli", database_url="postgresql://nobody@127.0.0.1:1/none",
        digitalocean_api_endpoint="http://127.0.0.1:1",
    )  # fmt: skip
    found = {f.check: f for f in doctor.examine(settings, {"PATH": "", "DIGITALOCEAN_TOKEN": "x"})}
    for check, advice in [
        ("secret key", "chmod 600"), ("database", "STACKYARD_DATABASE_URL"), ("cloud", "check the network"),
        ("pulumi", "install it"),
    ]:  # fmt: skip
        assert found[check].level == "problem" and advice in found[check].text, check
    assert "nobody" not in found["database"].text.split(":")[0]


def test_doctor_asks_docker_hosts_whether_they_keep_their_promise(tmp_path: Path) -> None:
    async def daemon(scope: Any, receive: Any, send: Any) -> None:
        answers = {"/version": {"ApiVersion": "1.44"}, "info": {"ServerVersion": "29.0", "Runtimes": {"runc": {}}}}
        body = next(v for k, v in answers.items() if scope["path"].endswith(k))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    with served(daemon) as url:
        there = {"host": url.replace("http://", "tcp://"), "address": "127.0.0.1"}
        hosts = [
            {"name": "small", "pools": {"CPU": 2}, **there},
            {"name": "large", "pools": {"AMPERE_80": 2}, **there},
            {"name": "away", "pools": {"CPU": 1}, "host": f"unix://{tmp_path}/none.sock"},
            {"name": "red", "pools": {"MI300X": ["/dev/dri/renderD128"]}, **there},
            {"name": "counted", "pools": {"MI300X": 8}, **there},
        ]
        settings = Settings(data_dir=tmp_path, port=0, docker_hosts=json.dumps(hosts))
        found = {f.check: f for f in doctor.examine(settings, {"PATH": ""})}
    assert found["docker host red"].level == "ok", "AMD's GPUs need no runtime of NVIDIA's"
    assert found["docker host counted"].level == "problem" and "by node: name" in found["docker host counted"].text
    assert found["docker host small"].text == f"Docker 29.0 at {there['host']}; CPU 2"
    assert found["docker host large"].level == "problem" and "toolkit" in found["docker host large"].text
    assert found["docker host away"].level == "problem" and "start docker" in found["docker host away"].text
    assert found["cloud token"].level == "note" and found["worker_public_url"].level == "note"
    assert "iptables -I DOCKER-USER -i sy-+" in found["docker host small, walls"].text


def test_doctor_names_gpus_that_are_in_no_pool() -> None:
    host = DockerHost(name="red", host="unix:///none", pools={}, reads_gpus=True)
    nothing = doctor._promise("red", host, {}, ["AMD Instinct MI300A"])
    assert nothing.level == "problem" and "in no pool (AMD Instinct MI300A)" in nothing.text
    some = host.model_copy(update={"pools": {"MI300X": ("/dev/dri/renderD128",)}})
    assert doctor._promise("red", some, {}, ["Radeon"]).text.endswith("MI300X 1; in no pool, so not used: Radeon")


def test_doctor_reads_the_account_and_the_workers(tmp_path: Path) -> None:
    class Cloud:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            known = (b"authorization", b"Bearer right") in scope["headers"]
            body = json.dumps(
                {"account": {"status": "active", "droplet_limit": 25}} if known else {"id": "no"}
            ).encode()
            headers = [(b"content-type", b"application/json"), (b"ratelimit-remaining", b"100")]
            await send({"type": "http.response.start", "status": 200 if known else 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    settings = Settings(data_dir=tmp_path, port=0)
    database = Database(settings.resolved_database_url)
    migrate(database)
    database.close()
    with served(Cloud()) as url:
        settings = settings.model_copy(update={"digitalocean_api_endpoint": url})
        good = {f.check: f for f in doctor.examine(settings, {"PATH": "", "DIGITALOCEAN_TOKEN": "right"})}
        bad = levels(settings, {"PATH": "", "DIGITALOCEAN_TOKEN": "wrong"})
    assert good["cloud"].level == "ok" and "25 Droplets" in good["cloud"].text and good["cloud calls"].level == "note"
    assert good["database"].level == "ok" and good["workers"].level == "note"
    assert bad["cloud token"] == "problem"
