"""A small local Spark with Delta and, where there is an endpoint, S3; its jars come from the cache."""

from __future__ import annotations

import os
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

from tests.services import cache, tools
from tests.services.process import ServiceUnavailable
from tests.services.s3 import S3Address


def session(folder: Path, s3: S3Address) -> SparkSession:
    """The one Spark session of this process, which reads Delta tables by path, also as ``s3a://...``.

    Args:
        folder: for whatever Spark writes of its own.
        s3: where ``s3a://`` leads to.  Spark only reads there: nothing makes two of its writers on S3 exclude
            each other, nor one of them and somebody else.

    Raises:
        ServiceUnavailable: there is no Java, or the jars were not fetched.
    """
    java = tools.java()
    if java is None:
        raise ServiceUnavailable(f"Spark needs Java {tools.OLDEST_JAVA} or newer: install openjdk-17-jre-headless.")
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    settings = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # Not spark.jars, which copies every jar at each start.
        "spark.driver.extraClassPath": ":".join(cache.jars("delta") + cache.jars("s3a")),
        "spark.driver.extraJavaOptions": f"-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dderby.system.home={folder}",
        "spark.driver.memory": "512m",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        # The tables of tests are small: what Spark does in 200 tasks by default is done in 2.
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
        # Compiling a plan takes longer than running it over a few rows, and what was compiled is kept.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        # Delta keeps the state of every table that was read, with the plans that made it: a few hundred small tables
        # fill the heap. Spark remembers a thousand statements on top, for a page that nobody opens.
        "spark.databricks.delta.delta.log.cacheSize": "4",
        "spark.sql.ui.retainedExecutions": "1",
        "spark.ui.retainedJobs": "1",
        "spark.ui.retainedStages": "1",
        "spark.ui.retainedTasks": "1",
        "spark.sql.session.timeZone": "UTC",
        "spark.hadoop.fs.s3a.endpoint": s3.endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": s3.region,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": str(s3.endpoint.startswith("https:")).lower(),
        "spark.hadoop.fs.s3a.access.key": s3.access_key,
        "spark.hadoop.fs.s3a.secret.key": s3.secret_key,
        "spark.hadoop.fs.s3a.aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
    }
    builder = SparkSession.Builder().master("local[2]").appName("deltalakedb tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def version() -> str:
    """The versions of Spark and of Delta for it.

    Raises:
        ServiceUnavailable: the jars were not fetched.
    """
    delta = next(Path(jar).stem for jar in cache.jars("delta") if "delta-spark" in jar)
    return f"{pyspark.__version__} with {delta}"
