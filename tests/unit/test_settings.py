"""Settings: arguments before environment before a file, secrets from files, and nothing secret in any text."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from deltalakedb.errors import TxnLogConfigError, redacted
from deltalakedb.settings import Settings, load_settings, parse_root
from deltalakedb.storage_options import StorageOptions

CANARY = "canary7f3a"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("DELTALAKEDB_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_arguments_before_environment_before_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A value is taken from the first place that has it, each field by itself."""
    file = tmp_path / "lake.toml"
    file.write_text('store = "/from/file"\nlog = "sqlite:///from/file.db"\nwindow = 3\n')
    monkeypatch.setenv("DELTALAKEDB_LOG", "sqlite:///from/env.db")
    monkeypatch.setenv("DELTALAKEDB_WINDOW", "4")

    settings = load_settings(config=file, window=5)

    assert settings.store.get_secret_value() == "/from/file"
    assert settings.log == "sqlite:///from/env.db"
    assert settings.window == 5


def test_file_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`DELTALAKEDB_CONFIG` names the file where no argument does; a file that is not there is an error."""
    file = tmp_path / "lake.toml"
    file.write_text("window = 3\n")
    monkeypatch.setenv("DELTALAKEDB_CONFIG", str(file))

    assert load_settings().window == 3
    file.unlink()
    with pytest.raises(TxnLogConfigError, match="not there"):
        load_settings()


def test_secrets_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`<NAME>_FILE` names a file with the value, for our own settings and for the object store's."""
    (tmp_path / "store").write_text(f"postgresql://u:{CANARY}@h/db?schema=lake\n")
    (tmp_path / "options").write_text('{"sasl.password": "s3cret"}')
    (tmp_path / "key").write_text("K\n")
    monkeypatch.setenv("DELTALAKEDB_STORE_FILE", str(tmp_path / "store"))
    monkeypatch.setenv("DELTALAKEDB_LOG_OPTIONS_FILE", str(tmp_path / "options"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY_FILE", str(tmp_path / "key"))

    settings = load_settings()

    assert settings.address.password == CANARY
    assert settings.log_settings == {"sasl.password": "s3cret"}
    assert settings.storage.values["AWS_SECRET_ACCESS_KEY"] == "K"
    assert set(settings.secrets.values()) == {CANARY, "s3cret", "K"}


def test_one_source_per_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A value and a file for the same setting contradict each other; a file that cannot be read is named."""
    monkeypatch.setenv("DELTALAKEDB_STORE", "./a")
    monkeypatch.setenv("DELTALAKEDB_STORE_FILE", str(tmp_path / "missing"))
    with pytest.raises(TxnLogConfigError, match="both set"):
        load_settings()

    monkeypatch.delenv("DELTALAKEDB_STORE")
    with pytest.raises(TxnLogConfigError, match="DELTALAKEDB_STORE_FILE names a file that cannot be read"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DELTALAKEDB_LOG_OPTIONS", "{" + CANARY),
        ("DELTALAKEDB_LOG_OPTIONS", f'["{CANARY}"]'),
        ("DELTALAKEDB_STORAGE_OPTIONS", f'{{"a": ["{CANARY}"]}}'),
        ("DELTALAKEDB_WINDOW", CANARY),
        ("DELTALAKEDB_STORE", f"deltasql://postgres/u:{CANARY}@h"),
    ],
)
def test_canary_in_wrong_settings(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """A wrong setting is a configuration error that does not show what was set."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(TxnLogConfigError) as caught:
        load_settings()
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_unknown_setting() -> None:
    """A mistyped argument is an error, not ignored."""
    with pytest.raises(TxnLogConfigError, match="stroe"):
        load_settings(stroe="./lake")


def test_nothing_secret_is_shown_and_everything_survives_pickling() -> None:
    """Settings show no secret and come out of a pickle equal."""
    settings = load_settings(
        store=f"postgresql://u:{CANARY}@h/db?schema=lake",
        log_options={"sasl.password": CANARY},
        storage_options={"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": CANARY},
    )

    assert CANARY not in f"{settings!r} {settings} {settings.storage!r} {settings.location!r}"
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert type(settings) is Settings
    assert redacted(f"a {CANARY} b", settings.secrets) == "a *** b"


def test_embedded_lake(tmp_path: Path) -> None:
    """The default is a lake in `./lake`: its log and root follow from the directory, whatever the process does later."""
    settings = load_settings()

    assert settings.directory == tmp_path / "lake"
    assert settings.address.path == str(tmp_path / "lake" / "lake.db")
    assert settings.log_address == f"sqlite://{tmp_path}/lake/log.db"
    assert settings.root_uri == (tmp_path / "lake" / "tables").as_uri()
    assert settings.store.get_secret_value() == str(tmp_path / "lake")


def test_server_store_leaves_log_and_root_to_the_store() -> None:
    """What is given nowhere is None: the store remembers it."""
    settings = load_settings(store="deltasql://postgres/db/lake")

    assert (settings.directory, settings.log_address, settings.root_uri) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("s3a://b/x/", "s3://b/x"),
        ("file:///a/b/", "file:///a/b"),
        ("/a b", "file:///a%20b"),
    ],
)
def test_roots(given: str, expected: str) -> None:
    """A root is a URI without a trailing slash."""
    assert parse_root(given) == expected


