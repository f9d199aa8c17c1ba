//! A self-signed certificate for servers on loopback.

use std::path::Path;

use anyhow::Result;

use crate::process;

/// Writes `tls.key` and `tls.crt` for `localhost` into a folder.
///
/// # Errors
/// When OpenSSL is missing or fails.
pub async fn make(dir: &Path) -> Result<()> {
    let mut command = process::command("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-nodes", "-days", "30", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    command.arg("-keyout").arg(dir.join("tls.key")).arg("-out").arg(dir.join("tls.crt"));
    process::run(command).await.map(drop)
}
