"""`Pulumi.yaml` and `Pulumi.<stack>.yaml`: finding, reading and changing them with comments and order kept.

Knows the files' grammar, not who asks. Source: pulumi `sdk/go/common/workspace/project.go`, `resource/config/`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from engine.deploy.backend.file import replace_file
from engine.deploy.secrets import PassphraseSecrets

_EXTENSIONS = (".yaml", ".yml", ".json")
_SEGMENT = re.compile(r"""\.?([^.\[\]"]+)|\[(\d+)\]|\.?\["((?:[^"\\]|\\.)*)"\]""")


class ConfigError(Exception):
    """A project or configuration file, or a key, is wrong; the message says where and what to do."""


@dataclass(frozen=True)
class Project:
    """`Pulumi.yaml`.

    Attributes:
        path: the file.
        config_dir: folder of the `Pulumi.<stack>.yaml` files (`stackConfigDir`, else beside `path`).
        backend_url: `backend.url`; "" where the file names none.
        required_version: the range of engine versions it demands; "" for any.
    """

    name: str
    path: Path
    config_dir: Path
    backend_url: str = ""
    required_version: str = ""


@dataclass(frozen=True)
class ConfigEntry:
    """One configuration value in the clear: `text` is what a program is given, JSON for objects."""

    text: str
    secret: bool
    is_object: bool = False


def find_project(start: Path) -> Project:
    """The project of a folder: its own `Pulumi.yaml` or that of the nearest folder above.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    for folder in (start, *start.parents):
        for extension in _EXTENSIONS:
            path = folder / f"Pulumi{extension}"
            if path.is_file():
                return _read_project(path)
    raise ConfigError(f"no Pulumi.yaml project file found (searching upwards from {start}); run inside a project")


def _read_project(path: Path) -> Project:
    data = _parse(path)
    if not isinstance(data.get("name"), str) or not data["name"]:
        raise ConfigError(f"{path}: project is missing a 'name' attribute")
    folder = path.parent / str(data.get("stackConfigDir") or data.get("config") or "")
    if isinstance(data.get("config"), dict):  # the newer form: a schema of configuration, not a folder
        folder = path.parent / str(data.get("stackConfigDir") or "")
    backend = data.get("backend") or {}
    url = str(backend.get("url", "")) if isinstance(backend, dict) else ""
    return Project(data["name"], path, folder, url, str(data.get("requiredPulumiVersion") or ""))


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} is not valid YAML: {err}") from err
    if not isinstance(data or {}, dict):
        raise ConfigError(f"{path} must be a map")
    return dict(data or {})


def config_path(project: Project, stack: str) -> Path:
    """Where a stack's configuration is or would be: an existing file of any extension, else `.yaml`."""
    for extension in _EXTENSIONS:
        path = project.config_dir / f"Pulumi.{stack}{extension}"
        if path.is_file():
            return path
    return project.config_dir / f"Pulumi.{stack}.yaml"


def parse_key(text: str, project: str) -> str:
    """A full key `namespace:name`; a bare name belongs to the project's namespace.

    Raises:
        ConfigError: more parts than that.
    """
    parts = text.split(":")
    if len(parts) == 3 and parts[1] == "config":
        parts = [parts[0], parts[2]]
    if len(parts) == 1:
        parts = [project, parts[0]]
    if len(parts) != 2 or not all(parts):
        raise ConfigError(
            f"could not parse {text!r} as a configuration key (configuration keys should be of the form "
            "`<namespace>:<name>`)"
        )
    return ":".join(parts)


def parse_path(text: str, project: str) -> tuple[str, list[str | int]]:
    """A key with a path into its value: `ns:outer.inner[0]["a.b"]` → (`ns:outer`, [`inner`, 0, `a.b`])."""
    namespace, colon, rest = text.rpartition(":")
    segments = list(_segments(rest, text))
    if not segments or not isinstance(segments[0], str):
        raise ConfigError(f"{text!r}: the first part of a configuration path must be a name")
    return parse_key(f"{namespace}{colon}{segments[0]}", project), segments[1:]


def _segments(path: str, whole: str) -> Iterator[str | int]:
    position = 0
    while position < len(path):
        match = _SEGMENT.match(path, position)
        if match is None:
            raise ConfigError(f"{whole!r} is not a configuration path (such as names[0] or outer.inner)")
        name, index, quoted = match.groups()
        yield int(index) if index is not None else name if name is not None else json.loads(f'"{quoted}"')
        position = match.end()


class StackConfig:
    """One `Pulumi.<stack>.yaml`: read at once, written back only by `save`."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._adopt(text)

    def _adopt(self, text: str) -> None:
        self._text = text
        self._edited: Any = None
        self._typed = self._read(yaml.CSafeLoader)
        # Scalars keep their text (`0x10`, `1e3`, `yes`), as the official engine reads them.
        self._texts = self._read(yaml.CBaseLoader)

    @classmethod
    def load(cls, path: Path) -> StackConfig:
        """Read the file; an absent one is an empty configuration.

        Raises:
            ConfigError: it is not YAML or not a map.
        """
        try:
            return cls(path, path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(path, "")

    def _read(self, loader: Any) -> dict[str, Any]:
        try:
            data = yaml.load(self._text, Loader=loader) or {}
        except yaml.YAMLError as err:
            raise ConfigError(f"{self.path} is not valid YAML: {err}") from err
        if not isinstance(data, dict) or not isinstance(data.get("config") or {}, dict):
            raise ConfigError(f"{self.path} must be a map whose `config` is a map")
        return data

    @property
    def salt(self) -> str:
        """The passphrase salt, "" where none is set yet."""
        return str(self._typed.get("encryptionsalt") or "")

    @property
    def secrets_provider(self) -> str:
        """The secrets provider named by the file, "" or `passphrase` for ours."""
        return str(self._typed.get("secretsprovider") or "")

    @property
    def environments(self) -> Any:
        """The `environment` member (Pulumi ESC), None where there is none."""
        return self._typed.get("environment")

    def raw(self, project: str) -> dict[str, Any]:
        """Full key → stored form: text, `{"secure": ciphertext}`, or an object with such members inside."""
        typed, texts = self._typed.get("config") or {}, self._texts.get("config") or {}
        pairs = zip(typed.items(), texts.values(), strict=True)
        return {parse_key(str(k), project): v if isinstance(v, dict | list) else text for (k, v), text in pairs}

    def entries(self, project: str, secrets: Callable[[], PassphraseSecrets] | None) -> dict[str, ConfigEntry]:
        """Every value in the clear, by full key, sorted.

        Args:
            secrets: opens the manager, asked only where something is secret; None leaves secrets as "[secret]".
        """
        raw = self.raw(project)
        return {key: open_value(raw[key], secrets) for key in sorted(raw)}

    def _document(self) -> Any:
        if self._edited is None:
            try:
                self._edited = _round_trip().load(self._text) or {}
            except YAMLError as err:
                raise ConfigError(f"{self.path} is not valid YAML: {err}") from err
        return self._edited

    def set_salt(self, salt: str) -> None:
        """Put or replace `encryptionsalt`, as the first member of a new file."""
        document = self._document()
        if document and "encryptionsalt" not in document and hasattr(document, "insert"):
            document.insert(0, "encryptionsalt", salt)
        else:
            document["encryptionsalt"] = salt

    def replace_all(self, values: Mapping[str, Any]) -> None:
        """Put exactly these stored forms, by full key."""
        self._document()["config"] = dict(values)

    def set(self, key: str, path: list[str | int], value: Any, project: str) -> None:
        """Put a stored form under a full key, or at a path inside its value."""
        config = self._document().setdefault("config", {})
        name = _existing_name(config, key, project)
        if not path:
            config[name] = value
            return
        if not isinstance(config.get(name), dict | list) or _is_secure(config[name]):
            config[name] = [] if isinstance(path[0], int) else {}
        _set_at(config[name], path, value, key)

    def remove(self, key: str, path: list[str | int], project: str) -> None:
        """Take a key, or what is at a path inside it, away; absent is fine."""
        config = self._document().get("config") or {}
        name = _existing_name(config, key, project)
        if name not in config:
            return
        if not path:
            del config[name]
            return
        holder = config[name]
        for segment in path[:-1]:
            holder = _child(holder, segment)
        if _child(holder, path[-1]) is not None:
            del holder[path[-1]]

    def reseal(self, project: str, seal: Callable[[str], str]) -> None:
        """Replace every ciphertext, also those inside objects, by what `seal` makes of it."""
        for key, value in self.raw(project).items():
            if _holds_secret(value):
                self.set(key, [], resealed(value, seal), project)

    def save(self) -> None:
        """Write the file if something was changed; whole or not at all."""
        if self._edited is None:
            return
        text = self.render()
        if text == self._text:
            return
        replace_file(self.path, text.encode())
        self._adopt(text)

    def write(self) -> None:
        """Write the file whether or not something was changed: it may have been read from elsewhere."""
        self._document()
        text = self.render()
        replace_file(self.path, text.encode())
        self._adopt(text)

    def render(self) -> str:
        """The file's new text."""
        if self.path.suffix == ".json":
            return json.dumps(self._edited, indent=4) + "\n"
        out = io.StringIO()
        _round_trip().dump(self._edited, out)
        return out.getvalue()


def _round_trip() -> YAML:
    engine = YAML()
    engine.width = 1 << 20  # long ciphertexts stay on one line
    engine.preserve_quotes = True
    return engine


def _is_secure(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"secure"} and isinstance(value["secure"], str)


def open_value(value: Any, secrets: Callable[[], PassphraseSecrets] | None) -> ConfigEntry:
    """A stored form in the clear; without `secrets`, secret values read "[secret]"."""

    def opened(inner: Any) -> Any:
        if _is_secure(inner):
            return secrets().decrypt(inner["secure"]) if secrets else "[secret]"
        if isinstance(inner, Mapping):
            return {str(k): opened(v) for k, v in inner.items()}
        return [opened(v) for v in inner] if isinstance(inner, list) else inner

    if not isinstance(value, Mapping | list):
        return ConfigEntry("" if value is None else str(value), secret=False)
    if _is_secure(value):
        return ConfigEntry(str(opened(value)), secret=True)
    text = json.dumps(opened(value), separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return ConfigEntry(text, secret=_holds_secret(value), is_object=True)


def resealed(value: Any, seal: Callable[[str], str]) -> Any:
    """A stored form with every ciphertext in it replaced."""
    if _is_secure(value):
        return {"secure": seal(value["secure"])}
    if isinstance(value, Mapping):
        return {k: resealed(v, seal) for k, v in value.items()}
    return [resealed(v, seal) for v in value] if isinstance(value, list) else value


def _holds_secret(value: Any) -> bool:
    if _is_secure(value):
        return True
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_holds_secret(v) for v in children)


def _existing_name(config: Mapping[str, Any], key: str, project: str) -> str:
    """The key as the file spells it already (`name` for `project:name`), else the full key."""
    return next((str(k) for k in config if parse_key(str(k), project) == key), key)


def _child(holder: Any, segment: str | int) -> Any:
    if isinstance(holder, list) and isinstance(segment, int) and segment < len(holder):
        return holder[segment]
    return holder.get(segment) if isinstance(holder, Mapping) else None


def _set_at(holder: Any, path: list[str | int], value: Any, key: str) -> None:
    for segment, following in zip(path, [*path[1:], None], strict=True):
        last = following is None
        current = _child(holder, segment)
        if not last and not isinstance(current, Mapping | list):
            current = [] if isinstance(following, int) else {}
        new = value if last else current
        if isinstance(holder, list):
            if not isinstance(segment, int) or segment > len(holder):
                raise ConfigError(f"{key}: {segment!r} is not an index of a list of {len(holder)}")
            if segment == len(holder):
                holder.append(new)
            else:
                holder[segment] = new
        elif isinstance(segment, str):
            holder[segment] = new
        else:
            raise ConfigError(f"{key}: {segment} is an index, but the value there is a map")
        holder = new


def path_scalar(text: str) -> Any:
    """The typed value of a `--path` text: true, false and integers are no strings there (config/map.go)."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"0|-?[1-9]\d{0,17}", text) else text
