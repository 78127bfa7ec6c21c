-- Runs when the server starts, and again whenever this text has changed.
CREATE TABLE IF NOT EXISTS products (
    id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name  text NOT NULL UNIQUE,
    price numeric(8, 2) NOT NULL CHECK (price >= 0)
);
INSERT INTO products (name, price) VALUES ('Lamp', 60.00), ('Chair', 120.00), ('Kettle', 45.50)
ON CONFLICT DO NOTHING;
