"""The table of verbs: each with its operands, flags and what performs it, other names, and what is refused.

Knows no grammar and no meaning. Source: pulumi `pkg/cmd/pulumi`, `pulumi VERB --help` of 3.260.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.deploy.command import about, configuration, deployments, importing, operations, stacks, state
from engine.deploy.command.arguments import Flags, flags
from engine.deploy.command.session import Session

Words = tuple[str, ...]


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        summary: what it does, as its help says.
        operands: what follows the verb, as its help writes it.
    """

    summary: str
    flags: Flags
    perform: Callable[[Session], None]
    operands: str = ""


_CLOUD = "it belongs to Pulumi Cloud's service"
_DOWNLOADS = "it downloads from registries"
_ENVIRONMENTS = "it needs environments (Pulumi ESC)"
_REFUSED_OF_UPDATES = {
    "attach-debugger": "programs run without a debugger",
    "override-env": _ENVIRONMENTS,
    "secrets-provider": "it is for new stacks of a template; an existing stack keeps its own",
    "remote": _CLOUD,
    "ignore-protect": "unprotect what is to go: `pulumi state unprotect URN`",
}
_SHOWN = "suppress-outputs suppress-progress"
_RUN = "stack/s client exec-kind event-log parallel/p message/m config-file provider-source output"
_UNFELT = (
    # Nothing is pre-installed, asked for, linked to, or validated against a schema here; debugging goes nowhere.
    "suppress-permalink debug/d exec-agent copilot neo neo-task-on-failure skip-plugin-pre-install "
    "skip-config-validation"
)


def _operation(switches: str = "", values: str = "", ignored: str = "", **refused: str) -> Flags:
    """The flags of all four updates, and some more."""
    return flags(
        f"diff json/j config-path expect-no-changes {_SHOWN} suppress-reads show-sames show-reads "
        "show-replacement-steps show-config show-secrets show-full-output urns target-dependents exclude-dependents "
        f"run-program {switches}",
        f"{_RUN} config/c target/t {values}",
        f"{_UNFELT} {ignored}",
        {**_REFUSED_OF_UPDATES, **{name.replace("_", "-"): why for name, why in refused.items()}},
    )


_STACK = flags(values="stack/s")
_POLICY = "policy-pack policy-pack-config"
_ASKED = "yes/y skip-preview/f"
_CONFIG = "stack/s config-file"

