//! What has become of members.

use std::collections::BTreeMap;

use ca_store::{FollowMembers, IncidentMember, MemberState, Serial};
use sqlx::PgConnection;

use super::{Context, MEMBERS, StoredMember};
use crate::{failure::Failure, stored::seconds, writer::Change};

/// A member as it was stored, and as it is seen now.
struct Followed {
    serial: Vec<u8>,
    account: String,
    wave: i64,
    before: String,
    state: String,
}

/// A member as it is to be noted.
pub(in crate::ca) struct Looked {
    before: MemberState,
    pub(in crate::ca) member: IncidentMember,
}

impl Followed {
    fn looked(self, again: bool) -> Result<Looked, Failure> {
        let before = MEMBERS.word("state", &self.before, MemberState::from_word)?;
        let stored =
            StoredMember { serial: self.serial, account: self.account, wave: self.wave, state: self.state };
        let mut member = stored.member()?;
        member.state = before.noted(member.state, again);
        Ok(Looked { before, member })
    }
}

/// Looks for [`follow_members`](ca_store::CaStore::follow_members): reads alone.
pub(in crate::ca) async fn look(
    connection: &mut PgConnection,
    follow: &FollowMembers,
) -> Result<Vec<Looked>, Failure> {
    let FollowMembers { incident, serials, again, source, now } = follow;
    let serials: Vec<&[u8]> = serials.iter().map(Serial::as_bytes).collect();
    // One look into an index for each table of each member, never a join that reads the whole of one (`OFFSET 0`
    // and values instead of EXISTS leave the planner no other way). The names of a member
    // choose the shortest list of later certificates, of which the newest are looked at (`NEWEST_LOOKED_AT`): members that
    // share a name do not look at each other without end.
    let rows = sqlx::query_as!(
        Followed,
        r#"SELECT m.serial, m.account, m.wave, m.state AS before,
                  CASE WHEN m.state = 'left' OR $5 AND m.state IN ('replaced', 'renewed') THEN coalesce((
                 SELECT CASE
                    WHEN r.serial IS NOT NULL AND q.source = $2 THEN 'revoked'
                    WHEN r.serial IS NOT NULL THEN 'revoked-otherwise'
                    ELSE coalesce(CASE (
                        SELECT bool_or(s.replaces IS NOT DISTINCT FROM m.serial)
                        FROM (SELECT x.id FROM journal AS x
                              WHERE x.replaces = m.serial AND x.abandoned_at IS NULL
                              UNION ALL
                              SELECT l.entry FROM (
                                SELECT n.entry FROM journal_names AS n
                                WHERE n.entry > j.id AND n.name = (
                                    SELECT w.name FROM UNNEST(m.names) AS w (name)
                                    ORDER BY (
                                        SELECT count(*) FROM (
                                            SELECT 1 FROM journal_names AS p
                                            WHERE p.name = w.name AND p.entry > j.id LIMIT 51) AS p)
                                    LIMIT 1)
                                ORDER BY n.entry DESC LIMIT 50) AS l) AS c
                             CROSS JOIN LATERAL (
                                SELECT e.id, e.issuer, e.shard, e.serial, e.replaces FROM journal AS e
                                WHERE e.id = c.id AND e.account = m.account AND e.kind = 'final'
                                  AND e.abandoned_at IS NULL AND e.not_after >= $3 OFFSET 0) AS s
                        WHERE (SELECT g.signed_at FROM signatures AS g WHERE g.entry = s.id) IS NOT NULL
                          AND cardinality(m.names) > 0
                          AND NOT EXISTS (
                            SELECT 1 FROM UNNEST(m.names) AS w (name) WHERE (
                                SELECT h.entry FROM journal_names AS h
                                WHERE h.name = w.name AND h.entry = s.id) IS NULL)
                          AND (
                            SELECT v.revision FROM revocations AS v
                            WHERE v.issuer = s.issuer AND v.shard = s.shard AND v.serial = s.serial) IS NULL
                          AND (
                            SELECT o.wave FROM incident_members AS o
                            WHERE o.incident = m.incident AND o.serial = s.serial) IS NULL)
                        WHEN true THEN 'replaced' WHEN false THEN 'renewed' END,
                        CASE WHEN j.not_after < $3 THEN 'expired' END)
                 END
                 FROM journal AS j
                      LEFT JOIN revocations AS r
                          ON r.issuer = j.issuer AND r.shard = j.shard AND r.serial = j.serial
                      LEFT JOIN revocation_requests AS q ON q.serial = r.serial AND NOT q.upgrade
                 WHERE j.serial = m.serial AND j.kind <> 'pre' LIMIT 1), 'left') ELSE m.state END AS "state!"
           FROM incident_members AS m WHERE m.incident = $1 AND m.serial = ANY($4) ORDER BY m.serial"#,
        incident,
        source,
        seconds(*now),
        &serials as &[&[u8]],
        *again
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| row.looked(*again)).collect()
}

/// Notes what was seen, where it is another thing than before.
pub(in crate::ca) struct Note {
    incident: String,
    changes: BTreeMap<(MemberState, MemberState), Vec<Serial>>,
}

impl Note {
    /// None where nothing has changed.
    pub(in crate::ca) fn of(incident: &str, looked: &[Looked]) -> Option<Self> {
        let mut changes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Looked { before, member } in looked.iter().filter(|looked| looked.before != looked.member.state) {
            changes.entry((*before, member.state)).or_default().push(member.serial);
        }
        (!changes.is_empty()).then(|| Self { incident: incident.to_owned(), changes })
    }
}

impl Change<Context> for Note {
    type Outcome = ();

    async fn apply(&self, connection: &mut PgConnection, _: &mut Context) -> Result<(), Failure> {
        for ((before, state), serials) in &self.changes {
            let (before, state) = (before.as_str(), state.as_str());
            let serials: Vec<&[u8]> = serials.iter().map(Serial::as_bytes).collect();
            // What somebody else has noted meanwhile stays.
            sqlx::query!(
                "UPDATE incident_members SET state = $2
                 WHERE incident = $1 AND state = $3 AND serial = ANY($4)",
                self.incident,
                state,
                before,
                &serials as &[&[u8]]
            )
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}
