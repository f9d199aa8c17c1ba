use proptest::prelude::*;

use super::*;

/// With all its content, which only a test may show.
fn show(event: &StreamEvent) -> String {
    match event {
        StreamEvent::Opened { .. } => "opened".to_owned(),
        StreamEvent::Stanza(stanza) => String::from(stanza),
        StreamEvent::Refused(refused) => format!("refused: {:?}", refused.reason),
        StreamEvent::Closed => "closed".to_owned(),
    }
}

fn show_all(events: &[StreamEvent]) -> Vec<String> {
    events.iter().map(show).collect()
}

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                      xmlns:stream='http://etherx.jabber.org/streams' from='b.example' id='s1'>";

/// All events of `parts`, each given to the reader as it would come from a socket.
fn read_all(reader: &mut StreamReader, parts: &[&str]) -> Vec<StreamEvent> {
    let mut events = Vec::new();
    for part in parts {
        let mut bytes = part.as_bytes();
        while let Some(event) = reader.read(&mut bytes).unwrap() {
            events.push(event);
        }
    }
    events
}

fn opened() -> StreamReader {
    let mut reader = StreamReader::new(Limits::default());
    let events = read_all(&mut reader, &[HEADER]);
    assert!(matches!(events.as_slice(), [StreamEvent::Opened { id: Some(id) }] if id == "s1"));
    reader
}

/// Reads a hostile stanza and then a good one, and returns why the first was refused.
fn refused(hostile: &str) -> Refused {
    let mut reader = opened();
    let events = read_all(&mut reader, &[hostile, "<message id='next'><body>on</body></message>"]);
    let [StreamEvent::Refused(refused), StreamEvent::Stanza(next)] = events.as_slice() else {
        panic!("unexpected events: {:?}", show_all(&events));
    };
    assert_eq!(next.attr("id"), Some("next"));
    refused.clone()
}

#[test]
fn stanzas_inherit_the_namespace_of_the_stream() {
    let mut reader = opened();
    let events = read_all(
        &mut reader,
        &[
            "<message from='a@x' ",
            "to='b@y'><body>Hel",
            "lo &amp; all</bo",
            "dy></message> \n<presence/>",
        ],
    );
    let [StreamEvent::Stanza(message), StreamEvent::Stanza(presence)] = events.as_slice() else {
        panic!("unexpected events: {:?}", show_all(&events));
    };
    let body = message.get_child("body", "jabber:component:accept").unwrap();
    assert_eq!(body.text(), "Hello & all");
    assert!(presence.is("presence", "jabber:component:accept"));
}

#[test]
fn a_stanza_nested_100_000_deep_stops_neither_process_nor_stream() {
    let depth = 100_000;
    let hostile = format!(
        "<message from='m@x' to='b@y' id='deep' type='chat'>{}{}</message>",
        "<a>".repeat(depth),
        "</a>".repeat(depth)
    );
    let refused = refused(&hostile);
    assert_eq!(refused.reason, Reason::TooDeep);
    assert_eq!(refused.name, "message");
    assert_eq!(refused.from.as_deref(), Some("m@x"));
    assert_eq!(refused.id.as_deref(), Some("deep"));
}

#[test]
fn a_million_attributes_are_refused() {
    let attributes: String = (0..1_000_000).map(|n| format!(" a{n}='x'")).collect();
    let refused = refused(&format!("<message id='many'><x{attributes}/></message>"));
    assert_eq!(refused.reason, Reason::TooManyAttributes);
    assert_eq!(refused.id.as_deref(), Some("many"));
}

#[test]
fn addresses_after_too_many_attributes_are_still_known() {
    let attributes: String = (0..100).map(|n| format!(" a{n}='x'")).collect();
    let refused = refused(&format!("<iq{attributes} id='late' from='m@x' type='get'/>"));
    assert_eq!(refused.reason, Reason::TooManyAttributes);
    assert_eq!(refused.id.as_deref(), Some("late"));
}

#[test]
fn long_text_is_refused_without_being_kept() {
    let refused = refused(&format!("<message><body>{}</body></message>", "x".repeat(8 << 20)));
    assert_eq!(refused.reason, Reason::TooMuchText);
}

#[test]
fn many_small_elements_are_refused() {
    let refused = refused(&format!("<message>{}</message>", "<a/>".repeat(300_000)));
    assert_eq!(refused.reason, Reason::TooManyBytes);
}

#[test]
fn a_long_attribute_is_refused() {
    for length in [8001, 600 * 1024] {
        let refused = refused(&format!("<message><a b='{}'/></message>", "x".repeat(length)));
        assert_eq!(refused.reason, Reason::LongAttribute);
    }
}

#[test]
fn an_undeclared_prefix_is_refused() {
    assert_eq!(refused("<message><no:such/></message>").reason, Reason::Namespace);
    assert_eq!(refused("<message><a no:such='1'/></message>").reason, Reason::Namespace);
}

