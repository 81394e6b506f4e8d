from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from sparkscore.conf import Resolved, Settings, load_settings
from sparkscore.conf.settings import SparkSettings, TrackingSettings, default_cache_folder, masked
from sparkscore.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "base.yaml").write_text("tracking:\n  uri: sqlite:///base.db\n  experiment: base\n")
    (folder / "local.yaml").write_text("tracking:\n  experiment: local\n")
    return folder


def load(
    folder: Path | None = None,
    target: str | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
) -> Resolved[Settings]:
    return load_settings(folder, target, flags or {}, env or {})


def refusal(
    folder: Path | None = None,
    target: str | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, target, flags=flags, env=env)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def test_without_any_layer_every_value_is_a_default() -> None:
    resolved = load()
    assert resolved.values == Settings()
    assert set(resolved.origins.values()) == {"default"}


def test_a_later_layer_wins_and_names_itself(folder: Path) -> None:
    key = "tracking.experiment"
    env = {"MLFLOW_EXPERIMENT_NAME": "mlflow"}
    ours = env | {"SPARKSCORE__TRACKING__EXPERIMENT": "ours"}
    stack = [
        (load(folder), "local", "local.yaml:2"),
        (load(folder, env=env), "mlflow", "env MLFLOW_EXPERIMENT_NAME"),
        (load(folder, env=ours), "ours", "env SPARKSCORE__TRACKING__EXPERIMENT"),
        (load(folder, env=ours, flags={key: "flag"}), "flag", "flag --set"),
    ]
    found = [(r.values.tracking.experiment, r.origins[key]) for r, _, _ in stack]
    assert found == [(value, origin) for _, value, origin in stack]


def test_a_layer_changes_only_the_keys_it_names(folder: Path) -> None:
    resolved = load(folder, flags={"tracking.experiment": "mine"})
    assert resolved.values.tracking.uri == "sqlite:///base.db"
    assert resolved.origins["tracking.uri"] == "base.yaml:2"


def test_spark_properties_are_merged_key_by_key_and_passed_on_verbatim(folder: Path) -> None:
    (folder / "base.yaml").write_text(
        "spark:\n  conf:\n    spark.a.cores: 2\n    spark.speculation: false\n"
    )
    (folder / "local.yaml").write_text("spark:\n  conf: {spark.a.cores: '4'}\n")
    resolved = load(
        folder,
        env={"SPARKSCORE__SPARK__CONF__spark.b.camelCase": "x"},
        flags={"spark.conf.spark.sql.shuffle.partitions": "8"},
    )
    assert resolved.values.spark.conf == {
        "spark.a.cores": "4",
        "spark.speculation": "false",
        "spark.b.camelCase": "x",
        "spark.sql.shuffle.partitions": "8",
    }
    assert resolved.origins["spark.conf.spark.a.cores"] == "local.yaml:2"
    assert resolved.origins["spark.conf.spark.b.camelCase"].startswith("env ")


def test_the_environment_names_folder_and_target(folder: Path) -> None:
    (folder / "night.yaml").write_text("scoring: {engine: arrow}\n")
    env = {"SPARKSCORE_CONF": str(folder), "SPARKSCORE_CONF_TARGET": "night"}
    resolved = load(env=env)
    assert resolved.values.scoring.engine == "arrow"
    assert resolved.values.tracking.experiment == "base"


def test_the_conf_folder_of_the_working_folder_is_taken_unasked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert load().values.tracking.experiment == "local"


def test_text_becomes_numbers_truth_values_lists_and_nothing() -> None:
    values = load(
        env={
            "SPARKSCORE__SCORING__MAX_ROWS_PER_BATCH": "500",
            "SPARKSCORE__TRUST__TYPES": "a.B, c.*",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",
            "MLFLOW_TRACKING_URI": "",
        },
        flags={"registry.uri": "", "spark.jars": "~/jars"},
    ).values
    assert values.scoring.max_rows_per_batch == 500
    assert values.trust.types == ("a.B", "c.*")
    assert values.trust.allow_code
    assert values.tracking.uri == "sqlite:///sparkscore.db"
    assert values.registry.uri is None
    assert values.spark.jars == Path.home() / "jars"


def test_variables_of_mlflow_say_how_servers_are_asked() -> None:
    resolved = load(
        env={
            "MLFLOW_TRACKING_USERNAME": "ann",
            "MLFLOW_TRACKING_PASSWORD": "p4ss",
            "MLFLOW_TRACKING_TOKEN": "t0ken",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "7",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_TRACKING_INSECURE_TLS": "true",
            "MLFLOW_EXPERIMENT_ID": "3",
            "MLFLOW_RUN_ID": "abc",
        }
    )
    client = resolved.values.client
    assert (client.username, client.password, client.token) == ("ann", "p4ss", "t0ken")
    assert (client.timeout_s, client.max_retries, client.insecure_tls) == (7, 0, True)
    tracking = resolved.values.tracking
    assert (tracking.experiment_id, tracking.run_id) == ("3", "abc")
    shown = {line.key: (line.value, line.origin) for line in resolved.described()}
    assert shown["client.password"] == ("***", "env MLFLOW_TRACKING_PASSWORD")
    assert shown["client.token"] == ("***", "env MLFLOW_TRACKING_TOKEN")
    assert "p4ss" not in repr(resolved.values)


def test_null_unsets_an_optional_value(folder: Path) -> None:
    (folder / "base.yaml").write_text("registry:\n  uri: sqlite:///r.db\ntrust:\n")
    (folder / "local.yaml").write_text("registry: {uri: null}\n")
    assert load(folder).values.registry.uri is None


def test_the_cache_honours_xdg() -> None:
    assert default_cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/sparkscore")
    assert default_cache_folder({}) == Path.home() / ".cache" / "sparkscore"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().tracking.uri = "x"


