//! Tenants, directories, profiles, issuers: a signer that finds one of them changed does not start.

use super::alter::{another, columns};
use crate::front::scene::Scene;
use crate::support::Database;

/// Each column in turn, and a row that was put in. The signer is down before and after.
pub(super) async fn judge(scene: &mut Scene, database: &Database) -> Vec<String> {
    let mut faults = Vec::new();
    for (table, key) in [("tenants", "id"), ("directories", "name"), ("profiles", "name"), ("issuers", "id")]
    {
        let first = database.texts(format!("SELECT min({key}) FROM {table}")).await.remove(0);
        for column in columns(database, table).await {
            let row = format!("{key} = '{first}'");
            let before =
                database.texts(format!("SELECT quote({column}) FROM {table} WHERE {row}")).await.remove(0);
            let sql = format!("UPDATE {table} SET {column} = {} WHERE {row}", another(table, &column));
            assert_eq!(database.run(sql).await, 1);
            faults.extend(does_not_start(scene, database, table, &column).await);
            let changed = if column == key { format!("{key} = '{first}x'") } else { row };
            let sql = format!("UPDATE {table} SET {column} = {before} WHERE {changed}");
            assert_eq!(database.run(sql).await, 1);
        }
        // A row of its own, with the MAC of another.
        let all = database.columns(table).await;
        let values: Vec<_> = all
            .iter()
            .map(|column| if column == key { "'evil'".to_owned() } else { column.clone() })
            .collect();
        let sql =
            format!("INSERT INTO {table} SELECT {} FROM {table} WHERE {key} = '{first}'", values.join(", "));
        assert_eq!(database.run(sql).await, 1);
        faults.extend(does_not_start(scene, database, table, "(inserted)").await);
        assert_eq!(database.run(format!("DELETE FROM {table} WHERE {key} = 'evil'")).await, 1);
    }
    // With everything as it was, it starts.
    scene.system.start_signer();
    scene.system.until_it_answers().await;
    scene.system.stop_signer();
    faults
}

async fn does_not_start(scene: &mut Scene, database: &Database, table: &str, column: &str) -> Option<String> {
    let count =
        format!("SELECT count(*) FROM audit WHERE kind = 'row.tampered' AND detail LIKE '%\"{table}\"%'");
    let before = database.number(count.clone()).await;
    scene.system.start_signer();
    let ended = scene.system.ends_by_itself();
    let log = scene.system.logged();
    let said = log.lines().last().unwrap_or_default();
    let named = said.contains(&format!("of table {table} ")) && database.number(count).await == before + 1;
    (!ended || !named).then(|| format!("{table}.{column}: the signer ended: {ended}, and said {said:?}"))
}
