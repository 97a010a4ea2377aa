-- What is tracked of the run, and what servers have of it. Read it while the run goes on:
--   sqlite3 tracking.sqlite "SELECT max(id) FROM events; SELECT url, run_id, event FROM servers"

-- Names the journal for servers: how a run that was begun there is found again.
CREATE TABLE journal (
    key TEXT NOT NULL
) STRICT;

CREATE TABLE events (
    id   INTEGER PRIMARY KEY,
    -- What it is of, where there can be only one ('step/12'); NULL otherwise.
    key  TEXT UNIQUE,
    -- Milliseconds since 1970.
    at   INTEGER NOT NULL,
    -- The event as JSON.
    body TEXT    NOT NULL
) STRICT;

CREATE TABLE servers (
    url           TEXT NOT NULL,
    experiment    TEXT NOT NULL,
    -- What the server calls them; NULL until it said so.
    experiment_id TEXT,
    parent_id     TEXT,
    run_id        TEXT,
    artifact_uri  TEXT,
    -- The server has all events before `event`, and so many items of it.
    event         INTEGER NOT NULL DEFAULT 0,
    item          INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (url, experiment)
) STRICT;

-- What a server would not take.
CREATE TABLE refused (
    url        TEXT    NOT NULL,
    experiment TEXT    NOT NULL,
    event      INTEGER NOT NULL,
    item       INTEGER NOT NULL,
    what       TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    PRIMARY KEY (url, experiment, event, item)
) STRICT;