VERBS: Mapping[Words, Verb] = {
    ("preview",): Verb(
        "Show what `up` would change",
        _operation(
            "refresh/r yes skip-preview show-policy-remediations",
            f"exclude/x replace target-replace save-plan {_POLICY}",
            import_file="what is to be created is not written to a file",
        ),
        operations.preview,
    ),
    ("up",): Verb(
        "Create or update the resources of a stack",
        _operation(
            f"{_ASKED} refresh/r continue-on-error strict show-policy-remediations",
            f"exclude replace target-replace plan {_POLICY}",
        ),
        operations.up,
    ),
    ("refresh",): Verb(
        "Take what is in the cloud into the stack",
        _operation(
            f"{_ASKED} refresh clear-pending-creates preview-only",
            "exclude/x import-pending-creates",
            "skip-pending-creates",
        ),
        operations.refresh,
    ),
    ("destroy",): Verb(
        "Delete all resources of a stack",
        _operation(f"{_ASKED} refresh/r continue-on-error preview-only remove exclude-protected", "exclude/x"),
        operations.destroy,
    ),
    ("import",): Verb(
        "Take existing resources into a stack",
        flags(
            f"yes/y skip-preview preview-only diff json/j {_SHOWN} protect generate-code urns show-secrets "
            "show-full-output",
            f"{_RUN} file/f parent provider properties out/o",
            _UNFELT,
            {
                "from": "nothing is converted from other tools: list the resources in a file (--file)",
                "generate-resources": "it goes with --from",
            },
        ),
        importing.import_,
        "[TYPE NAME ID]",
    ),
    ("cancel",): Verb(
        "Stop a stack's running update, or free a stack from it",
        flags("yes/y", "stack/s"),
        deployments.cancel,
        "[STACK]",
    ),
    ("stack",): Verb(
        "Show a stack: its resources and outputs",
        flags("show-urns/u show-ids/i show-secrets show-name json", "stack/s output"),
        deployments.show,
    ),
    ("stack", "select"): Verb(
        "Choose the current stack", flags("create/c", "stack/s secrets-provider"), stacks.select, "[STACK]"
    ),
    ("stack", "unselect"): Verb("Choose no stack", flags(ignored="stack/s"), stacks.unselect),
    ("stack", "init"): Verb(
        "Make an empty stack",
        flags(
            "no-select",
            "stack/s secrets-provider copy-config-from",
            "yes/y",
            {"teams": _CLOUD, "remote-config": _CLOUD},
        ),
        stacks.init,
        "[STACK]",
    ),
    ("stack", "ls"): Verb(
        "List stacks",
        flags("json all/a", "project/p tag/t output", "stack/s", {"organization": _CLOUD}),
        stacks.ls,
    ),
    ("stack", "rm"): Verb(
        "Remove a stack that has no resources",
        flags("yes/y force/f preserve-config remove-backups", "stack/s"),
        stacks.rm,
        "[STACK]",
    ),
    ("stack", "rename"): Verb("Give a stack another name", _STACK, state.rename_stack_, "NAME"),
    ("stack", "output"): Verb(
        "Show a stack's outputs",
        flags("json/j show-secrets shell", "stack/s output"),
        deployments.output,
        "[NAME]",
    ),
    ("stack", "history"): Verb(
        "List a stack's updates",
        flags("json/j show-secrets full-dates", "stack/s page page-size output"),
        deployments.history,
    ),
    ("stack", "export"): Verb(
        "Print a stack's deployment, or one of before",
        flags("show-secrets", "stack/s file version"),
        deployments.export,
    ),
    ("stack", "import"): Verb("Replace a stack's deployment", flags("force/f", "stack/s file"), deployments.import_),
    ("stack", "graph"): Verb(
        "Write a stack's resources as a DOT graph",
        flags(
            "ignore-parent-edges ignore-dependency-edges short-node-name",
            "stack/s dependency-edge-color parent-edge-color dot-fragment",
        ),
        state.graph,
        "FILE",
    ),
    ("stack", "change-secrets-provider"): Verb(
        "Encrypt all secrets anew under another passphrase", _STACK, state.change_secrets_provider, "passphrase"
    ),
    ("stack", "tag", "ls"): Verb("List a stack's tags", flags("json", "stack/s output"), stacks.tag_ls),
    ("stack", "tag", "get"): Verb("Print one tag", _STACK, stacks.tag_get, "NAME"),
    ("stack", "tag", "set"): Verb("Set a tag", _STACK, stacks.tag_set, "NAME VALUE"),
    ("stack", "tag", "rm"): Verb("Remove a tag", _STACK, stacks.tag_rm, "NAME"),
    ("state", "delete"): Verb(
        "Forget resources; what is in the cloud stays",
        flags("force target-dependents yes/y all", "stack/s"),
        state.delete,
        "[URN…]",
    ),
    ("state", "protect"): Verb(
        "Protect resources from deletion", flags("all yes/y", "stack/s"), state.protect, "[URN…]"
    ),
    ("state", "unprotect"): Verb(
        "Protect resources no longer", flags("all yes/y", "stack/s"), state.unprotect, "[URN…]"
    ),
    ("state", "taint"): Verb(
        "Have resources replaced by the next update", flags("yes/y", "stack/s"), state.taint, "URN…"
    ),
    ("state", "untaint"): Verb(
        "Have resources replaced no longer", flags("all yes/y", "stack/s"), state.untaint, "[URN…]"
    ),
    ("state", "rename"): Verb("Give a resource another name", flags("yes/y", "stack/s"), state.rename, "URN NAME"),
    ("config",): Verb(
        "List a stack's configuration", flags("json/j show-secrets", _CONFIG, "open"), configuration.show
    ),
    ("config", "get"): Verb(
        "Print one value",
        flags("json/j path show-secrets", _CONFIG, "open"),
        configuration.get,
        "KEY",
    ),
    ("config", "set"): Verb(
        "Set a value; without one, that of standard input",
        flags("secret plaintext path raw", f"{_CONFIG} type"),
        configuration.set_,
        "KEY [VALUE]",
    ),
    ("config", "set-all"): Verb(
        "Set many values",
        flags("path", f"{_CONFIG} plaintext secret json", "yes"),
        configuration.set_all,
    ),
    ("config", "cp"): Verb(
        "Copy configuration to another stack", flags("path", f"{_CONFIG} dest/d"), configuration.cp, "[KEY]"
    ),
    ("config", "rm"): Verb("Remove a value", flags("path", _CONFIG, "yes"), configuration.rm, "KEY"),
    ("config", "rm-all"): Verb("Remove many values", flags("path", _CONFIG, "yes"), configuration.rm_all, "KEY…"),
    ("config", "refresh"): Verb(
        "Take the configuration of the last update", flags("force/f", _CONFIG, "yes"), configuration.refresh
    ),
    ("version",): Verb("Print the version of the official engine that this one follows", flags(), about.version),
    ("whoami",): Verb("Print the current user", flags("json verbose/v", "output"), about.whoami),
    ("about",): Verb(
        "Describe engine, machine, project, stack and backend",
        flags("json transitive/t", "stack/s output"),
        about.about,
    ),
    ("plugin", "ls"): Verb("List provider plugins", flags("json project/p", "output"), about.plugin_ls),
}