def test_the_settings_of_this_repository_load() -> None:
    for target in ("local", "cluster"):
        assert load(REPOSITORY / "conf", target).values.tracking == TrackingSettings()


def test_an_unknown_key_is_refused_with_its_origin_and_the_nearest(folder: Path) -> None:
    (folder / "local.yaml").write_text("tracking:\n\n  experimnt: x\n")
    message = refusal(folder)
    assert "unknown setting 'tracking.experimnt' (local.yaml:3)" in message
    assert "did you mean 'tracking.experiment'?" in message
    assert "section 'tracking' has the keys uri, experiment, experiment_id" in message


def test_an_unknown_key_is_refused_in_every_layer() -> None:
    env = refusal(env={"SPARKSCORE__TRACKNG__URI": "x"})
    assert "'trackng.uri' (env SPARKSCORE__TRACKNG__URI) (did you mean 'tracking.uri'?)" in env
    flag = refusal(flags={"trust.type": "x"})
    assert "unknown setting 'trust.type' (flag --set) (did you mean 'trust.types'?)" in flag


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("many", "is 'many' (flag --set): expected a valid integer"),
        ("0", "is '0' (flag --set): expected greater than 0"),
        ("1.5", "is '1.5' (flag --set): expected a valid integer"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_what_is_expected(
    text: str, expected: str
) -> None:
    message = refusal(flags={"scoring.max_rows_per_batch": text})
    assert f"setting 'scoring.max_rows_per_batch' {expected}" in message


@pytest.mark.parametrize(
    ("yaml_text", "expected"),
    [
        ("scoring: {max_rows_per_batch: true}", "is True (base.yaml:1): expected a whole number"),
        (
            "scoring: {engine: fast}",
            "is 'fast' (base.yaml:1): expected 'auto', 'files', 'arrow' or",
        ),
        ("tracking: {uri: null}", "'tracking.uri' is None (base.yaml:1): expected a valid string"),
        ("tracking: sqlite:///x", "must be a mapping of keys to values, such as tracking: {uri: "),
        ("trust: {types: [1]}", "'trust.types' is [1] (base.yaml:1): expected a valid string"),
        ("trust: {types: a.B}", "'trust.types' is 'a.B' (base.yaml:1): expected a valid tuple"),
        ("spark: {conf: {a.b: [1]}}", "'spark.conf.a.b' is [1] (base.yaml:1): expected a valid"),
        ("spark: {conf: 4}", "'spark.conf' (base.yaml:1) must be a mapping"),
        ("trust: {types: !!set x}", "'trust.types' (base.yaml:1) has no readable value"),
        ("cache: {folder: 2013-99-99}", "'cache.folder' (base.yaml:1) has no readable value"),
        ("tracking:\n  uri: a\n  uri: b", "'tracking.uri' is given twice; the second is at base.y"),
        ("? [a]\n: 1", "base.yaml:1: a key must be plain text"),
        ("- a", "holds no mapping of keys to values"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(folder: Path, yaml_text: str, expected: str) -> None:
    (folder / "base.yaml").write_text(yaml_text)
    assert expected in refusal(folder)


def test_a_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "base.yaml").write_bytes(b"\xff\xfe\x00")
    assert f"cannot read {folder / 'base.yaml'}" in refusal(folder)


def test_a_section_cannot_be_set_as_a_value() -> None:
    message = refusal(flags={"tracking": "sqlite:///x.db"})
    assert "is a section; give one of its keys: tracking.uri, tracking.experiment" in message


def test_a_missing_folder_or_target_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "there is no conf folder" in refusal(tmp_path / "none")
    assert "neither base.yaml nor local.yaml" in refusal(tmp_path / "work")
    message = refusal(folder, "locl")
    assert "conf target 'locl' has no file" in message
    assert "(did you mean 'local'?); targets there: 'local'" in message
    assert "is not a name" in refusal(folder, "../local")
    assert "is not a name" in refusal(folder, "base")


def test_a_refused_value_keeps_its_secret() -> None:
    message = refusal(flags={"spark.conf.spark.my.password": ["hunter2"]})
    assert "spark.my.password" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("tracking.uri", "postgresql://me:p@ss/w@host/db", "postgresql://me:***@host/db"),
        (
            "tracking.uri",
            "x://host/db?user=a&password=p&b=c",
            "x://host/db?user=a&password=***&b=c",
        ),
        ("tracking.uri", "sqlite:////a:b@c.db", "sqlite:////a:b@c.db"),
        ("spark.conf.fs.s3a.secret.key", "abc", "***"),
        ("spark.conf.fs.azure.account.key.lake.dfs.core.windows.net", "abc", "***"),
        ("spark.conf", {"a.token": "abc", "b": "c"}, {"a.token": "***", "b": "c"}),
        ("spark.jars", None, None),
        ("stream.publish", ("x://a:b@c", "y://d"), ("x://a:***@c", "y://d")),
    ],
)
def test_secrets_are_masked(key: str, value: object, shown: object) -> None:
    assert masked(key, value) == shown


def test_repr_and_description_mask_secrets() -> None:
    assert "p4ss" not in repr(TrackingSettings(uri="x://a:p4ss@h/d"))
    assert "p4ss" not in repr(SparkSettings(conf={"a.password": "p4ss"}))
    lines = load(flags={"tracking.uri": "x://a:p4ss@h/d", "spark.conf.k": "v"}).described()
    by_key = {line.key: line for line in lines}
    assert by_key["tracking.uri"].value == "x://a:***@h/d"
    assert (by_key["spark.conf.k"].value, by_key["spark.conf.k"].origin) == ("v", "flag --set")
    assert by_key["registry.uri"].value is None
