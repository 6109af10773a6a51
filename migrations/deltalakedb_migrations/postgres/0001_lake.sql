-- The whole state of a lake. The committer writes everything but dl_mirror_status; see docs/schema.md for every column.
-- Times are milliseconds since the epoch; JSON and statistics are text and stay byte for byte what they were.

CREATE TABLE dl_lake (
    lake_id             TEXT PRIMARY KEY,
    root                TEXT NOT NULL,              -- root URI for new tables
    log_address         TEXT NOT NULL,              -- event log, without credentials
    created_ms          BIGINT NOT NULL,
    fence               BOOLEAN NOT NULL            -- new tables get the writer fence
);
CREATE UNIQUE INDEX dl_lake_one ON dl_lake ((1));   -- a store holds one lake

-- One row: where the committer stands. Moved only together with the effects of what it has read.
CREATE TABLE dl_committer_position (
    lake_id             TEXT PRIMARY KEY REFERENCES dl_lake,
    epoch               BIGINT NOT NULL,            -- of the committer that may write
    position            BIGINT NOT NULL,            -- next record of the staged stream
    stream_identity     TEXT NOT NULL,              -- of the staged stream
    last_event_hash     BYTEA,                      -- SHA-256 of the record before position
    commit_seq          BIGINT NOT NULL,            -- newest
    time_ms             BIGINT NOT NULL,            -- T of the newest commit
    next_table_no       BIGINT NOT NULL,
    rule_set            INTEGER NOT NULL,
    published_position  BIGINT NOT NULL             -- answers and commits of records below are on the log
);

-- A row of its own, so that a long write never holds up the sign of life.
CREATE TABLE dl_committer_heartbeat (
    lake_id             TEXT PRIMARY KEY REFERENCES dl_lake,
    epoch               BIGINT NOT NULL,
    holder              TEXT NOT NULL,
    beat                BIGINT NOT NULL,
    released            BOOLEAN NOT NULL            -- the holder stopped and said so
);

-- One row, once somebody has led: what was begun after a takeover, of which nobody has said yet that it came to an
-- end. Void where the position has gone on.
CREATE TABLE dl_committer_attempts (
    lake_id             TEXT PRIMARY KEY REFERENCES dl_lake,
    position            BIGINT NOT NULL,            -- where the batches began
    begun               BIGINT NOT NULL,            -- how many
    read_until          BIGINT NOT NULL,            -- the record after the last that had been read
    alone_position      BIGINT NOT NULL,            -- of the event that was decided alone
    alone_begun         BIGINT NOT NULL             -- how often that was begun
);

CREATE TABLE dl_tables (
    table_no            BIGINT PRIMARY KEY,         -- short name of the table in every other table here
    table_id            TEXT NOT NULL UNIQUE,
    name                TEXT NOT NULL,
    location            TEXT NOT NULL,
    state               TEXT NOT NULL,              -- ACTIVE, DROPPED, IMPORTING, RELEASED
    created_seq         BIGINT,
    dropped_seq         BIGINT,
    first_version       BIGINT NOT NULL,            -- oldest version that can be read; below: history
    slot_columns        TEXT NOT NULL               -- JSON: the columns whose min and max fill slots 1 to 4
);
CREATE UNIQUE INDEX dl_tables_name ON dl_tables (name) WHERE state <> 'DROPPED';
CREATE UNIQUE INDEX dl_tables_location ON dl_tables (location) WHERE state <> 'DROPPED';
CREATE INDEX dl_tables_importing ON dl_tables (table_no) WHERE created_seq IS NULL;

