-- Work that goes on after its call, as a start or a shutdown: its id says who began what and when.

CREATE TABLE tasks (
    upid TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    endtime INTEGER NOT NULL,
    log TEXT NOT NULL
);