#[test]
fn entities_and_document_types_end_the_stream() {
    for bomb in ["<!DOCTYPE a [<!ENTITY b 'c'>]>", "<message>&lol;</message>"] {
        let mut reader = opened();
        let mut bytes = bomb.as_bytes();
        assert!(matches!(reader.read(&mut bytes), Err(ReadError::NotWellFormed(_))));
    }
}

#[test]
fn text_between_stanzas_ends_the_stream() {
    let mut reader = opened();
    let read = reader.read(&mut &b"hello<message/>"[..]);
    assert!(matches!(read, Err(ReadError::StrayText)));
}

#[test]
fn the_end_of_the_stream_is_told() {
    let mut reader = opened();
    let events = read_all(&mut reader, &["<message/></stream:stream>"]);
    assert!(matches!(events.as_slice(), [StreamEvent::Stanza(_), StreamEvent::Closed]));
}

/// What comes of a text that is cut in two, with the cut at each byte.
fn read_cut(text: &str) -> impl Iterator<Item = Vec<StreamEvent>> {
    (0..=text.len()).map(move |cut| {
        let (head, tail) = text.split_at(cut);
        read_all(&mut opened(), &[head, tail])
    })
}

#[test]
fn the_namespace_of_xml_itself_under_another_prefix_does_not_end_the_stream() {
    for hostile in [
        "<foo xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<foo xmlns = \"http://www.w3.org/XML/1998/namespace\"><bar/></foo>",
        "<foo xmlns:ns1='http://www.w3.org/XML/1998/namespace' ns1:foo='1'/>",
        "<ns1:foo a='1' xmlns:ns1='http://www.w3.org/XML/1998/namespace'/>",
    ] {
        let text = format!("<message>{hostile}</message><iq type='get'/>");
        for events in read_cut(&text) {
            let [StreamEvent::Stanza(message), StreamEvent::Stanza(iq)] = events.as_slice() else {
                panic!("unexpected events: {:?}", show_all(&events));
            };
            let child = message.children().next().unwrap();
            assert_eq!(child.name(), "foo");
            assert_ne!(child.ns(), rxml::XMLNS_XML);
            assert_eq!(iq.attr("type"), Some("get"));
        }
    }
    // On the stanza itself, and where it is skipped.
    let xml = rxml::XMLNS_XML;
    let stanza = format!("<message xmlns:a='{xml}' a:b='1'/>");
    let events = read_all(&mut opened(), &[stanza.as_str()]);
    assert!(matches!(events.as_slice(), [StreamEvent::Stanza(_)]));
    let deep = format!("{}<a xmlns='{xml}'/>{}", "<a>".repeat(100), "</a>".repeat(100));
    assert_eq!(refused(&format!("<message>{deep}</message>")).reason, Reason::TooDeep);
}

#[test]
fn nothing_but_that_declaration_is_changed() {
    let xml = rxml::XMLNS_XML;
    let text = format!(
        "<message a='{xml}' xmlns:xml=\"{xml}\" xmlnsx='{xml}' xml:lang='en'>\
         <longer xmlns='{xml}/more'/><shorter xmlns='http://www.w3.org/XML/'/>\
         <body a='\"' b=\">\">xmlns='{xml}'<!-- <a xmlns='{xml}'/> -> -->\
         <![CDATA[<a xmlns='{xml}'>]]]]>\" </body><foo xmlns='{xml}'/></message>"
    );
    for events in read_cut(&text) {
        let [StreamEvent::Stanza(message)] = events.as_slice() else {
            panic!("unexpected events: {:?}", show_all(&events));
        };
        assert_eq!(message.attr("a"), Some(xml));
        assert_eq!(message.attr("xmlnsx"), Some(xml));
        let children: Vec<_> =
            message.children().map(|child| format!("{} {}", child.name(), child.ns())).collect();
        let expected = [
            format!("longer {xml}/more"),
            "shorter http://www.w3.org/XML/".to_owned(),
            "body jabber:component:accept".to_owned(),
            format!("foo {xml}#"),
        ];
        assert_eq!(children, expected);
        let body = message.get_child("body", "jabber:component:accept").unwrap();
        assert_eq!(body.text(), format!("xmlns='{xml}'<a xmlns='{xml}'>]]\" "));
        assert_eq!((body.attr("a"), body.attr("b")), (Some("\""), Some(">")));
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut reader = opened();
        let mut rest = bytes.as_slice();
        while let Ok(Some(_)) = reader.read(&mut rest) {}
    }

    #[test]
    fn the_cut_into_packets_does_not_matter(cuts in proptest::collection::vec(1_usize..40, 1..80)) {
        let text = "<message id='1' xmlns:p='urn:p'><p:x p:a='&lt;'>é<![CDATA[<b>]]></p:x></message>\
                    <iq type='get'/>";
        let whole = show_all(&read_all(&mut opened(), &[text]));
        let mut reader = opened();
        let mut events = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts.iter().cycle() {
            let (mut part, later) = rest.split_at((*cut).min(rest.len()));
            while let Some(event) = reader.read(&mut part).unwrap() {
                events.push(show(&event));
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(whole, events);
    }
}
