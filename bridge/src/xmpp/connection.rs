//! Keeps the component stream up: connect, keep alive, reconnect (XEP-0114, XEP-0199).

use std::{pin::pin, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    core::Core,
    link::RequestError,
    reader::StreamEvent,
    stream::{self, StanzaReader, StanzaWriter, StreamError},
    xml::{El, PING},
};
use crate::error_chain;

/// How long connecting and the handshake may take.
const OPENING: Duration = Duration::from_secs(15);
/// A stream is probed this often.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// How long our own server may take to answer a ping.
const PING_PATIENCE: Duration = Duration::from_secs(30);
/// How often is noted that a stanza is still dealt with; well below the patience.
const STILL_DEALING: Duration = Duration::from_secs(5);
/// How long our own server may take to close its side.
const CLOSING: Duration = Duration::from_secs(2);
/// How long dealing with what has come may take when a stream ends.
const LEAVING: Duration = Duration::from_secs(10);
/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Core {
    /// Connects, serves, and connects again until the component stops.
    pub(super) async fn keep_connected(&self) {
        let mut pause = pauses();
        while !self.stop.is_cancelled() {
            let (was_up, ended) = self.connect_and_serve().await;
            match ended {
                Ok(()) => tracing::info!("xmpp.stream: closed"),
                Err(error) => {
                    tracing::warn!(error = error_chain(&error), "xmpp.stream: down");
                }
            }
            if was_up {
                pause = pauses();
            }
            let wait = tokio::time::sleep(pause.next().unwrap_or(LONGEST_PAUSE));
            if self.stop.run_until_cancelled(wait).await.is_none() {
                return;
            }
        }
    }

    /// Serves one stream until it ends. Returns whether it ever was up.
    async fn connect_and_serve(&self) -> (bool, Result<(), StreamError>) {
        let ended = match self.stop.run_until_cancelled(self.connect()).await {
            Some(Ok(socket)) => self.serve(socket).await,
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        // The mark is taken away here, so that it speaks of this stream alone.
        (self.link.was_up(), ended)
    }

    async fn connect(&self) -> Result<TcpStream, StreamError> {
        let socket = timeout(OPENING, TcpStream::connect(&self.config.server))
            .await
            .map_err(|_| StreamError::TimedOut)??;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// Serves one stream until it ends.
    pub(super) async fn serve<S>(&self, io: S) -> Result<(), StreamError>
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let opening = stream::open(io, self.config.component.as_str(), self.config.secret.as_str());
        let (mut reader, mut writer) =
            timeout(OPENING, opening).await.map_err(|_| StreamError::TimedOut)??;
        tracing::info!("xmpp.stream: up");
        self.seen.forget_all();
        let mut queue = self.link.up();
        let leaving = CancellationToken::new();
        let mut read = pin!(self.read(&mut reader, &leaving));
        let ended = tokio::select! {
            ended = &mut read => {
                self.link.down();
                return ended;
            }
            ended = write(&mut writer, &mut queue) => ended,
            ended = self.probe() => ended,
            ended = self.send_outbox() => ended,
            () = self.stop.cancelled() => Ok(()),
        };
        self.link.down();
        // Whoever waits for room in it waits in vain.
        drop(queue);
        let mut is_read = false;
        if ended.is_ok() {
            // The server still sends what it has until it has read this; it may be gone already.
            let _ = timeout(CLOSING, writer.close()).await;
            is_read = timeout(CLOSING, &mut read).await.is_ok();
        }
        // XEP-0114 has no acknowledgements: what has come is dealt with, or it is lost.
        leaving.cancel();
        if !is_read && timeout(LEAVING, read).await.is_err() {
            tracing::warn!("xmpp.stream: what had come was not dealt with");
        }
        ended
    }

    /// Deals with what comes. When it is leaving, only with what has come already.
    async fn read<S: AsyncRead>(
        &self,
        reader: &mut StanzaReader<S>,
        leaving: &CancellationToken,
    ) -> Result<(), StreamError> {
        loop {
            let event = tokio::select! {
                biased;
                event = reader.next() => event?,
                () = leaving.cancelled() => return Ok(()),
            };
            failpoint!("w11_stanza_read" if matches!(&event, StreamEvent::Stanza(it) if it.name() == "message"));
            match event {
                StreamEvent::Stanza(stanza) => self.in_no_hurry(self.receive(stanza)).await,
                StreamEvent::Refused(refused) => self.bounce(&refused).await,
                StreamEvent::Opened { .. } | StreamEvent::Closed => {
                    return Err(StreamError::Closed);
                }
            }
            self.link.taken();
        }
    }

    /// Deals with a stanza. That may take as long as the store is away: the stream is not read meanwhile, so our own
    /// server cannot be late, and what it has sent behind the stanza must not be lost with the stream. Where the answer
    /// waits for room in the queue, it is the server that is late.
    pub(super) async fn in_no_hurry(&self, dealing: impl Future<Output = ()>) {
        let taking = async {
            loop {
                tokio::time::sleep(STILL_DEALING).await;
                if self.link.has_room() {
                    self.link.taken();
                }
            }
        };
        tokio::select! {
            () = dealing => {}
            () = taking => {}
        }
    }

    async fn probe(&self) -> Result<(), StreamError> {
        loop {
            tokio::time::sleep(PROBE_EVERY).await;
            self.confirm().await.map_err(|_| StreamError::TimedOut)?;
        }
    }

    /// Returns when the server has taken everything that was written before.
    ///
    /// Pings our own JID: the server works on our stanzas in their order, so when this one comes
    /// back, or is answered, all before it have been taken.
    pub(super) async fn confirm(&self) -> Result<(), RequestError> {
        let own = self.addresses.component().as_str();
        let id = self.random_id();
        let ping = El::stanza("iq")
            .attr("type", "get")
            .attr("id", id.as_str())
            .attr("from", own)
            .attr("to", own)
            .child(El::new("ping", PING))
            .build();
        match self.link.request_in_turn(&ping, &id, own, PING_PATIENCE).await {
            Ok(_) | Err(RequestError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

async fn write<S: AsyncWrite>(
    writer: &mut StanzaWriter<S>,
    queue: &mut mpsc::Receiver<Vec<u8>>,
) -> Result<(), StreamError> {
    while let Some(bytes) = queue.recv().await {
        writer.write(&bytes).await?;
        failpoint!("w10_stanza_written" if bytes.starts_with(b"<message"));
    }
    Ok(())
}
