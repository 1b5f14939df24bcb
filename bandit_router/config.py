"""The configuration: one frozen tree, read from TOML and the environment, checked at the start.

A file looks like ``configs/quickstart.toml``. A variable ``BANDIT_ROUTER_SECTION__KEY`` overrides
a key, e.g. ``BANDIT_ROUTER_POLICY__QUALITY_VALUE_USD=0.02``; secrets belong there. An unknown key,
a value out of its range or a bad combination is a :class:`ConfigError` that names the file or the
variable, the key and the mend. Relative paths in a file start at the file's folder.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from bandit_router.adapters.embedding import DEFAULT_MODEL
from bandit_router.errors import ConfigError
from bandit_router.joiner.rules import JoinRules
from bandit_router.models import Catalog
from bandit_router.rollout.incumbent import Incumbent, IncumbentRule

PREFIX = "BANDIT_ROUTER_"
PATH_VARIABLE = PREFIX + "CONFIG"
"""Names the configuration file when a command is given none."""
DEFAULT_FILE = Path("bandit-router.toml")
BUILT_IN_NAME = "the built-in quickstart.toml"

Positive = Annotated[float, Field(gt=0.0)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]


def _join_rules(table: dict[str, Any]) -> dict[str, Any]:
    """Check the table of [joiner] against :class:`JoinRules`, whose fields are its keys."""
    _refuse_unknown(table, JoinRules.__struct_fields__)
    try:
        msgspec.convert(table, JoinRules, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    return table


def _models(tables: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """Check the tables [[models]], whose keys are the fields of ``ModelSpec``."""
    if not tables:
        raise ValueError("no model: add [[models]] tables")
    Catalog.from_builtins(tables)  # CatalogError is a ValueError too
    return tables


def _incumbent_rules(tables: tuple[dict[str, str], ...]) -> tuple[dict[str, str], ...]:
    """Check the tables [[rollout.rules]], whose keys are the fields of ``IncumbentRule``."""
    for table in tables:
        _refuse_unknown(table, IncumbentRule.__struct_fields__)
        try:
            msgspec.convert(table, IncumbentRule)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error
    return tables


def _refuse_unknown(table: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            raise ValueError(f"unknown key {key!r}{_suggestion(key, known)}")


def _suggestion(key: str, known: Iterable[str]) -> str:
    """The mend for an unknown key: the nearest known one, else all of them."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"