def test_wrong_root() -> None:
    """Only S3 and local folders can hold tables."""
    with pytest.raises(TxnLogConfigError, match="gs://"):
        parse_root("gs://bucket")


OPTIONS = {
    "aws_access_key_id": "id",
    "secret_access_key": "it's",
    "AWS_SESSION_TOKEN": "token",
    "endpoint": "http://127.0.0.1:9000",
    "timeout": "5s",
}


def test_one_set_of_options_for_every_library() -> None:
    """The same options, spelled as deltalake allows, come out in the words of each library."""
    options = StorageOptions.resolve(OPTIONS, {})

    assert options.deltalake() == {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "it's",
        "AWS_SESSION_TOKEN": "token",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "timeout": "5s",
    }
    assert options.pyarrow() == {
        "access_key": "id",
        "secret_key": "it's",
        "session_token": "token",
        "region": "us-east-1",
        "scheme": "http",
        "endpoint_override": "127.0.0.1:9000",
        "force_virtual_addressing": False,
    }
    assert options.boto3() == {
        "aws_access_key_id": "id",
        "aws_secret_access_key": "it's",
        "aws_session_token": "token",
        "region_name": "us-east-1",
        "endpoint_url": "http://127.0.0.1:9000",
    }
    assert options.duckdb() == (
        "CREATE OR REPLACE SECRET deltalakedb (TYPE s3, KEY_ID 'id', SECRET 'it''s', SESSION_TOKEN 'token', "
        "REGION 'us-east-1', ENDPOINT '127.0.0.1:9000', USE_SSL false, URL_STYLE 'path')"
    )
    assert options.spark() == {
        "spark.hadoop.fs.s3a.access.key": "id",
        "spark.hadoop.fs.s3a.secret.key": "it's",
        "spark.hadoop.fs.s3a.session.token": "token",
        "spark.hadoop.fs.s3a.aws.credentials.provider": "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider",
        "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
        "spark.hadoop.fs.s3a.endpoint": "http://127.0.0.1:9000",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        "spark.hadoop.fs.s3a.path.style.access": "true",
    }


def test_who_is_trusted_is_told_to_every_library_that_can_be_told() -> None:
    """deltalake and polars refuse nothing and heed nothing of the kind: they take it from SSL_CERT_FILE."""
    options = StorageOptions.resolve({"endpoint_url": "https://s3:7070"}, {"AWS_CA_BUNDLE": "/run/secrets/ca's.pem"})

    assert options.boto3()["verify"] == "/run/secrets/ca's.pem"
    assert options.pyarrow()["tls_ca_file_path"] == "/run/secrets/ca's.pem"
    assert options.duckdb().startswith("SET ca_cert_file = '/run/secrets/ca''s.pem'; CREATE OR REPLACE SECRET")
    assert "USE_SSL true" in options.duckdb()
    assert options.deltalake() == {"AWS_ENDPOINT_URL": "https://s3:7070", "AWS_REGION": "us-east-1"}


def test_environment_completes_options() -> None:
    """What is not given comes from AWS_*, but never a token that belongs to another key."""
    environment = {
        "AWS_ACCESS_KEY_ID": "env",
        "AWS_SECRET_ACCESS_KEY": "envs",
        "AWS_SESSION_TOKEN": "envt",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }

    assert StorageOptions.resolve({}, environment).values == {
        "AWS_ACCESS_KEY_ID": "env",
        "AWS_SECRET_ACCESS_KEY": "envs",
        "AWS_SESSION_TOKEN": "envt",
        "AWS_REGION": "eu-west-1",
    }
    own = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
    assert StorageOptions.resolve(own, environment).values == own | {"AWS_REGION": "eu-west-1"}


def test_options_that_contradict_each_other() -> None:
    """Half a key and an option with two values are refused."""
    with pytest.raises(TxnLogConfigError, match="come together"):
        StorageOptions.resolve({"AWS_ACCESS_KEY_ID": "id"}, {})
    with pytest.raises(TxnLogConfigError, match="AWS_REGION is given twice"):
        StorageOptions.resolve({"region": "a", "AWS_DEFAULT_REGION": "b"}, {})


def test_aws_itself_needs_no_endpoint() -> None:
    """Without options every library is left to its own usual places."""
    options = StorageOptions.resolve({}, {})

    assert (options.deltalake(), options.pyarrow(), options.boto3(), options.spark()) == ({}, {}, {}, {})
    assert options.duckdb() == "CREATE OR REPLACE SECRET deltalakedb (TYPE s3, PROVIDER credential_chain)"


def test_canary_in_a_connection_that_fails() -> None:
    """A server that cannot be reached is an error that shows no password, nor does anything it was raised from."""
    import traceback

    import deltalakedb

    with pytest.raises(deltalakedb.TxnLogDatabaseError) as caught:
        deltalakedb.connect(f"postgresql://u:{CANARY}@127.0.0.1:1/db?schema=lake&connect_timeout=2")

    assert CANARY not in "".join(traceback.format_exception(caught.value))
