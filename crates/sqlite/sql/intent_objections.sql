-- What speaks against intents, by their number in the round; and (what = 0) the newest entry.
-- Rows of `i`: kind, order, newOrder digest (octets), serial (octets), key (octets), JWK thumbprint (octets), replaced
-- serial (octets).
SELECT number AS "number!: i64", what AS "what!: i64", place AS "place!: i64"
FROM (
    SELECT 0 AS number, 0 AS what, coalesce(max(id), 0) AS place FROM journal
    UNION ALL
    SELECT i.key, 1, j.id
    FROM json_each(?) AS i CROSS JOIN journal AS j
    WHERE j.order_id = i.value ->> 1 AND j.kind = i.value ->> 0 AND j.abandoned_at IS NULL
    UNION ALL
    SELECT i.key, 2, j.id
    FROM json_each(?) AS i CROSS JOIN journal AS j
    WHERE j.new_order = substr(?, i.value ->> 2, i.value ->> 3) AND j.kind = i.value ->> 0
      AND j.abandoned_at IS NULL
    UNION ALL
    -- A precertificate and its final share a serial and an order.
    SELECT i.key, 3, j.id
    FROM json_each(?) AS i CROSS JOIN journal AS j
    WHERE j.serial = substr(?, i.value ->> 4, i.value ->> 5)
      AND (j.kind = i.value ->> 0 OR j.order_id IS NULL OR j.order_id IS NOT i.value ->> 1)
    UNION ALL
    SELECT i.key, 9, j.id
    FROM json_each(?) AS i CROSS JOIN journal AS j
    WHERE j.replaces = substr(?, i.value ->> 10, i.value ->> 11) AND j.kind = i.value ->> 0
      AND j.abandoned_at IS NULL
    UNION ALL
    -- Entries that do not count, unless the intent names them. Rows of `p`: intent, MAC (octets).
    SELECT i.key, 4, 0
    FROM json_each(?) AS i CROSS JOIN journal AS j
    WHERE j.order_id = i.value ->> 1 AND j.abandoned_at IS NOT NULL
      AND NOT EXISTS (
            SELECT 1 FROM json_each(?) AS p
            WHERE p.value ->> 0 = i.key AND j.mac = substr(?, p.value ->> 1, p.value ->> 2))
    UNION ALL
    SELECT i.key, 4, 0
    FROM json_each(?) AS i CROSS JOIN journal AS j
    WHERE j.order_id = i.value ->> 1 AND j.abandoned_at IS NULL AND j.kind <> i.value ->> 0
      AND NOT EXISTS (
            SELECT 1 FROM json_each(?) AS p
            WHERE p.value ->> 0 = i.key AND j.mac = substr(?, p.value ->> 1, p.value ->> 2))
    UNION ALL
    SELECT i.key, 5, 0
    FROM json_each(?) AS i CROSS JOIN blocked_keys AS b
    WHERE b.spki_sha256 = substr(?, i.value ->> 6, i.value ->> 7)
    UNION ALL
    SELECT i.key, 6, 0
    FROM json_each(?) AS i CROSS JOIN account_keys AS k
    WHERE k.thumbprint = substr(?, i.value ->> 8, i.value ->> 9)
    UNION ALL
    -- Rows of `c`: intent, place, table, key, MAC (octets).
    SELECT c.value ->> 0, 7, c.value ->> 1
    FROM json_each(?) AS c
    WHERE NOT CASE c.value ->> 2
        WHEN 'accounts' THEN EXISTS (
            SELECT 1 FROM accounts
            WHERE id = c.value ->> 3 AND mac = substr(?, c.value ->> 4, c.value ->> 5))
        WHEN 'registrations' THEN EXISTS (
            SELECT 1 FROM registrations
            WHERE id = c.value ->> 3 AND mac = substr(?, c.value ->> 4, c.value ->> 5))
        WHEN 'eab_keys' THEN EXISTS (
            SELECT 1 FROM eab_keys
            WHERE kid = c.value ->> 3 AND mac = substr(?, c.value ->> 4, c.value ->> 5))
        WHEN 'permits' THEN EXISTS (
            SELECT 1 FROM permits
            WHERE id = c.value ->> 3 AND mac = substr(?, c.value ->> 4, c.value ->> 5))
        WHEN 'grants' THEN EXISTS (
            SELECT 1 FROM grants
            WHERE id = c.value ->> 3 AND mac = substr(?, c.value ->> 4, c.value ->> 5))
        WHEN 'directories' THEN EXISTS (
            SELECT 1 FROM directories
            WHERE name = c.value ->> 3 AND mac = substr(?, c.value ->> 4, c.value ->> 5))
        WHEN 'profiles' THEN EXISTS (
            SELECT 1 FROM profiles
            WHERE name = c.value ->> 3 AND mac = substr(?, c.value ->> 4, c.value ->> 5))
        WHEN 'issuers' THEN EXISTS (
            SELECT 1 FROM issuers
            WHERE id = c.value ->> 3 AND mac = substr(?, c.value ->> 4, c.value ->> 5))
        ELSE 0
    END
    UNION ALL
    -- Rows of `a`: intent, place, authorization.
    SELECT a.value ->> 0, 8, a.value ->> 1
    FROM json_each(?) AS a CROSS JOIN deactivations AS d
    WHERE d.authorization_id = a.value ->> 2
)
