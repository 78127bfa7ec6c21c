-- Runs when the server starts, and again whenever this text has changed.
CREATE TABLE IF NOT EXISTS orders (
    id       text PRIMARY KEY,
    customer text NOT NULL,
    total    numeric(10, 2) NOT NULL,
    received timestamptz NOT NULL DEFAULT now()
);