class Section(BaseModel):
    """What every part of the tree has: it is frozen and refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AppSection(Section):
    """Who decides.

    Attributes:
        name: owner of the policy; one app has one learner.
        salt: with the event id it seeds each draw. Another salt, other draws.
        log_prompts: log the text itself beside its sha256.
        safe_model: serves when the policy has no usable answer; None takes the first eligible.
    """

    name: Text = "default"
    salt: Text = "bandit-router"
    log_prompts: bool = False
    safe_model: str | None = None


class StoreSection(Section):
    """The embedded event log.

    Attributes:
        path: the SQLite file; made when it is missing.
        synchronous: ``normal`` survives a killed process, ``full`` also a power cut.
    """

    path: Path = Path("bandit-router.db")
    synchronous: Literal["normal", "full"] = "normal"


class FeaturesSection(Section):
    """How a query becomes numbers.

    Attributes:
        embedder: the packaged encoder, or the name of another fastembed model.
        components: principal components of the embedding that are used.
        threads: cores of the encoder; None for all.
        cache_entries: embeddings of repeated prompts that are kept in memory; 0 for none.
    """

    embedder: Text = DEFAULT_MODEL
    components: int = Field(default=16, ge=1, le=384)
    threads: int | None = Field(default=None, ge=1)
    cache_entries: int = Field(default=4096, ge=0)


class PolicySection(Section):
    """What chooses.

    Attributes:
        name: a policy's name, as in ``bandit-router replay --policy``.
        seed: of the policy's own randomness.
        quality_value_usd: what one fully good answer is worth to you, USD: the one dial.
        budget_usd_per_query: mean cost to hold; None leaves the quality value alone.
        options: further arguments of that policy.
    """

    name: Text = "bandit"
    seed: int = Field(default=0, ge=0)
    quality_value_usd: Positive = 0.01
    budget_usd_per_query: Positive | None = None
    options: dict[str, Any] = {}


class SnapshotSection(Section):
    """When the learned state is stored.

    Attributes:
        every: learned interactions between two snapshots.
        keep: snapshots kept; older ones are removed.
        hmac_key: signs snapshots; None leaves them unsigned. Give it in the environment.
    """

    every: int = Field(default=500, ge=1)
    keep: int = Field(default=5, ge=1)
    hmac_key: SecretStr | None = Field(default=None, min_length=16)


class EventsSection(Section):
    """How events travel between routers and the learner.

    Attributes:
        transport: ``sqlite``: one process decides and learns on the store. ``kafka``: routers
            send events and follow snapshots, ``bandit-router learn`` learns.
        bootstrap_servers: ``host:port`` of some Kafka brokers.
        prefix: of the topics' names; one prefix is one installation.
        partitions: of each topic. All routers and learners must say the same; it cannot be
            changed while anything is in the topics.
        replication: copies of each topic, for ``bandit-router events init``.
        retention_hours: how long Kafka keeps events, for ``bandit-router events init``.
        shards: 1, or into how many parts (``NAME/0``, ``NAME/1``...) a large app is split, each
            with a policy of its own; a unit always meets the same one.
        group: consumer group of the learners.
        session_timeout_s: after so many seconds of silence a learner's apps move to another.
        outbox: a router's file for what Kafka has not acknowledged yet, relative to the file's
            folder; each router process needs one of its own.
        outbox_max_events, outbox_max_bytes: beyond these the outbox is full: the safe model serves.
        folder: where a learner keeps the stores and snapshots of its apps, and a router its last
            good snapshot.
        publish_every_s: a learner publishes a snapshot when there is something new after so many
            seconds, or after ``snapshots.every`` interactions.
        batch: most records that a learner takes at once.
        security_protocol: as Kafka calls it.
        ssl_cafile, ssl_certfile, ssl_keyfile, ssl_check_hostname: TLS, as in kafka-python.
        sasl_mechanism, sasl_username, sasl_password: SASL; give the password in the environment.
    """

    transport: Literal["sqlite", "kafka"] = "sqlite"
    bootstrap_servers: Annotated[tuple[Text, ...], Field(min_length=1)] = ("127.0.0.1:9092",)
    prefix: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,150}$")] = "bandit"
    partitions: int = Field(default=8, ge=1, le=10_000)
    replication: int = Field(default=1, ge=1, le=32)
    retention_hours: Positive = 168.0
    shards: int = Field(default=1, ge=1, le=1024)
    group: Text = "bandit-router-learn"
    session_timeout_s: float = Field(default=10.0, ge=1.0, le=1800.0)
    outbox: Path = Path("bandit-router.outbox.db")
    outbox_max_events: int = Field(default=500_000, ge=1)
    outbox_max_bytes: int = Field(default=2_000_000_000, ge=1_000_000)
    folder: Path = Path("bandit-router-streaming")
    publish_every_s: Positive = 2.0
    batch: int = Field(default=1000, ge=1, le=100_000)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_check_hostname: bool = True
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None


class RolloutSection(Section):
    """Who is routed by the bandit. Without a flag file or a provider, everybody is.

    Attributes:
        flags: a flagd-format JSON file, watched for change; `bandit-router rollout set` edits it.
        flag: the name of the flag, a string flag whose values are the variants.
        provider: instead of a file, ``module:factory`` of an OpenFeature provider.
        options: arguments of that factory.
        incumbent: the model that served before; it serves the variants ``static`` and ``shadow``.
        rules: where another model did: tables of ``column``, ``equals``, ``model``; the first that
            fits counts.
    """

    flags: Path | None = None
    flag: Text = "bandit-router"
    provider: Annotated[str, StringConstraints(pattern=r"^[\w.]+:\w+$")] | None = None
    options: dict[str, Any] = {}
    incumbent: str | None = None
    rules: Annotated[tuple[dict[str, str], ...], AfterValidator(_incumbent_rules)] = ()


class GuardrailsSection(Section):
    """When a rollout takes itself back. A rail that is absent is not watched.

    Attributes:
        quality_margin: the bandit's score is below that of static by more than this.
        cost_cap_usd: its cost per query is above this, USD.
        escalation_limit, error_limit: more than this share of its requests escalate, or fail.
        alpha: chance that a rollback without harm ever happens, all rails together.
        cool_down_s: after so many seconds the bandit may be switched on again; None: not before a
            person says ``bandit-router rollout set N --after-rollback``.
    """

    quality_margin: float | None = Field(default=None, ge=0.0, le=1.0)
    cost_cap_usd: Positive | None = None
    escalation_limit: float | None = Field(default=None, ge=0.0, lt=1.0)
    error_limit: float | None = Field(default=None, ge=0.0, lt=1.0)
    alpha: float = Field(default=0.005, gt=0.0, lt=1.0)
    cool_down_s: Positive | None = None


class Settings(BaseSettings):
    """The whole tree. Build it with :func:`load_settings`, which explains what is wrong."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        validate_default=False,
    )

    app: AppSection = AppSection()
    store: StoreSection = StoreSection()
    models: Annotated[tuple[dict[str, Any], ...], AfterValidator(_models)]
    features: FeaturesSection = FeaturesSection()
    policy: PolicySection = PolicySection()
    joiner: Annotated[dict[str, Any], AfterValidator(_join_rules)] = {}
    snapshots: SnapshotSection = SnapshotSection()
    events: EventsSection = EventsSection()
    rollout: RolloutSection = RolloutSection()
    guardrails: GuardrailsSection = GuardrailsSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, then the file, which arrives as keyword arguments."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _models_exist(self) -> Settings:
        safe = self.app.safe_model
        if safe is not None and safe not in self.catalog:
            known = ", ".join(self.catalog.names)
            raise ValueError(f"app.safe_model {safe!r} is not among the models: {known}")
        return self

    @model_validator(mode="after")
    def _rollout_fits(self) -> Settings:
        chosen = self.rollout
        if chosen.flags is not None and chosen.provider is not None:
            raise ValueError("rollout.flags and rollout.provider: give one of them")
        flagged = chosen.flags is not None or chosen.provider is not None
        if flagged != (chosen.incumbent is not None):
            raise ValueError(
                "rollout.incumbent is missing: it serves whom the bandit does not"
                if flagged
                else "rollout.incumbent needs rollout.flags or rollout.provider"
            )
        if chosen.flags is None and self.guardrails != GuardrailsSection():
            raise ValueError("guardrails need rollout.flags: they roll back by that file")
        known = self.catalog.names
        for model in [chosen.incumbent, *(rule["model"] for rule in chosen.rules)]:
            if model is not None and model not in known:
                raise ValueError(
                    f"rollout: the incumbent {model!r} is not among the models: {', '.join(known)}"
                )
        return self

    @property
    def catalog(self) -> Catalog:
        """The tables [[models]] as the router takes them."""
        return Catalog.from_builtins(self.models)

    @property
    def join_rules(self) -> JoinRules:
        """The section [joiner] as the joiner takes it."""
        return msgspec.convert(self.joiner, JoinRules, strict=False)

    @property
    def incumbent(self) -> Incumbent | None:
        """What serves whom the bandit does not; None without a rollout."""
        chosen = self.rollout
        if chosen.incumbent is None:
            return None
        return Incumbent(chosen.incumbent, msgspec.convert(chosen.rules, list[IncumbentRule]))

    @property
    def apps(self) -> tuple[str, ...]:
        """The owners of policies: the app, or its shards."""
        name, shards = self.app.name, self.events.shards
        return (name,) if shards == 1 else tuple(f"{name}/{i}" for i in range(shards))

    @property
    def snapshot_key(self) -> bytes | None:
        """The secret snapshots.hmac_key as bytes, or None."""
        secret = self.snapshots.hmac_key
        return None if secret is None else secret.get_secret_value().encode()

    def with_store(self, path: Path | None) -> Settings:
        """These settings over another store; over the same one with None."""
        if path is None:
            return self
        return self.model_copy(update={"store": self.store.model_copy(update={"path": path})})


