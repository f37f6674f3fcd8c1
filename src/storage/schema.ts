/** Days until a change_log entry expires; a watermark older than that means a rebuild. */
export const CHANGE_LOG_DAYS = 30;

const lineageColumns = 'unknown_fields text, file_name text, file_version text';
const statusColumns = `
  report_time timestamp, report_time_nanos int, status_id text, status_source text, status text, ${lineageColumns}`;
const summaryColumns = `
  event_count bigint, first_event_time timestamp, first_event_time_nanos int,
  last_event_time timestamp, last_event_time_nanos int, last_event_id text,
  last_event_type text, last_event_source text, last_event_value text,
  event_type_counts frozen<map<text, bigint>>`;

const tablesOfVersion1 = [
  `vehicle_events (
    vehicle_id text, day date, event_time timestamp, event_id text, event_time_nanos int,
    event_source text, event_type text, event_value text, event_extra_data text, ${lineageColumns},
    PRIMARY KEY ((vehicle_id, day), event_time, event_id))`,
  `vehicle_status (vehicle_id text PRIMARY KEY, ${statusColumns})`,
  `vehicle_status_history (
    vehicle_id text, month text, ${statusColumns},
    PRIMARY KEY ((vehicle_id, month), report_time, status_id))
    WITH CLUSTERING ORDER BY (report_time DESC, status_id ASC)`,
  `hourly_summary (vehicle_id text, day date, hour int, ${summaryColumns}, PRIMARY KEY ((vehicle_id, day), hour))`,
  `daily_summary (vehicle_id text, day date, ${summaryColumns}, PRIMARY KEY (vehicle_id, day))
    WITH CLUSTERING ORDER BY (day DESC)`,
  `daily_summary_by_day (day date, vehicle_id text, ${summaryColumns}, PRIMARY KEY (day, vehicle_id))`,
  `files (
    name text, version text, state text, dataset text, sha256 text, bytes bigint, file_time timestamp,
    records bigint, loaded bigint, rejected bigint, attempts int, worker text, error text,
    started_at timestamp, finished_at timestamp,
    PRIMARY KEY (name, version))`,
  `rejected_records (
    name text, version text, record_index bigint, field text, reason text, record text, rejected_at timestamp,
    PRIMARY KEY ((name, version), record_index))`,
  `change_log (
    bucket timestamp, shard int, at timeuuid, hours frozen<map<timestamp, frozen<set<text>>>>,
    PRIMARY KEY ((bucket, shard), at))
    WITH default_time_to_live = ${CHANGE_LOG_DAYS * 86_400} AND compaction = {
      'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', 'compaction_window_size': 1}`,
  `aggregation_state (job text PRIMARY KEY, watermark timestamp, epoch bigint)`,
  `aggregation_runs (
    month text, started_at timestamp, run_id text, kind text, window_start timestamp, window_end timestamp,
    hours bigint, days bigint, slices int, outcome text, worker text, finished_at timestamp,
    PRIMARY KEY (month, started_at, run_id))
    WITH CLUSTERING ORDER BY (started_at DESC, run_id ASC)`,
];

export const migrationsTable = 'schema_migrations (version int PRIMARY KEY, description text, applied_at timestamp)';

/**
 * The tables, as migrations, numbered from 1: each is applied once and recorded in schema_migrations. One that has
 * landed is never edited; a change is a new one. Every statement is idempotent, so two processes may migrate at once.
 */
export const migrations = [
  {
    version: 1,
    description: 'raw rows, summaries, ledger, change log, aggregation state',
    statements: tablesOfVersion1.map((table) => `CREATE TABLE IF NOT EXISTS ${table}`),
  },
  {
    version: 2,
    description: 'the change log names the loads, `<version> <name>`, and since when they are under way',
    statements: ['ALTER TABLE change_log ADD IF NOT EXISTS loads frozen<map<text, timestamp>>'],
  },
  {
    version: 3,
    description: 'what a restart of Cassandra may have taken is known: by the generations of its nodes',
    statements: [
      'ALTER TABLE aggregation_state ADD IF NOT EXISTS window_start timestamp',
      'ALTER TABLE aggregation_state ADD IF NOT EXISTS window_end timestamp',
      'ALTER TABLE aggregation_state ADD IF NOT EXISTS generations frozen<map<text, bigint>>',
      'ALTER TABLE aggregation_state ADD IF NOT EXISTS moves frozen<map<timestamp, timestamp>>',
      `CREATE TABLE IF NOT EXISTS reconciliation_state (
        job text PRIMARY KEY, seen_at timestamp, generations frozen<map<text, bigint>>,
        doubts frozen<map<timestamp, timestamp>>)`,
    ],
  },
];
