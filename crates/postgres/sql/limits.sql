-- The first limit of each intent that is reached: intents, places, kinds of scope, scopes, since when, how many. Names of
-- a scope are separated by commas.
SELECT q.number AS "number!", min(q.place) AS "place!"
FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
         AS q (number, place, kind, scope, since, most)
WHERE q.most <= CASE q.kind
    WHEN 'account' THEN (
        SELECT count(*) FROM (
            SELECT 1 FROM journal AS j
            WHERE substr(j.account, 1, 12) = substr(q.scope, 1, 12) AND j.account = q.scope AND j.created_at >= q.since
              AND j.kind = 'final' AND j.abandoned_at IS NULL
            LIMIT q.most) AS found)
    WHEN 'registration' THEN (
        SELECT count(*) FROM (
            SELECT 1 FROM accounts AS a
                JOIN journal AS j ON substr(j.account, 1, 12) = substr(a.id, 1, 12) AND j.account = a.id
            WHERE a.registration = q.scope AND j.created_at >= q.since AND j.kind = 'final' AND j.abandoned_at IS NULL
            LIMIT q.most) AS found)
    WHEN 'domain' THEN (
        SELECT count(*) FROM (
            SELECT DISTINCT n.entry FROM journal_names AS n JOIN journal AS j ON j.id = n.entry
            WHERE n.name >= q.scope AND n.name < q.scope || '/'
              AND (n.name = q.scope OR substr(n.name, length(q.scope) + 1, 1) = '.')
              AND j.created_at >= q.since AND j.kind = 'final' AND j.abandoned_at IS NULL
            LIMIT q.most) AS found)
    -- Those of the first name that have as many names, all among them.
    ELSE (
        SELECT count(*) FROM (
            SELECT 1 FROM journal_names AS n JOIN journal AS j ON j.id = n.entry
            WHERE n.name = split_part(q.scope, ',', 1) AND j.created_at >= q.since
              AND j.name_count = cardinality(string_to_array(q.scope, ','))
              AND j.kind = 'final' AND j.abandoned_at IS NULL
              AND NOT EXISTS (
                SELECT 1 FROM UNNEST(string_to_array(q.scope, ',')) AS wanted (name)
                WHERE NOT EXISTS (
                    SELECT 1 FROM journal_names AS has WHERE has.name = wanted.name AND has.entry = j.id))
            LIMIT q.most) AS found)
END
GROUP BY q.number
