-- The limits that are reached, each with the time of the entry that has to leave its period before there is room again:
-- intents, places, kinds of scope, scopes, since when, how many, directories. Names of a scope are
-- separated by commas.
SELECT q.number AS "number!", q.place AS "place!", found.oldest AS "oldest!"
FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
            $7::text[])
         AS q (number, place, kind, scope, since, most, directory)
CROSS JOIN LATERAL (
    SELECT count(*) AS entries, min(latest.created_at) AS oldest FROM (
        (SELECT j.created_at FROM journal AS j
         WHERE q.kind = 'account' AND substr(j.account, 1, 12) = substr(q.scope, 1, 12) AND j.account = q.scope
           AND j.created_at >= q.since AND j.kind = 'final' AND j.abandoned_at IS NULL AND j.counted
           AND j.directory = q.directory
         ORDER BY j.created_at DESC LIMIT q.most)
        UNION ALL
        (SELECT j.created_at FROM accounts AS a
            JOIN journal AS j ON substr(j.account, 1, 12) = substr(a.id, 1, 12) AND j.account = a.id
         WHERE q.kind = 'registration' AND a.registration = q.scope
           AND j.created_at >= q.since AND j.kind = 'final' AND j.abandoned_at IS NULL AND j.counted
           AND j.directory = q.directory
         ORDER BY j.created_at DESC LIMIT q.most)
        UNION ALL
        (SELECT d.created_at FROM journal_domains AS d JOIN journal AS j ON j.id = d.entry
         WHERE q.kind = 'domain' AND d.domain = q.scope AND d.created_at >= q.since
           AND j.kind = 'final' AND j.abandoned_at IS NULL AND j.counted AND j.directory = q.directory
         ORDER BY d.created_at DESC LIMIT q.most)
        UNION ALL
        -- Those of the first name that have as many names, all among them.
        (SELECT j.created_at FROM journal_names AS n JOIN journal AS j ON j.id = n.entry
         WHERE q.kind = 'names' AND n.name = split_part(q.scope, ',', 1)
           AND j.name_count = cardinality(string_to_array(q.scope, ','))
           AND j.created_at >= q.since AND j.kind = 'final' AND j.abandoned_at IS NULL AND j.counted
           AND j.directory = q.directory
           AND NOT EXISTS (
             SELECT 1 FROM UNNEST(string_to_array(q.scope, ',')) AS wanted (name)
             WHERE NOT EXISTS (
                 SELECT 1 FROM journal_names AS has WHERE has.name = wanted.name AND has.entry = j.id))
         ORDER BY j.created_at DESC LIMIT q.most)) AS latest) AS found
WHERE found.entries >= q.most
ORDER BY q.number, q.place