def load_settings(path: Path | None = None) -> Settings:
    """The settings of a file, overridden by the environment.

    Args:
        path: the TOML file. None takes the file that ``BANDIT_ROUTER_CONFIG`` names, else
            ``bandit-router.toml`` of the current folder, else the built-in quick start.

    Raises:
        ConfigError: a file cannot be read, or holds something that is wrong.
    """
    file = find_config(path)
    source = BUILT_IN_NAME if file is None else str(file)
    try:
        data = tomllib.loads(_read(file))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not a TOML file: {error}") from error
    _refuse_unknown_variables()
    try:
        return Settings(**_anchored(data, file.parent if file else Path()))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, source))) from error
    except SettingsError as error:
        raise ConfigError(
            f"environment: {error}: {error.__cause__}; tables and lists are written as JSON"
        ) from error


def find_config(path: Path | None = None) -> Path | None:
    """The file that :func:`load_settings` reads for ``path``, or None for the built-in one."""
    if path is None and PATH_VARIABLE in os.environ:
        return Path(os.environ[PATH_VARIABLE])
    return path or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def _read(file: Path | None) -> str:
    if file is None:
        return (resources.files("bandit_router") / "data" / "quickstart.toml").read_text("utf-8")
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not a UTF-8 text: {error}") from error