CREATE TABLE dl_table_heads (
    table_no            BIGINT PRIMARY KEY REFERENCES dl_tables,
    version             BIGINT NOT NULL,
    commit_seq          BIGINT,
    time_ms             BIGINT NOT NULL,            -- in-commit timestamp of version
    metadata_version    BIGINT NOT NULL,            -- the version whose metaData holds; -1: none yet
    protocol_version    BIGINT NOT NULL,
    live_files          BIGINT NOT NULL,
    live_bytes          BIGINT NOT NULL,
    width1              BIGINT NOT NULL,            -- widest live file by slot (max - min): bounds a range condition
    width2              BIGINT NOT NULL,
    width3              BIGINT NOT NULL,
    width4              BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE dl_commits (
    commit_seq          BIGINT PRIMARY KEY,
    position            BIGINT NOT NULL,            -- of the record that completed it
    time_ms             BIGINT NOT NULL,
    txn_ids             TEXT NOT NULL               -- JSON array
);
CREATE INDEX dl_commits_time ON dl_commits (time_ms, commit_seq);

-- One row per decision, for ever.
CREATE TABLE dl_transactions (
    txn_id              TEXT PRIMARY KEY,           -- or position-<n>, where no id could be read
    position            BIGINT NOT NULL,
    time_ms             BIGINT NOT NULL,            -- append time of the record that was decided
    client_id           TEXT NOT NULL,
    digest              BYTEA,                      -- content digest; null: nothing was sent (cancelled first)
    committed           BOOLEAN NOT NULL,
    commit_seq          BIGINT,
    outcome             TEXT NOT NULL,              -- JSON as told to the client
    claimed_txn_id      TEXT,                       -- id from the headers of a record that could not be decoded
    event_hash          BYTEA                       -- SHA-256 of such a record
);
-- By hash, here and below, where a text may be longer than an entry of a btree.
CREATE INDEX dl_transactions_claimed ON dl_transactions USING hash (claimed_txn_id) WHERE claimed_txn_id IS NOT NULL;

CREATE TABLE dl_app_transactions (
    app_id              TEXT NOT NULL,
    app_version         BIGINT NOT NULL,
    txn_id              TEXT NOT NULL,
    PRIMARY KEY (app_id, app_version)
);

CREATE TABLE dl_table_versions (
    table_no            BIGINT NOT NULL,
    version             BIGINT NOT NULL,
    commit_seq          BIGINT,                     -- null: imported
    time_ms             BIGINT NOT NULL,            -- in-commit timestamp
    txn_id              TEXT,
    operation           TEXT,
    operation_parameters TEXT,                      -- JSON object of strings
    operation_metrics   TEXT,                       -- JSON object of strings
    read_version        BIGINT,
    isolation_level     TEXT,
    is_blind_append     BOOLEAN,
    user_metadata       TEXT,
    engine_info         TEXT,
    tags                TEXT,                       -- JSON object of strings
    commit_info         TEXT,                       -- other commitInfo fields, JSON object
    render_version      INTEGER NOT NULL,           -- which renderer gives the bytes of the log file
    changes_data        BOOLEAN NOT NULL,
    changes_metadata    BOOLEAN NOT NULL,
    changes_protocol    BOOLEAN NOT NULL,
    added_files         BIGINT NOT NULL,
    added_bytes         BIGINT NOT NULL,
    removed_files       BIGINT NOT NULL,
    removed_bytes       BIGINT NOT NULL,
    origin              TEXT,                       -- IMPORTED, BASELINE, HISTORY, ADOPTED; null: decided here
    file_time_ms        BIGINT,                     -- of the log file that was imported
    PRIMARY KEY (table_no, version)
);
CREATE INDEX dl_table_versions_seq ON dl_table_versions (table_no, commit_seq);
CREATE INDEX dl_table_versions_time ON dl_table_versions (table_no, time_ms);

-- Distinct partition values of a table; files name them by number. Number 0, without a row here, is: no partition columns.
CREATE TABLE dl_partitions (
    table_no            BIGINT NOT NULL,
    partition_no        BIGINT NOT NULL,
    partition_values    TEXT NOT NULL,              -- JSON object, keys in order of name
    PRIMARY KEY (table_no, partition_no)
);
CREATE INDEX dl_partitions_values ON dl_partitions USING hash (partition_values);

-- Files of the newest version of every table: small and dense.
CREATE TABLE dl_live_files (
    table_no            BIGINT NOT NULL,
    version             BIGINT NOT NULL,            -- that added it
    n                   INTEGER NOT NULL,           -- place among the adds of that version
    path                TEXT NOT NULL,
    dv_id               TEXT NOT NULL,              -- '' without deletion vector; identity is (path, dv_id)
    partition_no        BIGINT NOT NULL,
    size                BIGINT NOT NULL,
    modification_time   BIGINT NOT NULL,
    data_change         BOOLEAN NOT NULL,
    stats               TEXT,
    num_records         BIGINT,                     -- from stats
    tags                TEXT,
    dv_storage_type     TEXT,
    dv_path             TEXT,
    dv_offset           INTEGER,
    dv_size             INTEGER,
    dv_cardinality      BIGINT,
    dv_max_row_index    BIGINT,
    base_row_id         BIGINT,
    default_row_commit_version BIGINT,
    clustering_provider TEXT,
    extra               TEXT,                       -- fields without a column, JSON object
    canonical_path      TEXT,                       -- percent-decoded and relative; null: path is
    min1 BIGINT, max1 BIGINT, min2 BIGINT, max2 BIGINT, min3 BIGINT, max3 BIGINT, min4 BIGINT, max4 BIGINT,
    PRIMARY KEY (table_no, version, n)
);
CREATE INDEX dl_live_files_path ON dl_live_files USING hash (path);
CREATE INDEX dl_live_files_canonical ON dl_live_files USING hash (canonical_path) WHERE canonical_path IS NOT NULL;

-- Of a table that autovacuum has not seen the planner believes that each path is in it many times, and reads all of it
-- to find a few. So it is shown rows like those to come; what it learns of them holds until autovacuum has been there.
INSERT INTO dl_live_files (table_no, version, n, path, dv_id, partition_no, size, modification_time, data_change)
    SELECT i % 10, i, 0, md5(i::TEXT) || '.parquet', '', 0, 1, 0, TRUE FROM generate_series(1, 1000) AS i;
ANALYZE dl_live_files;
DELETE FROM dl_live_files;

-- Files that some older version had, with the version that removed them.
CREATE TABLE dl_past_files (
    LIKE dl_live_files,
    removed_version     BIGINT NOT NULL,
    PRIMARY KEY (table_no, version, n)
);
CREATE INDEX dl_past_files_removed ON dl_past_files (table_no, removed_version);

-- Every add of every version; removed_version is null for files that are live.
CREATE VIEW dl_add_files AS
    SELECT a.*, COALESCE(p.partition_values, '{}') AS partition_values
    FROM (
        SELECT f.*, CAST(NULL AS BIGINT) AS removed_version FROM dl_live_files f
        UNION ALL
        SELECT f.* FROM dl_past_files f
    ) a
    LEFT JOIN dl_partitions p ON p.table_no = a.table_no AND p.partition_no = a.partition_no;

CREATE TABLE dl_remove_files (
    table_no            BIGINT NOT NULL,
    version             BIGINT NOT NULL,
    n                   INTEGER NOT NULL,
    path                TEXT NOT NULL,
    dv_id               TEXT NOT NULL,
    data_change         BOOLEAN NOT NULL DEFAULT TRUE,
    deletion_timestamp  BIGINT,
    extended_file_metadata BOOLEAN,
    partition_values    TEXT,                       -- JSON object; null: not given
    size                BIGINT,
    stats               TEXT,
    tags                TEXT,
    dv_storage_type     TEXT,
    dv_path             TEXT,
    dv_offset           INTEGER,
    dv_size             INTEGER,
    dv_cardinality      BIGINT,
    dv_max_row_index    BIGINT,
    base_row_id         BIGINT,
    default_row_commit_version BIGINT,
    extra               TEXT,
    PRIMARY KEY (table_no, version, n)
);

CREATE TABLE dl_cdc_files (
    table_no            BIGINT NOT NULL,
    version             BIGINT NOT NULL,
    n                   INTEGER NOT NULL,
    path                TEXT NOT NULL,
    partition_values    TEXT NOT NULL,
    size                BIGINT NOT NULL,
    data_change         BOOLEAN NOT NULL DEFAULT FALSE,
    tags                TEXT,
    extra               TEXT,
    PRIMARY KEY (table_no, version, n)
);

CREATE TABLE dl_metadata_updates (
    table_no            BIGINT NOT NULL,
    version             BIGINT NOT NULL,
    metadata_id         TEXT NOT NULL,
    name                TEXT,
    description         TEXT,
    format_provider     TEXT NOT NULL,
    format_options      TEXT NOT NULL,              -- JSON object
    schema_string       TEXT NOT NULL,
    partition_columns   TEXT NOT NULL,              -- JSON array
    configuration       TEXT NOT NULL,              -- JSON object
    created_time        BIGINT,
    extra               TEXT,
    PRIMARY KEY (table_no, version)
);

CREATE TABLE dl_protocol_updates (
    table_no            BIGINT NOT NULL,
    version             BIGINT NOT NULL,
    min_reader_version  INTEGER NOT NULL,
    min_writer_version  INTEGER NOT NULL,
    reader_features     TEXT,                       -- JSON array; null: not given
    writer_features     TEXT,
    extra               TEXT,
    PRIMARY KEY (table_no, version)
);

CREATE TABLE dl_txn_actions (
    table_no            BIGINT NOT NULL,
    version             BIGINT NOT NULL,
    app_id              TEXT NOT NULL,
    app_version         BIGINT NOT NULL,
    last_updated        BIGINT,
    extra               TEXT,
    PRIMARY KEY (table_no, app_id, version)
);
CREATE INDEX dl_txn_actions_version ON dl_txn_actions (table_no, version);

CREATE TABLE dl_domain_metadata (
    table_no            BIGINT NOT NULL,
    version             BIGINT NOT NULL,
    domain              TEXT NOT NULL,
    configuration       TEXT NOT NULL,
    removed             BOOLEAN NOT NULL,
    extra               TEXT,
    PRIMARY KEY (table_no, domain, version)
);
CREATE INDEX dl_domain_metadata_version ON dl_domain_metadata (table_no, version);

-- Actions of kinds unknown to this release, verbatim.
CREATE TABLE dl_other_actions (
    table_no            BIGINT NOT NULL,
    version             BIGINT NOT NULL,
    n                   INTEGER NOT NULL,
    kind                TEXT NOT NULL,
    body                TEXT NOT NULL,
    PRIMARY KEY (table_no, version, n)
);

-- Events that were not decided like others, because the process died over them or beside them. What a replay cannot
-- find out from the log.
CREATE TABLE dl_isolated_events (
    position            BIGINT PRIMARY KEY,
    event_hash          BYTEA NOT NULL,             -- SHA-256 of the record's value
    size                BIGINT NOT NULL,            -- of the value, in bytes
    rejected            BOOLEAN NOT NULL,           -- false: decided by itself, though it could fold
    attempts            BIGINT NOT NULL,            -- that ended with the process
    reason              TEXT NOT NULL,
    time_ms             BIGINT NOT NULL             -- when, by the committer's clock
);

-- Chunks of transactions that are not complete yet.
CREATE TABLE dl_staged_chunks (
    txn_id              TEXT NOT NULL,
    chunk_index         INTEGER NOT NULL,
    chunk_count         INTEGER NOT NULL,
    digest              BYTEA NOT NULL,             -- of the whole transaction, as this chunk says
    chunk_digest        BYTEA NOT NULL,             -- SHA-256 of content
    position            BIGINT NOT NULL,
    time_ms             BIGINT NOT NULL,
    content             BYTEA NOT NULL,
    size                INTEGER NOT NULL,           -- bytes of content
    head                BYTEA,                      -- of a big transaction: content without adds and removes
    parts               TEXT,                       -- of a big transaction: JSON, what was found out about those
    client_id           TEXT NOT NULL,              -- who sent it
    outcome_partition   INTEGER NOT NULL,           -- where it wants its answer; -1: nowhere
    PRIMARY KEY (txn_id, chunk_index)
);

-- Adds and removes of big transactions that are not complete yet, as their rows will be.
CREATE TABLE dl_staged_files (
    txn_id              TEXT NOT NULL,
    chunk_index         INTEGER NOT NULL,
    work                BIGINT NOT NULL,            -- of the table, within its transaction
    kind                TEXT NOT NULL,              -- add, remove
    n                   INTEGER NOT NULL,           -- place among those of this kind that the chunk has of the table
    path                TEXT NOT NULL,
    dv_id               TEXT NOT NULL,
    partition_values    TEXT,                       -- JSON object, keys in order of name
    size                BIGINT,
    modification_time   BIGINT,
    data_change         BOOLEAN NOT NULL,
    stats               TEXT,
    num_records         BIGINT,
    tags                TEXT,
    dv_storage_type     TEXT,
    dv_path             TEXT,
    dv_offset           INTEGER,
    dv_size             INTEGER,
    dv_cardinality      BIGINT,
    dv_max_row_index    BIGINT,
    base_row_id         BIGINT,
    default_row_commit_version BIGINT,
    clustering_provider TEXT,
    extra               TEXT,
    canonical_path      TEXT,
    min1 BIGINT, max1 BIGINT, min2 BIGINT, max2 BIGINT, min3 BIGINT, max3 BIGINT, min4 BIGINT, max4 BIGINT,
    PRIMARY KEY (txn_id, work, kind, chunk_index, n)
);

-- Imported versions of which some chunks have come. Their rows are there already, above the table's head.
CREATE TABLE dl_imports (
    table_no            BIGINT PRIMARY KEY,
    version             BIGINT NOT NULL,
    chunks              INTEGER NOT NULL,           -- that have come
    chunk_count         INTEGER NOT NULL,
    progress            TEXT NOT NULL               -- JSON: what the next chunk goes on from
);

-- Records that are to be told: of many commits or outcomes, or a dead letter. Deleted once published.
CREATE TABLE dl_outbox (
    position            BIGINT NOT NULL,            -- of the newest staged record that they tell of
    n                   INTEGER NOT NULL,
    stream              TEXT NOT NULL,
    stream_partition    INTEGER NOT NULL,
    headers             TEXT NOT NULL,              -- JSON object of base64 values
    payload             BYTEA NOT NULL,
    PRIMARY KEY (position, n)
);

-- A batch's rows are large and gone within a second: to compress them takes longer than to write them.
ALTER TABLE dl_outbox ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE TABLE dl_mirror_targets (
    target              TEXT PRIMARY KEY,
    kind                TEXT NOT NULL,              -- in-place, copy, replica
    root                TEXT,                       -- null: the tables' own locations
    state               TEXT NOT NULL,              -- ACTIVE, PAUSED, REMOVED
    added_seq           BIGINT NOT NULL
);

-- The only table a mirror worker writes.
CREATE TABLE dl_mirror_status (
    table_no            BIGINT NOT NULL,
    target              TEXT NOT NULL,
    state               TEXT NOT NULL,              -- PENDING, IN_FLIGHT, SUCCEEDED, FAILED, FENCED
    publish_from        BIGINT NOT NULL,            -- the first version that we write there
    mirrored_version    BIGINT NOT NULL,            -- the newest one there; -1: none
    checkpoint_version  BIGINT NOT NULL,            -- -1: none
    log_start           BIGINT NOT NULL,            -- versions below were cleaned up
    attempts            INTEGER NOT NULL,
    last_error          TEXT,
    fenced_by           TEXT,
    updated_ms          BIGINT NOT NULL,
    PRIMARY KEY (table_no, target)
) WITH (fillfactor = 50);
