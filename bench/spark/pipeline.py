"""The Spark peer: two structured streams, events and status reports, into Cassandra, and the daily summary as a batch.

    pipeline.py drain|stream|summary '{"folder": …, "port": …, "keyspace": …, "jars": [], "checkpoints": …}'

It prints `ready`, waits for a line on its standard input, and prints the seconds that the work then took. `stream` runs
until its input ends.
"""

import json
import sys
import time

from pyspark.sql import DataFrame, SparkSession, functions as f

mode, options = sys.argv[1], json.loads(sys.argv[2])
EVENT = "vehicle_id STRING, event_time STRING, event_source STRING, event_type STRING, event_value STRING, event_extra_data STRING"
STATUS = "vehicle_id STRING, report_time STRING, status_source STRING, status STRING"
TABLE = "org.apache.spark.sql.cassandra"

spark = (
    SparkSession.builder.master("local[2]")
    .appName("vehicle data")
    .config("spark.jars", ",".join(options["jars"]))
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
    # Otherwise each file of a micro-batch is looked up by a task of its own, which takes longer than the writing.
    .config("spark.sql.sources.parallelPartitionDiscovery.threshold", "100000")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.shuffle.partitions", "4")
    .config("spark.sql.extensions", "com.datastax.spark.connector.CassandraSparkExtensions")
    .config("spark.cassandra.connection.host", "127.0.0.1")
    .config("spark.cassandra.connection.port", str(options["port"]))
    .config("spark.cassandra.output.concurrent.writes", "32")
    .config("spark.cassandra.output.batch.size.bytes", "4096")
    .config("spark.cassandra.output.batch.grouping.buffer.size", "2000")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("WARN")


def table(name: str) -> dict[str, str]:
    return {"table": name, "keyspace": options["keyspace"]}


def read(kind: str, schema: str, time_column: str, id_column: str) -> DataFrame:
    """The records of a kind of files, with the columns that every table has."""
    files = spark.readStream.schema(schema).option("multiLine", True).option("pathGlobFilter", f"vehicles_{kind}_*.json")
    records = files.json(options["folder"])
    moment = f.to_timestamp(time_column)
    return (
        records.withColumn("file_name", f.element_at(f.split(f.input_file_name(), "/"), -1))
        .withColumn(id_column, f.substring(f.sha2(f.to_json(f.struct(*records.columns)), 256), 1, 32))
        .withColumn(f"{time_column}_nanos", (f.unix_micros(moment) % 1000 * 1000).cast("int"))
        .withColumn("micros", f.unix_micros(moment))
        .withColumn(time_column, moment)
    )


def write_status(batch: DataFrame, _: int) -> None:
    """Every report into the history, the newest of each vehicle into the table of the newest."""
    batch.persist()
    history = batch.withColumn("month", f.date_format("report_time", "yyyy-MM")).drop("micros")
    history.write.format(TABLE).options(**table("vehicle_status_history")).mode("append").save()
    columns = [column for column in batch.columns if column != "vehicle_id"]
    newest = batch.groupBy("vehicle_id").agg(f.max_by(f.struct(*columns), "micros").alias("newest"))
    newest = newest.select("vehicle_id", "newest.*")
    newest.write.format(TABLE).options(**table("vehicle_status"), writetime="micros").mode("append").save()
    batch.unpersist()


def start_streams(trigger: dict[str, bool | str]):
    """Both streams; each query is one that ends, or not, as the trigger says."""
    events = read("events", EVENT, "event_time", "event_id").drop("micros").withColumn("day", f.to_date("event_time"))
    status = read("status", STATUS, "report_time", "status_id")
    checkpoints = options["checkpoints"]
    into_events = events.writeStream.format(TABLE).options(**table("vehicle_events")).outputMode("append")
    into_status = status.writeStream.foreachBatch(write_status)
    return [
        into_events.option("checkpointLocation", f"{checkpoints}/events").trigger(**trigger).start(),
        into_status.option("checkpointLocation", f"{checkpoints}/status").trigger(**trigger).start(),
    ]


def summarize() -> None:
    """The daily summary of every vehicle and day, from the whole table."""
    events = spark.read.format(TABLE).options(**table("vehicle_events")).load()
    key = ["vehicle_id", "day"]
    last = f.max(f.struct("event_time", "event_time_nanos", "event_id", "event_type", "event_source", "event_value"))
    types = events.groupBy(*key, "event_type").agg(
        f.count("*").alias("events"), f.min("event_time").alias("first"), last.alias("last")
    )
    days = types.groupBy(*key).agg(
        f.sum("events").alias("event_count"),
        f.min("first").alias("first_event_time"),
        f.max("last").alias("last"),
        f.map_from_entries(f.collect_list(f.struct("event_type", "events"))).alias("event_type_counts"),
    )
    columns = [f.col(f"last.{name}").alias(f"last_{name}") for name in days.schema["last"].dataType.names]
    days = days.select(*key, "event_count", "first_event_time", "event_type_counts", *columns)
    days.write.format(TABLE).options(**table("daily_summary")).mode("append").save()


if mode == "stream":
    queries = start_streams({"processingTime": "0 seconds"})
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
if mode == "drain":
    for query in start_streams({"availableNow": True}):
        query.awaitTermination()
if mode == "summary":
    summarize()
if mode == "stream":
    for query in queries:
        query.stop()
print(time.perf_counter() - started, flush=True)
spark.stop()
