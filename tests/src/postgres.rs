//! Databases on the PostgreSQL server that the suite starts.

use anyhow::{Context, Result};
use rand::Rng;

use crate::process;

/// Names the server's own database, as `postgres://user@host:port/name`.
const SERVER: &str = "GEPHYRA_TEST_POSTGRES";

/// Makes an empty database that nothing else uses; gives its address.
///
/// # Errors
/// When no server is named, or it refuses.
pub async fn new_database() -> Result<String> {
    let server = std::env::var(SERVER)
        .with_context(|| format!("{SERVER} names no server: run `cargo xtask test`"))?;
    let (host, _) =
        server.rsplit_once('/').with_context(|| format!("{SERVER} names no database"))?;
    let name = format!("gephyra_flow_{:016x}", rand::rngs::OsRng.r#gen::<u64>());
    let mut command = process::command("psql");
    command.args(["--quiet", "--no-psqlrc", "--dbname", &server]);
    command.args(["--command", &format!("CREATE DATABASE {name}")]);
    process::run(command).await?;
    Ok(format!("{host}/{name}"))
}
