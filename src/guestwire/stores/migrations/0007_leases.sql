-- Freezes that end by themselves: when (seconds since the epoch), or with their caller's connection; and the process in the guest
-- that thaws it when nothing else does.

ALTER TABLE frozen ADD COLUMN until REAL;
ALTER TABLE frozen ADD COLUMN connected INTEGER NOT NULL DEFAULT 0;
ALTER TABLE frozen ADD COLUMN watchdog TEXT NOT NULL DEFAULT '';
