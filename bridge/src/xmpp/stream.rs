//! The component stream (XEP-0114): handshake, then stanzas in both directions.
//!
//! Owns framing and nothing else: what a stanza means, keep-alive and reconnecting are in
//! [`super::connection`].

use std::io;

use minidom::Element;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use xmpp_parsers::component::Handshake;

use super::{
    reader::{Limits, ReadError, StreamEvent, StreamReader},
    xml,
};

/// Bytes asked from the socket at a time.
const READ_BYTES: usize = 16 * 1024;

/// Why a stream could not be opened or went down.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the connection to the XMPP server failed")]
    Io(#[from] io::Error),
    #[error("the XMPP server sent what cannot be read")]
    Read(#[from] ReadError),
    #[error("the XMPP server did not accept the component: check its name and the secret")]
    Refused,
    #[error("the XMPP server closed the stream")]
    Closed,
    #[error("the XMPP server did not answer in time")]
    TimedOut,
}

/// The receiving half.
pub(super) struct StanzaReader<S> {
    io: ReadHalf<S>,
    reader: StreamReader,
    buffer: Vec<u8>,
    used: usize,
}

/// The sending half.
pub(super) struct StanzaWriter<S> {
    io: WriteHalf<S>,
}

/// Opens the stream and proves that we know the secret.
pub(super) async fn open<S: AsyncRead + AsyncWrite>(
    io: S,
    component: &str,
    secret: &str,
) -> Result<(StanzaReader<S>, StanzaWriter<S>), StreamError> {
    let (read, write) = tokio::io::split(io);
    let reader = StreamReader::new(Limits::default());
    let mut reader = StanzaReader { io: read, reader, buffer: Vec::new(), used: 0 };
    let mut writer = StanzaWriter { io: write };
    let header = format!(
        "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' to='{component}'>",
        xml::COMPONENT,
        xml::STREAM
    );
    writer.write(header.as_bytes()).await?;
    let StreamEvent::Opened { id: Some(id) } = reader.next().await? else {
        return Err(StreamError::Refused);
    };
    let handshake = Element::from(Handshake::from_stream_id_and_password(id, secret));
    writer.write(&xml::to_bytes(&handshake)).await?;
    match reader.next().await? {
        StreamEvent::Stanza(answer) if answer.is("handshake", xml::COMPONENT) => {
            Ok((reader, writer))
        }
        _ => Err(StreamError::Refused),
    }
}

impl<S: AsyncRead> StanzaReader<S> {
    /// The next event. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<StreamEvent, StreamError> {
        loop {
            let mut rest = self.buffer.get(self.used..).unwrap_or_default();
            let before = rest.len();
            let event = self.reader.read(&mut rest)?;
            self.used = self.used.saturating_add(before.saturating_sub(rest.len()));
            if let Some(event) = event {
                return Ok(event);
            }
            self.buffer.clear();
            self.used = 0;
            self.buffer.reserve(READ_BYTES);
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Err(StreamError::Closed);
            }
        }
    }
}

impl<S: AsyncWrite> StanzaWriter<S> {
    /// Writes whole stanzas.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.io.write_all(bytes).await?;
        self.io.flush().await?;
        Ok(())
    }

    /// Ends the stream.
    pub(super) async fn close(&mut self) -> Result<(), StreamError> {
        self.write(b"</stream:stream>").await?;
        self.io.shutdown().await?;
        Ok(())
    }
}
