//! Migrations: applied by the owner of the schema, checked by everyone who opens it.

use sqlx::{
    Connection, Executor, PgConnection,
    migrate::{Migrate, Migrator},
};

use crate::{
    Options,
    failure::{Cause, Failure},
    options::connect,
};

/// Applies what is missing, after making the schema if there is none.
pub(crate) async fn migrate(
    mut migrations: Migrator,
    schema: &'static str,
    options: &Options,
) -> Result<Applied, Failure> {
    let mut connection = connect(&options.migrating(schema)).await?;
    // A schema that is there may be one that this owner could not have made.
    let exists =
        sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)")
            .bind(schema)
            .fetch_one(&mut connection)
            .await?;
    if !exists {
        let create = match schema {
            "ca" => "CREATE SCHEMA IF NOT EXISTS ca",
            _ => "CREATE SCHEMA IF NOT EXISTS acme",
        };
        connection.execute(create).await?;
    }
    let before = applied(&mut connection).await.unwrap_or(0);
    // Not `run`: its future is not `Send` for all lifetimes.
    let run = migrations.set_ignore_missing(true).run_direct(None, &mut connection, false).await;
    run.map_err(Failure::of_migration)?;
    let now = applied(&mut connection).await?;
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the session of a migration did not close well");
    }
    Ok(Applied { before, now })
}

/// What a migration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The schema's version before; 0 for none.
    pub before: i64,
    /// The schema's version now.
    pub now: i64,
}

/// Whether the schema is what this program knows. A program tolerates a schema that is one migration ahead of it, which is
/// what migrations are written for; not more (DESIGN §5).
pub(crate) async fn check(
    migrations: &Migrator,
    schema: &'static str,
    connection: &mut PgConnection,
) -> Result<(), Failure> {
    let there = sqlx::query_scalar::<_, bool>("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    let refuse = |unfit: Unfit| Failure::Schema(Cause::new(unfit));
    let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    if !there {
        return Err(refuse(Unfit::Missing { schema }));
    }
    let all = connection.list_applied_migrations("_sqlx_migrations").await.map_err(Failure::of_migration)?;
    let applied = all.iter().map(|migration| migration.version).max().unwrap_or(0);
    if applied < known {
        return Err(refuse(Unfit::Old { schema, applied, known }));
    }
    if applied > known + 1 {
        return Err(refuse(Unfit::New { schema, applied, known }));
    }
    for migration in migrations.iter() {
        let same = all
            .iter()
            .any(|other| other.version == migration.version && other.checksum == migration.checksum);
        if !same {
            return Err(refuse(Unfit::Changed { schema, version: migration.version }));
        }
    }
    Ok(())
}

async fn applied(connection: &mut PgConnection) -> Result<i64, Failure> {
    Ok(sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await?)
}

#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(
        "the database has no schema `{schema}`, or this role may not use it: \
         run `chancery database migrate` with the URL of the schema's owner"
    )]
    Missing { schema: &'static str },
    #[error(
        "the schema `{schema}` has migration {applied}, this program needs {known}: \
         run `chancery database migrate` with the URL of the schema's owner"
    )]
    Old { schema: &'static str, applied: i64, known: i64 },
    #[error("the schema `{schema}` has migration {applied}, this program knows up to {known}")]
    New { schema: &'static str, applied: i64, known: i64 },
    #[error("migration {version} of the schema `{schema}` is not the one of this program")]
    Changed { schema: &'static str, version: i64 },
}
