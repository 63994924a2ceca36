-- The first signature of each entry that can have one: who takes the entry out of `pending` writes it.
WITH s AS (
    SELECT * FROM UNNEST($1::bytea[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[])
        AS s (serial, kind, signature, signed_at, mac_version, mac)
), taken AS (
    DELETE FROM pending USING s JOIN journal AS j ON j.serial = s.serial AND j.kind = s.kind
    WHERE pending.entry = j.id AND s.signature IS NOT NULL
    RETURNING pending.entry, s.serial, s.kind, s.signature, s.signed_at, s.mac_version, s.mac
), recorded AS (
    INSERT INTO signatures (entry, signed_at, mac_version, signature, mac)
    SELECT entry, signed_at, mac_version, signature, mac FROM taken
)
SELECT serial AS "serial!", kind AS "kind!" FROM taken