_PATHS = {
    "rollout": ("flags",),
    "store": ("path",),
    "events": ("outbox", "folder", "ssl_cafile", "ssl_certfile", "ssl_keyfile"),
}


def _anchored(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``data`` with relative paths made to start at ``folder``."""
    for section, keys in _PATHS.items():
        table = data.get(section)
        for key in keys:
            if isinstance(table, dict) and isinstance(table.get(key), str):
                table[key] = str(folder / table[key])
    return data


def _refuse_unknown_variables() -> None:
    """An override that is misspelt must not be ignored in silence."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | {PATH_VARIABLE}
    for variable in os.environ:
        name = variable.upper()
        if name.startswith(PREFIX) and name.partition("__")[0] not in known:
            raise ConfigError(
                f"environment variable {variable}: unknown; overrides are named "
                f"{PREFIX}SECTION__KEY with a SECTION of {', '.join(Settings.model_fields).upper()}"
            )


def _explain(error: ValidationError, source: str) -> Iterator[str]:
    """One line per mistake: the file or the variable, the key, what is wrong, the mend."""
    for detail in error.errors(include_url=False):
        key = ".".join(str(part) for part in detail["loc"])
        variable = PREFIX + "__".join(str(part) for part in detail["loc"]).upper()
        where = f"environment variable {variable}" if variable in os.environ else source
        yield f"{where}: {key + ': ' if key else ''}{_message(detail)}"


def _message(detail: ErrorDetails) -> str:
    """pydantic's message, with a mend where it has none."""
    place = detail["loc"]
    if detail["type"] == "extra_forbidden":
        return f"unknown key{_suggestion(str(place[-1]), _keys_beside(place))}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "missing":
        return "missing; it must be given"
    secret = place[-1] in {"hmac_key", "sasl_password"}
    return detail["msg"] + ("" if secret else f", not {detail['input']!r}")


def _keys_beside(place: tuple[int | str, ...]) -> Mapping[str, Any]:
    """The known keys of the section that ``place`` is in."""
    if len(place) == 1:
        return Settings.model_fields
    section = Settings.model_fields[str(place[0])].annotation
    return section.model_fields
