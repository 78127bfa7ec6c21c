-- What the definitions of this folder need. `serve` runs it when it starts, if the database has not seen this text yet:
-- so it is written to be run again, and adds only what is missing.

CREATE TABLE IF NOT EXISTS products (
    id       integer PRIMARY KEY,
    name     text NOT NULL,
    category text NOT NULL,
    price    numeric(8, 2) NOT NULL,
    stock    integer NOT NULL CHECK (stock >= 0),
    added    date NOT NULL
);
CREATE INDEX IF NOT EXISTS products_by_category_and_price ON products (category, price);

-- 10,000 products, the same on every machine: 20 looks x 20 materials x 25 things.
INSERT INTO products (id, name, category, price, stock, added)
SELECT
    n + 1,
    look || ' ' || material || ' ' || thing,
    category,
    round(dear * (0.6 + (n * 7919 % 1000) / 1000.0), 2) - 0.01,
    n * 31 % 200,
    date '2024-01-01' + n * 17 % 700
FROM generate_series(0, 9999) AS n
CROSS JOIN LATERAL (
    SELECT
        (ARRAY['Small', 'Large', 'Round', 'Folding', 'Light', 'Heavy', 'Plain', 'Striped', 'Classic', 'Modern',
               'Quiet', 'Bright', 'Dark', 'Soft', 'Sturdy', 'Slim', 'Wide', 'Tall', 'Low', 'Portable'])[n / 500 + 1],
        (ARRAY['Oak', 'Steel', 'Linen', 'Wool', 'Glass', 'Copper', 'Bamboo', 'Cotton', 'Brass', 'Leather',
               'Walnut', 'Cork', 'Marble', 'Felt', 'Pine', 'Silk', 'Iron', 'Clay', 'Canvas', 'Maple'])[n / 25 % 20 + 1]
) AS made (look, material)
JOIN (VALUES
    (0, 'Lamp', 'home', 60), (1, 'Chair', 'home', 120), (2, 'Table', 'home', 300), (3, 'Shelf', 'home', 90),
    (4, 'Rug', 'home', 150), (5, 'Kettle', 'kitchen', 45), (6, 'Pan', 'kitchen', 40), (7, 'Bowl', 'kitchen', 15),
    (8, 'Knife', 'kitchen', 35), (9, 'Jug', 'kitchen', 20), (10, 'Pen', 'office', 8), (11, 'Desk', 'office', 400),
    (12, 'Notebook', 'office', 12), (13, 'Clock', 'office', 50), (14, 'Folder', 'office', 9),
    (15, 'Tent', 'outdoors', 250), (16, 'Backpack', 'outdoors', 80), (17, 'Bottle', 'outdoors', 22),
    (18, 'Hammock', 'outdoors', 65), (19, 'Stove', 'outdoors', 55), (20, 'Scarf', 'clothing', 30),
    (21, 'Belt', 'clothing', 28), (22, 'Coat', 'clothing', 180), (23, 'Hat', 'clothing', 25), (24, 'Bag', 'clothing', 70)
) AS kinds (number, thing, category, dear) ON kinds.number = n % 25
ON CONFLICT DO NOTHING;

-- order-notices.yaml
CREATE TABLE IF NOT EXISTS orders (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product    integer NOT NULL REFERENCES products,
    quantity   integer NOT NULL CHECK (quantity > 0),
    ordered_at timestamptz NOT NULL DEFAULT now()
);

-- csv-import.yaml
CREATE TABLE IF NOT EXISTS imported (
    import  uuid NOT NULL,
    columns jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS imported_by_import ON imported (import);

-- chat-stream.yaml writes it, conversations.yaml reads it.
CREATE TABLE IF NOT EXISTS messages (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation uuid NOT NULL,
    model        text NOT NULL,
    question     text NOT NULL,
    answer       text NOT NULL,
    outcome      text NOT NULL CHECK (outcome IN ('completed', 'failed', 'cancelled')),
    usage        jsonb,
    milliseconds integer NOT NULL,
    saved        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS messages_by_conversation ON messages (conversation, id);

-- ratings.yaml
CREATE TABLE IF NOT EXISTS ratings (
    run      text PRIMARY KEY,
    endpoint text NOT NULL,
    rating   text NOT NULL CHECK (rating IN ('up', 'down')),
    comment  text NOT NULL,
    rated    timestamptz NOT NULL DEFAULT now()
);

-- broadcast.yaml
CREATE TABLE IF NOT EXISTS broadcasts (
    id    uuid PRIMARY KEY,
    title text NOT NULL,
    text  text NOT NULL,
    sent  timestamptz NOT NULL DEFAULT now()
);