ALIASES: Mapping[Words, Words] = {
    ("pre",): ("preview",),
    ("update",): ("up",),
    ("down",): ("destroy",),
    ("dn",): ("destroy",),
    ("stack", "new"): ("stack", "init"),
    ("stack", "create"): ("stack", "init"),
    ("stack", "setup"): ("stack", "init"),
    ("stack", "list"): ("stack", "ls"),
    ("stack", "remove"): ("stack", "rm"),
    ("stack", "delete"): ("stack", "rm"),
    ("stack", "hist"): ("stack", "history"),
    ("stack", "tag", "list"): ("stack", "tag", "ls"),
    ("stack", "tag", "remove"): ("stack", "tag", "rm"),
    ("stack", "tag", "delete"): ("stack", "tag", "rm"),
    ("state", "remove"): ("state", "delete"),
    ("state", "rm"): ("state", "delete"),
    ("config", "copy"): ("config", "cp"),
    ("config", "remove"): ("config", "rm"),
    ("config", "delete"): ("config", "rm"),
    ("config", "remove-all"): ("config", "rm-all"),
    ("config", "delete-all"): ("config", "rm-all"),
    ("plugin", "list"): ("plugin", "ls"),
}

GROUPS = frozenset({("stack", "tag"), ("state",), ("plugin",)})
"""Words that are no verb by themselves: their help is shown."""

REFUSED: Mapping[Words, str] = {
    ("ai",): _CLOUD,
    ("api",): _CLOUD,
    ("config", "env"): _ENVIRONMENTS,
    ("console",): _CLOUD,
    ("convert",): "it writes programs",
    ("deployment",): _CLOUD,
    ("do",): "it works on the cloud without a stack",
    ("env",): _ENVIRONMENTS,
    ("esc",): _ENVIRONMENTS,
    ("gen-completion",): "it writes completion scripts for another program",
    ("insights",): _CLOUD,
    ("install",): f"{_DOWNLOADS}; install a program's packages with pip or uv",
    ("login",): "there is nothing to log in to: name the backend in PULUMI_BACKEND_URL or in Pulumi.yaml",
    ("logout",): "there is nothing to log out of: name the backend in PULUMI_BACKEND_URL or in Pulumi.yaml",
    ("logs",): "logs of functions in clouds are read with those clouds' own tools",
    ("neo",): _CLOUD,
    ("new",): f"{_DOWNLOADS} (templates); write Pulumi.yaml and run `pulumi stack init`",
    ("org",): _CLOUD,
    ("package",): _DOWNLOADS,
    ("plugin", "install"): f"{_DOWNLOADS}; put pulumi-resource-* on PATH",
    ("plugin", "rm"): "plugins are put on PATH, and removed, by hand",
    ("policy",): f"{_CLOUD}; packs run with `pulumi up --policy-pack FOLDER`",
    ("project",): _CLOUD,
    ("schema",): "it checks the schemas of providers that are being written",
    ("stack", "drift"): f"{_CLOUD}; `pulumi refresh` shows what changed",
    ("stack", "get"): f"{_CLOUD}; `pulumi stack` shows a stack",
    ("stack", "migrate"): _CLOUD,
    ("stack", "schedule"): _CLOUD,
    ("stack", "webhook"): _CLOUD,
    ("state", "edit"): "edit what `pulumi stack export` prints and `pulumi stack import` it",
    ("state", "get"): "`pulumi stack export` prints every resource",
    ("state", "move"): "resources are not moved between stacks",
    ("state", "repair"): "an unsound state is not repaired by guessing: restore a backup with `pulumi stack import`",
    ("state", "upgrade"): "old backends are upgraded by the CLI that wrote them",
    ("template",): _DOWNLOADS,
    ("watch",): "run `pulumi up` after each change",
}
