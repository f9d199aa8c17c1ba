//! The link between XMPP server and bridge; the one to the homeserver is in [`crate::evil_hs`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The stretch between the XMPP server and the bridge. It keeps what it carries, and a test can put XML into it that
/// the server itself would not carry, or cut it. It ends when it is dropped.
#[derive(Debug)]
pub struct XmppLink {
    stanzas: mpsc::Sender<Injected>,
    shared: Arc<Shared>,
    _end: DropGuard,
}

/// Bytes for the bridge, and who waits until they are written.
type Injected = (String, oneshot::Sender<()>);

/// What went over one stream, as bytes.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// From the server. The bridge need not have read all of it.
    pub to_bridge: Vec<u8>,
    /// From the bridge.
    pub to_server: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shared {
    streams: Mutex<Vec<Stream>>,
    cut: Notify,
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, Vec<Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, direction: impl FnOnce(&mut Stream) -> &mut Vec<u8>, bytes: &[u8]) {
        if let Some(stream) = self.streams().last_mut() {
            direction(stream).extend_from_slice(bytes);
        }
    }
}

impl XmppLink {
    /// Listens on a port and carries one stream after the other to the server's port for components.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16, server_port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("binding the link")?;
        let (stanzas, mut injected) = mpsc::channel(1);
        let (end, shared) = (CancellationToken::new(), Arc::<Shared>::default());
        let (ended, carrier) = (end.clone(), shared.clone());
        TaskTracker::new().spawn(async move {
            let carrying = async {
                while let Ok((bridge, _)) = listener.accept().await {
                    carrier.streams().push(Stream::default());
                    tokio::select! {
                        // A stream that breaks is followed by the next.
                        _ = carry_stream(bridge, server_port, &mut injected, &carrier) => {}
                        () = carrier.cut.notified() => {}
                    }
                }
            };
            ended.run_until_cancelled(carrying).await
        });
        Ok(Self { stanzas, shared, _end: end.drop_guard() })
    }

    /// Sends bytes to the bridge as if they came from the server: whole stanzas, or what no parser should see. Nothing
    /// else should be under way. They are written when this returns.
    ///
    /// # Errors
    /// When the link has ended, or the stream breaks.
    pub async fn inject(&self, xml: String) -> Result<()> {
        let (done, written) = oneshot::channel();
        self.stanzas.send((xml, done)).await.context("the link has ended")?;
        written.await.context("the stream broke before all was written")
    }

    /// Breaks the stream that is up, wherever it is. The bridge may connect again.
    pub fn cut(&self) {
        self.shared.cut.notify_one();
    }

    /// Looks at all streams so far, the oldest first.
    pub fn read<R>(&self, reader: impl FnOnce(&[Stream]) -> R) -> R {
        reader(&self.shared.streams())
    }
}

async fn carry_stream(
    mut bridge: TcpStream,
    server_port: u16,
    injected: &mut mpsc::Receiver<Injected>,
    shared: &Shared,
) -> Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server_port)).await?;
    let (mut from_bridge, mut to_bridge) = bridge.split();
    let (mut from_server, mut to_server) = server.split();
    let upwards = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_bridge.read(&mut buffer).await?;
            match buffer.get(..read) {
                Some([]) | None => return anyhow::Ok(()),
                Some(bytes) => {
                    shared.record(|stream| &mut stream.to_server, bytes);
                    to_server.write_all(bytes).await?;
                }
            }
        }
    };
    let downwards = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                read = from_server.read(&mut buffer) => match buffer.get(..read?) {
                    Some([]) | None => return anyhow::Ok(()),
                    Some(bytes) => {
                        shared.record(|stream| &mut stream.to_bridge, bytes);
                        to_bridge.write_all(bytes).await?;
                    }
                },
                Some((stanza, done)) = injected.recv() => {
                    to_bridge.write_all(stanza.as_bytes()).await?;
                    // Whoever injected it may have given up waiting.
                    let _ = done.send(());
                }
            }
        }
    };
    tokio::select! {
        copied = upwards => copied.context("towards the server"),
        copied = downwards => copied,
    }
}
