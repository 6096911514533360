"""Every setting, read once here from the environment (`STACKYARD_…`) or an `.env` file; components get values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from engine.identity.mail import SmtpServer
from engine.identity.oidc_client import CALLBACK, OidcClient
from engine.model.errors import InvalidSpec
from engine.model.hosts import DockerHost, parse_hosts
from engine.model.registries import LocalImages, parse_allowed
from engine.storage.s3_urls import S3Place
from engine.webhooks.address import AddressRule


class Settings(BaseSettings):
    """The installation's settings. Frozen; a derived default is a property."""

    model_config = SettingsConfigDict(env_prefix="STACKYARD_", env_file=".env", extra="ignore", frozen=True)

    data_dir: Path = Field(Path(".stackyard"), description="state, database, keys, logs of this installation")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the data folder")
    backend_url: str = Field("", description="Pulumi backend; empty: file:// in the data folder")
    pulumi: Literal["auto", "embedded", "cli"] = Field("auto", description="which engine runs below the Automation API")
    secret_key: str = Field("", description="seals secrets and hashes keys; empty: made once in <data_dir>/secret.key")

    host: str = Field("127.0.0.1", description="address of the public port")
    port: int = Field(8080, ge=0, le=65535, description="the one public port (the gateway's)")
    public_url: str = Field("", description="how clients reach the gateway; empty: http://host:port")
    max_body_bytes: int = Field(32 * 1024 * 1024, description="larger request bodies get a 413")

    storage_backend: Literal["disk", "s3"] = Field("disk", description="where stored objects lie")
    storage_s3_endpoint: str = Field("", description="https://HOST of an S3 server; empty: AWS in the region")
    storage_s3_region: str = "us-east-1"
    storage_s3_access_key: str = ""
    storage_s3_secret_key: SecretStr = SecretStr("")
    storage_s3_bucket_prefix: str = Field("stackyard", description="buckets are named PREFIX-ORGANISATION")
    storage_dir: str = Field("", description="folder of the backend disk; empty: <data_dir>/storage")
    own_weights_bytes: int = Field(20 * 10**9, ge=1, description="the largest GGUF file that may be uploaded")
    storage_quota_bytes: int = Field(0, ge=0, description="the most an organisation keeps; 0: no limit")

    digitalocean_api_endpoint: str = Field("https://api.digitalocean.com", description="or a sandbox's URL")
    cloud_calls_per_minute: int = Field(250, ge=1, description="the cloud's limit per token; 80 % of it is used")
    cloud_calls_per_hour: int = Field(5000, ge=1, description="the cloud's limit per token; 80 % of it is used")
    control_plane_cidrs: str = Field("0.0.0.0/0,::/0", description="who may reach the workers' port; comma-separated")
    ssh_keys: str = Field("", description="DigitalOcean SSH key ids or fingerprints put on Droplets; comma-separated")
    hugging_face_token: str = Field("", description="for gated weights")

    docker_hosts: str = Field(
        "",
        description='Docker hosts that run handlers and pods, a JSON list: [{"name":"local","host":"unix:///var/run/'
        'docker.sock","address":"127.0.0.1","pools":{"CPU":8}}]',
    )
    container_pids: int = Field(
        4096, ge=0, description="processes that a container on a Docker host may have; 0: no limit"
    )
    image_registries: str = Field(
        "", description="registries or beginnings of names that images may come from; comma-separated; empty: all"
    )
    local_images: LocalImages = Field(
        LocalImages.TRUSTED,
        description="whose images may be taken as a Docker host has them, without asking a registry: trusted "
        "(organisations without a credit limit), all, none",
    )
    worker_public_url: str = Field("", description="how handlers' containers reach the gateway; empty: the public URL")

    pod_ssh_cidrs: str = Field(
        "0.0.0.0/0,::/0", description="who may reach the SSH port of pods on Droplets; comma-separated"
    )

    stack_concurrency: int = Field(16, ge=1, description="stack operations one worker runs at the same time")
    lease_seconds: float = Field(30.0, gt=0, description="a worker silent for this long has lost its operations")
    reconcile_period_seconds: float = Field(5.0, gt=0, description="every deployment is looked at this often")
    health_period_seconds: float = Field(5.0, gt=0, description="how often a ready replica's health is asked")
    sweep_period_seconds: float = Field(60.0, gt=0, description="how often the cloud's inventory is settled")
    sla_period_seconds: float = Field(60.0, gt=0, description="how often deployments are measured against their SLA")
    accounting_period_seconds: float = Field(
        60.0, gt=0, description="how often usage is posted and limits are enforced"
    )
    grace_seconds: float = Field(
        3600.0, ge=0, description="how long running work goes on after a prepaid balance was used up"
    )
    boot_timeout_seconds: float = Field(
        1200.0, gt=0, description="a replica not ready by then makes the deployment fail, or goes where others serve"
    )
    autoscale_period_seconds: float = Field(
        30.0, gt=0, le=60, description="how often every deployment's load is checked; three checks in a row scale it"
    )
    drain_seconds: float = Field(
        300.0, ge=0, description="how long a replica that is to go may finish the requests it has"
    )
    replace_after_seconds: float = Field(
        120.0, gt=0, description="a replica that does not answer for so long gets a successor"
    )
    autoscale_cooldown_seconds: float = Field(
        60.0, ge=0, description="no replica is added for so long after the last change is ready"
    )
    autoscale_down_cooldown_seconds: float = Field(
        300.0, ge=0, description="no replica is removed for so long after the last change is ready"
    )
    autoscale_queue_depth: int = Field(
        4, ge=1, description="waiting requests per replica above which one is added, where a deployment sets no target"
    )
    wake_timeout_seconds: float = Field(
        1200.0, gt=0, description="a request to a sleeping deployment waits so long for a replica at most"
    )
    wake_comment_seconds: float = Field(
        10.0, gt=0, description="how often a stream that waits for a replica gets a comment"
    )
    sign_up: Literal["open", "invited", "closed"] = Field("open", description="who may make an account")
    session_idle_hours: int = Field(168, ge=1, description="a browser session unused for this long is over")
    session_days: int = Field(30, ge=1, description="a browser session lasts this long at most")
    smtp_url: SecretStr = Field(
        SecretStr(""), description="smtp://user:password@host:587 or smtps://…; empty: mails go to the terminal"
    )
    mail_from: str = Field("", description="the address mails come from; needed with smtp_url")
    sms: Literal["console", "twilio"] = Field("console", description="how codes reach phones")
    twilio_account_sid: str = ""
    twilio_auth_token: SecretStr = SecretStr("")
    twilio_from: str = Field("", description="a number (+1…) or a messaging service (MG…)")
    twilio_url: str = Field("https://api.twilio.com", description="or a substitute's URL")
    oidc_issuer: str = Field("", description="an OpenID provider's issuer URL; empty: no log-in elsewhere")
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")
    oidc_scopes: str = Field("openid email profile", description="space-separated; openid and email are needed")
    job_result_hours: int = Field(48, ge=24, description="what came out of a job is kept so long after its end")
    waiting_jobs: int = Field(100_000, ge=0, description="jobs an organisation may have waiting; 0: no limit")
    waiting_bytes: int = Field(
        10 * 10**9, ge=0, description="bytes of inputs an organisation's waiting jobs may have; 0: no limit"
    )
    job_log_days: int = Field(90, ge=2, description="that a job was done, by whom and for how much, is kept so long")
    webhook_networks: str = Field(
        "", description="networks that are not public and get webhooks all the same; comma-separated, 10.0.0.0/8"
    )
    url: str = Field("", description="the installation that client commands talk to; empty: this one's public URL")
    api_key: str = Field("", description="the key that client commands present")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _accounts_fit(self) -> Settings:
        """Find out at once what accounts could not work with, not when the first mail is to be sent."""
        try:
            needs_sender = self.smtp_server is not None
            _ = self.oidc_client, self.webhook_rule, self.storage_s3
        except InvalidSpec as err:
            raise ValueError(err.message) from err
        if needs_sender and "@" not in self.mail_from:
            raise ValueError("STACKYARD_MAIL_FROM: mail needs the address it comes from, as `Yard <yard@example.com>`")
        twilio = ("twilio_account_sid", "twilio_auth_token", "twilio_from")
        if self.sms == "twilio" and (missing := [f"STACKYARD_{n.upper()}" for n in twilio if not getattr(self, n)]):
            raise ValueError(f"STACKYARD_SMS=twilio needs {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _hosts_fit(self) -> Settings:
        try:
            _ = self.hosts
        except InvalidSpec as err:
            raise ValueError(f"STACKYARD_DOCKER_HOSTS: {err.message}") from err
        try:
            _ = self.allowed_registries
        except InvalidSpec as err:
            raise ValueError(f"STACKYARD_IMAGE_REGISTRIES: {err.message}") from err
        return self

    @property
    def smtp_server(self) -> SmtpServer | None:
        """Where mails go; None: to the terminal."""
        url = self.smtp_url.get_secret_value()
        return SmtpServer.of_url(url) if url else None

    @property
    def oidc_client(self) -> OidcClient | None:
        """How the OpenID provider knows this installation; None: there is none."""
        if not self.oidc_issuer:
            return None
        return OidcClient(
            self.oidc_issuer, self.oidc_client_id, self.oidc_client_secret.get_secret_value(),
            self.resolved_public_url + CALLBACK, self.oidc_scopes,
        )  # fmt: skip

    @property
    def webhook_rule(self) -> AddressRule:
        """Where webhooks may go."""
        return AddressRule.of(self.webhook_networks)

    @property
    def hosts(self) -> tuple[DockerHost, ...]:
        """The Docker hosts of `docker_hosts`."""
        return parse_hosts(self.docker_hosts)

    @property
    def allowed_registries(self) -> tuple[str, ...]:
        """What `image_registries` allows; empty: everything."""
        return parse_allowed(self.image_registries)

    @property
    def resolved_worker_public_url(self) -> str:
        return self.worker_public_url.rstrip("/") or self.resolved_public_url

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.resolve()}/stackyard.db"

    @property
    def resolved_backend_url(self) -> str:
        return self.backend_url or f"file://{self.data_dir.resolve()}/state"

    @property
    def resolved_public_url(self) -> str:
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"

    @property
    def storage_s3(self) -> S3Place | None:
        """The S3 server that keeps stored objects; None: the disk does."""
        if self.storage_backend == "disk":
            return None
        return S3Place(
            self.storage_s3_endpoint or f"https://s3.{self.storage_s3_region}.amazonaws.com", self.storage_s3_region,
            self.storage_s3_access_key, self.storage_s3_secret_key.get_secret_value(), self.storage_s3_bucket_prefix,
        )  # fmt: skip

    @property
    def resolved_storage_dir(self) -> Path:
        """The folder of the embedded object storage."""
        return Path(self.storage_dir).resolve() if self.storage_dir else self.data_dir.resolve() / "storage"

    @property
    def resolved_mounts_cache(self) -> Path:
        """Where objects of an S3 server are kept that Docker hosts are sent."""
        return self.data_dir.resolve() / "mounts-cache"

    @property
    def api_socket(self) -> Path:
        """Where the API listens for the gateway."""
        return self.data_dir.resolve() / "api.sock"


def load(**given: Any) -> Settings:
    """The settings, those in `given` taken before the environment's (None: not given).

    Raises:
        InvalidSpec: a value cannot be; the message names its variable.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as err:
        # the cause is left out where it is shown: it would quote the values, secrets among them
        raise InvalidSpec("settings are wrong: " + "; ".join(map(_reason, err.errors()))) from None


def _reason(error: ErrorDetails) -> str:
    """One wrong value, by its variable; what several together make wrong names them itself."""
    if not error["loc"]:
        return error["msg"].removeprefix("Value error, ")
    return f"STACKYARD_{'.'.join(map(str, error['loc'])).upper()}: {error['msg']}"
