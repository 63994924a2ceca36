-- Intents with everything that comes with them. One that another signer's transaction was faster with is left out, with
-- its company, and not answered. ("IS TRUE": looked up in a table of hashes, where a join would be one of loops.)
WITH entered AS (
    INSERT INTO journal (
        id, serial, kind, order_id, new_order, directory, account, issuer, profile, shard, spki_sha256, csr_sha256,
        not_before, not_after, tbs, created_at, mac_version, mac, name_count, replaces,
        counted)
    SELECT * FROM UNNEST(
        $1::bigint[], $2::bytea[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::bigint[], $11::bytea[], $12::bytea[], $13::bigint[], $14::bigint[], $15::bytea[], $16::bigint[],
        $17::bigint[], $18::bytea[], $19::bigint[], $29::bytea[], $30::boolean[])
    ON CONFLICT DO NOTHING
    RETURNING id
), waiting AS (
    INSERT INTO pending (entry, owner, lease_until_ms)
    SELECT i.id, $20, now_ms() + i.lease
    FROM UNNEST($1::bigint[], $21::bigint[]) AS i (id, lease)
    WHERE (i.id IN (SELECT id FROM entered)) IS TRUE
), proven AS (
    INSERT INTO evidence (entry, new_order, finalize, receipts, lints)
    SELECT e.id, e.new_order, e.finalize, e.receipts, e.lints
    FROM UNNEST($22::bigint[], $23::bytea[], $24::bytea[], $25::bytea[], $26::bytea[])
             AS e (id, new_order, finalize, receipts, lints)
    WHERE (e.id IN (SELECT id FROM entered)) IS TRUE
), named AS (
    INSERT INTO journal_names (name, entry)
    SELECT n.name, n.id
    FROM UNNEST($27::bigint[], $28::text[]) AS n (id, name)
    WHERE (n.id IN (SELECT id FROM entered)) IS TRUE
), owned AS (
    INSERT INTO journal_domains (domain, created_at, entry)
    SELECT d.domain, d.created_at, d.id
    FROM UNNEST($31::bigint[], $32::text[], $33::bigint[]) AS d (id, domain, created_at)
    WHERE (d.id IN (SELECT id FROM entered)) IS TRUE
)
SELECT id AS "id!" FROM entered
