INSERT INTO journal (
    id, serial, kind, order_id, new_order, directory, account, issuer, profile, shard, spki_sha256,
    csr_sha256, not_before, not_after, tbs, created_at, mac_version, mac, owner,
    lease_until_ms, name_count, replaces, counted)
SELECT r.value ->> 0, substr(?, r.value ->> 1, r.value ->> 2), r.value ->> 3, r.value ->> 4,
       substr(?, r.value ->> 5, r.value ->> 6), r.value ->> 7, r.value ->> 8, r.value ->> 9,
       r.value ->> 10, r.value ->> 11, substr(?, r.value ->> 12, r.value ->> 13),
       substr(?, r.value ->> 14, r.value ->> 15), r.value ->> 16, r.value ->> 17,
       substr(?, r.value ->> 18, r.value ->> 19), r.value ->> 20,
       r.value ->> 21, substr(?, r.value ->> 22, r.value ->> 23), ?,
       CAST(unixepoch('subsec') * 1000 AS INTEGER) + (r.value ->> 24), r.value ->> 25,
       substr(?, r.value ->> 26, r.value ->> 27), r.value ->> 28
FROM json_each(?) AS r;

INSERT INTO evidence (entry, new_order, finalize, receipts, lints)
SELECT r.value ->> 0, substr(?, r.value ->> 1, r.value ->> 2), substr(?, r.value ->> 3, r.value ->> 4),
       substr(?, r.value ->> 5, r.value ->> 6), substr(?, r.value ->> 7, r.value ->> 8)
FROM json_each(?) AS r;

INSERT INTO journal_names (name, entry) SELECT r.value ->> 0, r.value ->> 1 FROM json_each(?) AS r;

INSERT INTO journal_domains (domain, created_at, entry)
SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2 FROM json_each(?) AS r;
