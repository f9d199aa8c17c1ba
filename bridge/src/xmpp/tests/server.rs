//! The server at the other end of a component's stream.

use std::collections::VecDeque;

use minidom::Element;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
};

use super::contact::{BOB, Contact};
use crate::xmpp::{
    reader::{StreamEvent, StreamReader},
    stream::StreamError,
    xml::{self, COMPONENT, El, PUBSUB},
};

pub(super) struct Server {
    pub(super) io: DuplexStream,
    pub(super) reader: StreamReader,
    pub(super) buffer: VecDeque<Element>,
    pub(super) serving: JoinHandle<Result<(), StreamError>>,
}

impl Server {
    pub(super) async fn open(&mut self) {
        let StreamEvent::Opened { .. } = self.event().await else { panic!("no stream header") };
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='{COMPONENT}' xmlns:stream='{}' id='s1'>",
            xml::STREAM
        );
        self.io.write_all(header.as_bytes()).await.unwrap();
        let handshake = self.read().await;
        // SHA-1 of "s1secret".
        assert_eq!(handshake.text(), "3d1121b21f6287dc58010ebe9a95fa84ee2483d4");
        self.write(&El::stanza("handshake").build()).await;
    }

    pub(super) async fn event(&mut self) -> StreamEvent {
        loop {
            // Byte by byte: nothing may be taken from the stream that is not used up here.
            let byte = [self.io.read_u8().await.expect("the stream is up")];
            if let Some(event) = self.reader.read(&mut byte.as_slice()).unwrap() {
                return event;
            }
        }
    }

    pub(super) async fn read(&mut self) -> Element {
        let StreamEvent::Stanza(stanza) = self.event().await else { panic!("no stanza") };
        stanza
    }

    pub(super) async fn write(&mut self, stanza: &Element) {
        self.io.write_all(&xml::to_bytes(stanza)).await.unwrap();
    }
}

/// What Bob's server answers.
pub(super) fn answer_for(bob: &Contact, request: &Element) -> Element {
    let answer = El::stanza("iq")
        .attr("from", BOB)
        .attr("to", request.attr("from").unwrap())
        .attr("id", request.attr("id").unwrap());
    let items =
        request.get_child("pubsub", PUBSUB).and_then(|pubsub| pubsub.get_child("items", PUBSUB));
    let id = items.and_then(|items| items.get_child("item", PUBSUB)?.attr("id"));
    let node = items.and_then(|items| items.attr("node"));
    match node.and_then(|node| Some((node, bob.item(node, id)?))) {
        Some((node, item)) => {
            let items = El::new("items", PUBSUB).attr("node", node).child(item);
            let pubsub = El::new("pubsub", PUBSUB).child(items);
            answer.attr("type", "result").child(pubsub).build()
        }
        None => {
            let condition = El::new("item-not-found", xml::STANZAS);
            let error = El::stanza("error").attr("type", "cancel").child(condition);
            answer.attr("type", "error").child(error).build()
        }
    }
}
