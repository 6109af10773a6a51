"""Who may do what at S3 and Kafka, and what a client outside needs. Runs in the project's image, where boto3 is.

`s3` makes the bucket, its users and their rights; `kafka` makes users and ACLs; `settings` prints `export` lines.
"""

from __future__ import annotations

import json
import os
import shlex
import ssl
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from xml.sax.saxutils import escape

SECRETS = Path("/run/secrets")
LAKE = "lake"
"""Its bucket, and the first part of its topics' names."""
SECONDS = 180.0
"""How long a server may take to start."""

LOG = ["*/_delta_log/*"]
OWN = ["tables/_deltalakedb*"]
RIGHTS = {
    # Data files only: what a table is made of is the mirror's to say.
    "producer": [
        ("Allow", ["GetObject", "PutObject", "DeleteObject"], ["*"]),
        ("Deny", ["PutObject", "DeleteObject"], [*LOG, *OWN]),
    ],
    "mirror": [("Allow", ["GetObject"], ["*"]), ("Allow", ["PutObject", "DeleteObject"], [*LOG, *OWN])],
    "reader": [("Allow", ["GetObject"], ["*"])],
}
"""By user what it may do with which keys; all may list them."""

READ, WRITE = ("READ", "DESCRIBE"), ("WRITE", "DESCRIBE")
STREAMS = ("staged", "commits", "outcomes", "dead-letter")
TOPICS: dict[str, dict[str, tuple[str, ...]]] = {
    "committer": dict.fromkeys(STREAMS, ("READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")),
    "mirror": {"commits": READ},
    "producer": {"staged": WRITE, "outcomes": READ},
}
"""By user what it may do with which stream of the lake."""


def secret(name: str) -> str:
    return (SECRETS / name).read_text().strip()


def s3() -> None:
    import boto3
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.exceptions import ClientError

    endpoint, root = os.environ["S3_ENDPOINT"], secret("s3-root")
    trusted = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
    for user in RIGHTS:
        body = f"<Account><Access>{user}</Access><Secret>{escape(secret(f's3-{user}'))}</Secret><Role>user</Role></Account>"
        signed = AWSRequest("PATCH", f"{endpoint}/create-user", data=body, headers={"Host": urlsplit(endpoint).netloc})
        S3SigV4Auth(Credentials("root", root), "s3", "us-east-1").add_auth(signed)
        request = Request(f"{endpoint}/create-user", body.encode(), dict(signed.headers.items()), method="PATCH")
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urlopen(request, timeout=10, context=trusted).close()
            except HTTPError as error:
                if error.code != 409:  # it is there already
                    raise RuntimeError(f"the user {user} was not made: {error} {error.read().decode()}") from error
            except (URLError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
                continue
            break
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="root", aws_secret_access_key=root, region_name="us-east-1"
    )
    try:
        client.create_bucket(Bucket=LAKE)
    except ClientError as error:
        if "BucketAlready" not in error.response["Error"]["Code"]:
            raise
    statements = [
        {
            "Effect": "Allow",
            "Principal": {"AWS": list(RIGHTS)},
            "Action": "s3:ListBucket",
            "Resource": f"arn:aws:s3:::{LAKE}",
        }
    ]
    for user, rights in RIGHTS.items():
        for effect, actions, keys in rights:
            statements.append(
                {
                    "Effect": effect,
                    "Principal": {"AWS": [user]},
                    "Action": [f"s3:{action}" for action in actions],
                    "Resource": [f"arn:aws:s3:::{LAKE}/{key}" for key in keys],
                }
            )
    client.put_bucket_policy(Bucket=LAKE, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))


def kafka() -> None:
    from confluent_kafka.admin import (
        AclBinding,
        AclOperation,
        AclPermissionType,
        AdminClient,
        ResourcePatternType,
        ResourceType,
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialUpsertion,
    )

    admin = AdminClient(json.loads(secret("log-owner")))
    mechanism = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192)
    made = admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(user, mechanism, secret(f"kafka-{user}").encode()) for user in TOPICS]
    )
    acls = [
        AclBinding(
            ResourceType.TOPIC,
            f"{LAKE}.{topic}",
            ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for user, topics in TOPICS.items()
        for topic, operations in topics.items()
        for operation in operations
    ]
    for answer in (*made.values(), *admin.create_acls(acls).values()):
        answer.result(SECONDS)


def settings() -> None:
    store = secret("store-reader").replace("@postgres:5432", f"@127.0.0.1:{os.environ['POSTGRES_PORT']}")
    options = {"bootstrap.servers": f"127.0.0.1:{os.environ['KAFKA_PORT']}"}
    ca = os.environ.get("CA_FILE")
    if ca:
        options = {**json.loads(secret("log-producer")), **options, "ssl.ca.location": ca}
    variables = {
        **({"PGSSLMODE": "verify-full", "PGSSLROOTCERT": ca} if ca else {}),
        "DELTALAKEDB_STORE": store,
        "DELTALAKEDB_LOG_OPTIONS": json.dumps(options),
        "AWS_ENDPOINT_URL": f"{'https' if ca else 'http'}://127.0.0.1:{os.environ['S3_PORT']}",
        # The second is whom delta-rs and Polars trust, and every program that is built on OpenSSL.
        **({"AWS_CA_BUNDLE": ca, "SSL_CERT_FILE": ca} if ca else {}),
        "AWS_ACCESS_KEY_ID": "producer",
        "AWS_SECRET_ACCESS_KEY": secret("s3-producer"),
    }
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    {"s3": s3, "kafka": kafka, "settings": settings}[sys.argv[1]]()
