-- Tickets end with their user and password: they are signed together with this text, which is another one then.

ALTER TABLE users ADD COLUMN ticket_version TEXT NOT NULL DEFAULT '';
