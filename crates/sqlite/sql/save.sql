-- Rows of orders: row, status, state (octets), expiry, lease, version. A long state is kept apart.
UPDATE orders SET status = s.status, state = s.state, expires_at = s.expires_at,
       lease_until_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER) + s.lease, version = s.version
FROM (SELECT r.value ->> 0 AS place, r.value ->> 1 AS status,
             CASE WHEN r.value ->> 3 <= ? THEN CAST(substr(?, r.value ->> 2, r.value ->> 3) AS TEXT) END AS state,
             r.value ->> 4 AS expires_at, r.value ->> 5 AS lease, r.value ->> 6 AS version
      FROM json_each(?) AS r) AS s
WHERE orders.row = s.place;

DELETE FROM order_states
WHERE order_row IN (SELECT r.value ->> 0 FROM json_each(?) AS r WHERE r.value ->> 3 <= ?);

INSERT OR REPLACE INTO order_states (order_row, state)
SELECT r.value ->> 0, CAST(substr(?, r.value ->> 2, r.value ->> 3) AS TEXT)
FROM json_each(?) AS r
WHERE r.value ->> 3 > ?;

-- Rows of authorizations: row, status, state (octets), expiry, version.
UPDATE authorizations SET status = s.status, state = s.state, expires_at = s.expires_at, version = s.version
FROM (SELECT r.value ->> 0 AS place, r.value ->> 1 AS status,
             CAST(substr(?, r.value ->> 2, r.value ->> 3) AS TEXT) AS state,
             r.value ->> 4 AS expires_at, r.value ->> 5 AS version
      FROM json_each(?) AS r) AS s
WHERE authorizations.rowid = s.place;
