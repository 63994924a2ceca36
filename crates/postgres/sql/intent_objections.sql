-- What speaks against intents, by their number in the round; and (what = 0) ids for those that nothing speaks against.
-- Intents: kinds, orders, newOrder digests, serials, keys, JWK thumbprints, ($17) replaced serials. Citations: intents, places, tables, keys, MACs. Authorizations:
-- intents, places, ids. Past: intents, MACs. ("OFFSET 0": one look into an index each, never a join that reads the whole of it.)
WITH i AS (
    SELECT * FROM UNNEST($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $17::bytea[])
        WITH ORDINALITY AS i (kind, order_id, new_order, serial, spki_sha256, account_key, replaces, number)
)
SELECT number - 1 AS "number!", 0 AS "what!", nextval('journal_id_seq') AS "place!" FROM i
UNION ALL
SELECT i.number - 1, 1, j.id
FROM i CROSS JOIN LATERAL (
    SELECT id FROM journal WHERE order_id = i.order_id AND kind = i.kind AND abandoned_at IS NULL OFFSET 0) AS j
UNION ALL
SELECT i.number - 1, 2, j.id
FROM i CROSS JOIN LATERAL (
    SELECT id FROM journal WHERE new_order = i.new_order AND kind = i.kind AND abandoned_at IS NULL OFFSET 0) AS j
UNION ALL
-- A precertificate and its final share a serial and an order.
SELECT i.number - 1, 3, j.id
FROM i CROSS JOIN LATERAL (SELECT id, kind, order_id FROM journal WHERE serial = i.serial OFFSET 0) AS j
WHERE j.kind = i.kind OR j.order_id IS NULL OR j.order_id IS DISTINCT FROM i.order_id
UNION ALL
SELECT i.number - 1, 9, j.id
FROM i CROSS JOIN LATERAL (
    SELECT id FROM journal WHERE replaces = i.replaces AND kind = i.kind AND abandoned_at IS NULL OFFSET 0) AS j
UNION ALL
-- Entries that do not count, unless the intent names them.
SELECT i.number - 1, 4, 0
FROM i CROSS JOIN LATERAL (
    SELECT id, mac FROM journal WHERE order_id = i.order_id AND abandoned_at IS NOT NULL OFFSET 0) AS j
WHERE NOT EXISTS (
    SELECT 1 FROM UNNEST($15::bigint[], $16::bytea[]) AS p (number, mac)
    WHERE p.number = i.number - 1 AND p.mac = j.mac)
UNION ALL
SELECT i.number - 1, 4, 0
FROM i CROSS JOIN LATERAL (
    SELECT id, mac, kind FROM journal WHERE order_id = i.order_id AND abandoned_at IS NULL OFFSET 0) AS j
     LEFT JOIN signatures AS s ON s.entry = j.id
WHERE j.kind <> i.kind AND NOT EXISTS (
    SELECT 1 FROM UNNEST($15::bigint[], $16::bytea[]) AS p (number, mac)
    WHERE p.number = i.number - 1 AND p.mac = coalesce(s.mac, j.mac))
UNION ALL
SELECT i.number - 1, 5, 0
FROM i CROSS JOIN LATERAL (SELECT 1 FROM blocked_keys WHERE spki_sha256 = i.spki_sha256 OFFSET 0) AS b
UNION ALL
SELECT i.number - 1, 6, 0
FROM i CROSS JOIN LATERAL (SELECT 1 FROM account_keys WHERE thumbprint = i.account_key LIMIT 1) AS k
UNION ALL
SELECT c.number, 7, c.place
FROM UNNEST($7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::bytea[]) AS c (number, place, cited, key, mac)
WHERE NOT CASE c.cited
    WHEN 'accounts' THEN EXISTS (SELECT 1 FROM accounts AS t WHERE t.id = c.key AND t.mac = c.mac)
    WHEN 'registrations' THEN EXISTS (SELECT 1 FROM registrations AS t WHERE t.id = c.key AND t.mac = c.mac)
    WHEN 'eab_keys' THEN EXISTS (SELECT 1 FROM eab_keys AS t WHERE t.kid = c.key AND t.mac = c.mac)
    WHEN 'permits' THEN EXISTS (SELECT 1 FROM permits AS t WHERE t.id = c.key AND t.mac = c.mac)
    WHEN 'grants' THEN EXISTS (SELECT 1 FROM grants AS t WHERE t.id = c.key AND t.mac = c.mac)
    WHEN 'directories' THEN EXISTS (SELECT 1 FROM directories AS t WHERE t.name = c.key AND t.mac = c.mac)
    WHEN 'profiles' THEN EXISTS (SELECT 1 FROM profiles AS t WHERE t.name = c.key AND t.mac = c.mac)
    WHEN 'issuers' THEN EXISTS (SELECT 1 FROM issuers AS t WHERE t.id = c.key AND t.mac = c.mac)
    ELSE FALSE
END
UNION ALL
SELECT a.number, 8, a.place
FROM UNNEST($12::bigint[], $13::bigint[], $14::text[]) AS a (number, place, id)
     JOIN deactivations AS d ON d.authorization_id = a.id
