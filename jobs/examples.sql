-- The tables of the jobs that README.md shows, beside those of its quick start: schemas shop_stg and shop, and shop.orders.

CREATE TABLE shop_stg.customers (op text, customer_id int, name text, email text);
CREATE TABLE shop_stg.closed_accounts (customer_id int PRIMARY KEY);
CREATE TABLE shop.customers (customer_id int PRIMARY KEY, name text, email text);
INSERT INTO shop.customers SELECT n, 'Customer ' || n FROM generate_series(1, 500) n;
INSERT INTO shop_stg.customers
  SELECT CASE WHEN n > 450 THEN 'I' ELSE 'U' END, n, 'Customer ' || n FROM generate_series(401, 600) n;
INSERT INTO shop_stg.closed_accounts SELECT n FROM generate_series(10, 1000, 10) n;

CREATE TABLE shop_stg.stock_movements (warehouse_id int, item_id int, delta int, PRIMARY KEY (warehouse_id, item_id));
CREATE TABLE shop.stock (warehouse_id int, item_id int, quantity int, PRIMARY KEY (warehouse_id, item_id));
INSERT INTO shop.stock SELECT w, i, 100 FROM generate_series(1, 4) w, generate_series(1, 500) i;
INSERT INTO shop_stg.stock_movements SELECT w, i, -1 FROM generate_series(1, 5) w, generate_series(1, 500) i;

CREATE TABLE shop_stg.invoices (invoice_no numeric, total numeric(12,2), note text, code char(6));
CREATE TABLE shop."Invoices" ("InvoiceNo" bigint PRIMARY KEY, total numeric(12,2), note text, code text);
INSERT INTO shop."Invoices" SELECT n, n, 'first', 'A' FROM generate_series(1, 600) n;
INSERT INTO shop_stg.invoices SELECT n, n, '', 'B' FROM generate_series(1, 1000) n;

CREATE TABLE shop_stg.prices (item_id int PRIMARY KEY, valid_from date, price numeric(12,2));
CREATE TABLE shop.prices (item_id int PRIMARY KEY, valid_from date, price numeric(12,2));
INSERT INTO shop_stg.prices SELECT n, DATE '2024-01-01' + n, n FROM generate_series(1, 500) n;

CREATE TABLE shop_stg.order_changes (op text, change_seq text, order_id bigint, status text, amount numeric(12,2));
CREATE INDEX ON shop_stg.order_changes (order_id);
ALTER TABLE shop.orders ADD last_change numeric(38), ADD deleted boolean DEFAULT false;
INSERT INTO shop_stg.order_changes SELECT op, seq, n, status, n
  FROM generate_series(1, 300) n, (VALUES ('U', '9', 'paid'), ('U', '10', 'sent')) change (op, seq, status);
INSERT INTO shop_stg.order_changes SELECT 'D', '11', n FROM generate_series(201, 300) n;
INSERT INTO shop_stg.order_changes SELECT 'I', '12', n, 'open', 1 FROM generate_series(200001, 200050) n;

CREATE TABLE shop_stg.payments (payment_id bigint PRIMARY KEY, amount text, loaded_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE shop_stg.refunds (payment_id bigint PRIMARY KEY, amount text);
CREATE TABLE shop.payments (payment_id bigint PRIMARY KEY, amount numeric(12,2) CHECK (amount <> 0), changed_at timestamptz);
CREATE TABLE shop.refunds (payment_id bigint PRIMARY KEY, amount numeric(12,2) CHECK (amount <> 0));
INSERT INTO shop.payments SELECT n, n FROM generate_series(1, 800) n;
INSERT INTO shop_stg.payments SELECT n, n FROM generate_series(501, 1000) n;
INSERT INTO shop_stg.refunds
  SELECT n, CASE n WHEN 7 THEN 'n/a' WHEN 8 THEN '0' ELSE n::text END FROM generate_series(1, 1000) n;
ANALYZE;
