//! What has become of members.

use std::collections::BTreeMap;

use ca_store::{FollowMembers, IncidentMember, MemberState, Serial};
use sqlx::SqliteConnection;

use super::{Context, MEMBERS, StoredMember};
use crate::{failure::Failure, rows::Rows, stored::seconds, writer::Change};

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
    connection: &mut SqliteConnection,
    follow: &FollowMembers,
) -> Result<Vec<Looked>, Failure> {
    let FollowMembers { incident, serials, again, source, now } = follow;
    let (json, octets) = list_of(serials.iter());
    // One look into an index for each table of each member, never a join that reads the whole of one. The names of a member
    // choose the shortest list of later certificates, of which the newest are looked at (`NEWEST_LOOKED_AT`): members that
    // share a name do not look at each other without end.
    let rows = sqlx::query_as!(
        Followed,
        r#"SELECT m.serial AS "serial!", m.account AS "account!", m.wave AS "wave!", m.state AS "before!",
                  CASE WHEN m.state = 'left' OR ?6 AND m.state IN ('replaced', 'renewed') THEN coalesce((
                 SELECT CASE
                    WHEN r.serial IS NOT NULL AND q.source = ?2 THEN 'revoked'
                    WHEN r.serial IS NOT NULL THEN 'revoked-otherwise'
                    ELSE coalesce(CASE (
                        SELECT max(s.replaces IS m.serial)
                        FROM (SELECT x.id FROM journal AS x
                              WHERE x.replaces = m.serial AND x.abandoned_at IS NULL
                              UNION ALL
                              SELECT l.entry FROM (
                                SELECT n.entry FROM journal_names AS n
                                WHERE n.entry > j.id AND n.name = (
                                    SELECT b.name FROM (
                                        SELECT w.value AS name, (
                                            SELECT count(*) FROM (
                                                SELECT 1 FROM journal_names AS p
                                                WHERE p.name = w.value AND p.entry > j.id LIMIT 51)) AS later
                                        FROM json_each(m.names) AS w) AS b
                                    ORDER BY b.later LIMIT 1)
                                ORDER BY n.entry DESC LIMIT 50) AS l) AS c
                             CROSS JOIN journal AS s ON s.id = c.id
                        WHERE s.account = m.account AND s.kind = 'final' AND s.abandoned_at IS NULL
                          AND s.signature IS NOT NULL AND s.not_after >= ?3 AND json_array_length(m.names) > 0
                          AND NOT EXISTS (
                            SELECT 1 FROM json_each(m.names) AS w WHERE NOT EXISTS (
                                SELECT 1 FROM journal_names AS h WHERE h.name = w.value AND h.entry = s.id))
                          AND NOT EXISTS (
                            SELECT 1 FROM revocations AS v
                            WHERE v.issuer = s.issuer AND v.shard = s.shard AND v.serial = s.serial)
                          AND NOT EXISTS (
                            SELECT 1 FROM incident_members AS o
                            WHERE o.incident = m.incident AND o.serial = s.serial))
                        WHEN 1 THEN 'replaced' WHEN 0 THEN 'renewed' END,
                        CASE WHEN j.not_after < ?3 THEN 'expired' END)
                 END
                 FROM journal AS j
                      LEFT JOIN revocations AS r
                          ON r.issuer = j.issuer AND r.shard = j.shard AND r.serial = j.serial
                      LEFT JOIN revocation_requests AS q ON q.serial = r.serial AND q.upgrade = 0
                 WHERE j.serial = m.serial AND j.kind <> 'pre' LIMIT 1), 'left') ELSE m.state END AS "state!: String"
           FROM json_each(?4) AS a CROSS JOIN incident_members AS m
               ON m.incident = ?1 AND m.serial = substr(?5, a.value ->> 0, a.value ->> 1)
           ORDER BY m.serial"#,
        incident,
        source,
        seconds(*now),
        json,
        octets,
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

    async fn apply(&self, connection: &mut SqliteConnection, _: &mut Context) -> Result<(), Failure> {
        for ((before, state), serials) in &self.changes {
            let (before, state) = (before.as_str(), state.as_str());
            let (json, octets) = list_of(serials.iter());
            // What somebody else has noted meanwhile stays.
            sqlx::query!(
                "UPDATE incident_members SET state = ?2
                 WHERE incident = ?1 AND state = ?3
                   AND serial IN (SELECT substr(?5, a.value ->> 0, a.value ->> 1) FROM json_each(?4) AS a)",
                self.incident,
                state,
                before,
                json,
                octets
            )
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

/// Serials as arguments of a statement.
fn list_of<'a>(serials: impl Iterator<Item = &'a Serial>) -> (String, Vec<u8>) {
    let mut rows = Rows::new();
    serials.for_each(|serial| _ = rows.row().octets(serial.as_bytes()));
    rows.finish()
}
