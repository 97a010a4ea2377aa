-- Every scored group of the run. Read it while the run goes on:
--   sqlite3 spool.sqlite "SELECT verdict, count(*), avg(reward) FROM completions GROUP BY verdict"
-- Token ids are little-endian u32, log-probabilities little-endian f32 (nats), one after the other.
CREATE TABLE groups (
    group_index     INTEGER PRIMARY KEY,
    lease_epoch     INTEGER NOT NULL,
    policy_version  INTEGER NOT NULL,
    reward_revision INTEGER NOT NULL,
    worker          TEXT    NOT NULL,
    -- The example's row of the data set, as JSON.
    example         TEXT    NOT NULL,
    prompt_tokens   BLOB    NOT NULL,
    -- BLAKE3 over the group and its completions, hex: finds damage that SQLite does not.
    digest          TEXT    NOT NULL
) STRICT;

CREATE TABLE completions (
    group_index INTEGER NOT NULL REFERENCES groups (group_index),
    sample      INTEGER NOT NULL,
    -- 'stop' or 'length'.
    finish      TEXT    NOT NULL,
    reward      REAL    NOT NULL,
    verdict     TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    tokens      BLOB    NOT NULL,
    logprobs    BLOB    NOT NULL,
    PRIMARY KEY (group_index, sample)
) STRICT, WITHOUT ROWID;
