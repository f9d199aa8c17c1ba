//! The link between XMPP server and bridge; the one to the homeserver is in [`crate::evil_hs`].

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The stretch between the XMPP server and the bridge, into which a test can put stanzas that the server itself would
/// not carry. It ends when it is dropped.
#[derive(Debug)]
pub struct XmppLink {
    stanzas: mpsc::Sender<String>,
    _end: DropGuard,
}

impl XmppLink {
    /// Listens on a port and carries one stream after the other to the server's port for components.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16, server_port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("binding the link")?;
        let (stanzas, mut injected) = mpsc::channel(1);
        let end = CancellationToken::new();
        let ended = end.clone();
        TaskTracker::new().spawn(async move {
            let carrying = async {
                while let Ok((bridge, _)) = listener.accept().await {
                    // A stream that breaks is followed by the next.
                    let _ = carry_stream(bridge, server_port, &mut injected).await;
                }
            };
            ended.run_until_cancelled(carrying).await
        });
        Ok(Self { stanzas, _end: end.drop_guard() })
    }

    /// Sends a stanza to the bridge as if it came from the server. Nothing else should be under way.
    ///
    /// # Errors
    /// When the link has ended.
    pub async fn inject(&self, stanza: String) -> Result<()> {
        self.stanzas.send(stanza).await.context("the link has ended")
    }
}

async fn carry_stream(
    mut bridge: TcpStream,
    server_port: u16,
    injected: &mut mpsc::Receiver<String>,
) -> Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server_port)).await?;
    let (mut from_bridge, mut to_bridge) = bridge.split();
    let (mut from_server, mut to_server) = server.split();
    let upwards = tokio::io::copy(&mut from_bridge, &mut to_server);
    let downwards = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                read = from_server.read(&mut buffer) => match buffer.get(..read?) {
                    Some([]) | None => return anyhow::Ok(()),
                    Some(bytes) => to_bridge.write_all(bytes).await?,
                },
                Some(stanza) = injected.recv() => to_bridge.write_all(stanza.as_bytes()).await?,
            }
        }
    };
    tokio::select! {
        copied = upwards => copied.map(drop).context("towards the server"),
        copied = downwards => copied,
    }
}
