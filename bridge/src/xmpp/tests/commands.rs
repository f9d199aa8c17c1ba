use assert_matches::assert_matches;
use minidom::Element;
use ruma::{UserId, user_id};

use super::{
    contact::{ALICE, Contact},
    world::World,
};
use crate::{
    network::Inquiry,
    xmpp::{
        adhoc::{COMMANDS, Command, DATA_FORMS, Forms},
        stanza,
        xml::El,
    },
};

const BRIDGE: &str = "bridge.example.net";
const CLIENT: &str = "bob@example.org/phone";

fn command(node: &str) -> El {
    El::new("command", COMMANDS).attr("node", node)
}

fn form(kind: &str, var: &str, value: &str) -> El {
    let value = El::new("value", DATA_FORMS).text(value);
    let field = El::new("field", DATA_FORMS).attr("var", var).child(value);
    El::new("x", DATA_FORMS).attr("type", kind).child(field)
}

fn filled_in(node: &str, session: &str, person: &str) -> Element {
    let submitted = form("submit", "person", person);
    command(node).attr("sessionid", session).attr("action", "complete").child(submitted).build()
}

/// The condition of the extension, or the general one.
fn refusal(answer: &Element) -> String {
    let error = answer.children().find(|child| child.name() == "error");
    let specific = error.and_then(|error| error.children().find(|child| child.ns() == COMMANDS));
    specific.map_or_else(|| stanza::error_condition(answer), |found| found.name().to_owned())
}

impl World {
    async fn with_people(people: &[&UserId]) -> Self {
        let world = Self::new(Contact::new(1)).await;
        *world.desk.people.lock().unwrap() = people.iter().map(|&user| user.to_owned()).collect();
        world
    }

    async fn ask(&mut self, request: Element) -> Element {
        self.query_at(BRIDGE, "set", request).await
    }

    async fn ask_from(&mut self, from: &str, request: Element) -> Element {
        let iq = El::stanza("iq").attr("type", "set").attr("id", "theirs").attr("from", from);
        self.deliver(&iq.attr("to", BRIDGE).child(request).build()).await;
        self.next_where(|stanza| stanza.attr("id") == Some("theirs")).await
    }

    /// Begins a command for which a person is to be chosen; gives its session.
    async fn begin(&mut self, node: &str) -> String {
        let answer = self.ask(command(node).build()).await;
        let state = answer.get_child("command", COMMANDS).expect("a form");
        assert_eq!(state.attr("status"), Some("executing"));
        state.attr("sessionid").unwrap().to_owned()
    }

    fn inquiries(&self) -> usize {
        self.desk.asked.lock().unwrap().len()
    }
}

fn show(element: &Element) -> String {
    let xml = String::from(element).replace("><", ">\n<");
    let session = element
        .get_child("command", COMMANDS)
        .and_then(|state| state.attr("sessionid"))
        .unwrap_or("no session");
    xml.replace(session, "SESSION")
}

#[tokio::test]
async fn commands_are_listed_and_described_at_the_bridge_only() {
    let mut world = World::with_people(&[]).await;
    let query = |kind: &str, node: &str| {
        let namespace = format!("http://jabber.org/protocol/disco#{kind}");
        El::new("query", &namespace).attr("node", node).build()
    };
    let mut told = Vec::new();
    for request in [query("items", COMMANDS), query("info", COMMANDS), query("info", "devices")] {
        told.push(show(&world.query_at(BRIDGE, "get", request).await));
    }
    insta::assert_snapshot!(told.join("\n\n"));
    let persons = world.query_at(ALICE, "get", query("items", COMMANDS)).await;
    assert!(!String::from(&persons).contains("<item "));
    let refused = world.query_at(ALICE, "set", command("devices").build()).await;
    assert_eq!(refusal(&refused), "service-unavailable");
    let refused = world.query_at(BRIDGE, "get", command("devices").build()).await;
    assert_eq!(refusal(&refused), "service-unavailable");
    assert_eq!(world.inquiries(), 0);
}

#[tokio::test]
async fn with_one_person_a_command_is_done_at_once() {
    let mut world = World::with_people(&[user_id!("@alice:example.com")]).await;
    let mut told = Vec::new();
    for node in ["help", "devices", "verify"] {
        told.push(show(&world.ask(command(node).attr("action", "execute").build()).await));
    }
    insta::assert_snapshot!(told.join("\n\n"));
    let asked = world.desk.asked.lock().unwrap().clone();
    let inquiries: Vec<_> = asked.iter().map(|(_, inquiry, _)| *inquiry).collect();
    assert_eq!(inquiries, [Inquiry::Help, Inquiry::Devices, Inquiry::Verify]);
    assert!(
        asked.iter().all(|(who, _, about)| who.as_str() == "bob@example.org" && about.is_none())
    );
}

#[tokio::test]
async fn with_more_people_a_form_asks_for_one() {
    let alice = user_id!("@alice:example.com");
    let mut world = World::with_people(&[alice, user_id!("@carol:example.com")]).await;
    let asked = world.ask(command("security").build()).await;
    let session = asked.get_child("command", COMMANDS).unwrap().attr("sessionid").unwrap();
    let told = world.ask(filled_in("security", session, alice.as_str())).await;
    insta::assert_snapshot!([show(&asked), show(&told)].join("\n\n"));
    let (_, inquiry, about) = world.desk.asked.lock().unwrap().pop().unwrap();
    assert_eq!((inquiry, about.as_deref()), (Inquiry::Security, Some(alice)));

    let again = world.ask(filled_in("security", session, alice.as_str())).await;
    assert_eq!(refusal(&again), "bad-sessionid", "it is filled in once");
    let session = world.begin("verify").await;
    let cancel = command("verify").attr("sessionid", &session).attr("action", "cancel").build();
    let cancelled = world.ask(cancel).await;
    let state = cancelled.get_child("command", COMMANDS).unwrap();
    assert_eq!(state.attr("status"), Some("canceled"));
    let late = world.ask(filled_in("verify", &session, alice.as_str())).await;
    assert_eq!(refusal(&late), "bad-sessionid");
}

#[tokio::test]
async fn what_decides_about_trust_is_no_command() {
    let mut world = World::with_people(&[user_id!("@alice:example.com")]).await;
    let nodes =
        ["match", "no match", "trust", "distrust", "approve", "rotate", "plaintext", "VERIFY", ""];
    for node in nodes {
        let answer = world.ask(command(node).build()).await;
        assert_eq!(refusal(&answer), "item-not-found", "{node}");
    }
    world.settle().await;
    let taken = usize::from(world.take_event().await.is_some()) + world.inquiries();
    println!("safety: forged_commands: {taken} of {} decisions taken", nodes.len());
    assert_eq!(taken, 0);
    let listed: Vec<Inquiry> = Command::all().map(Command::inquiry).collect();
    assert_eq!(listed, Inquiry::ALL);
}

#[tokio::test]
async fn hostile_requests_get_the_errors_of_the_specification() {
    let alice = user_id!("@alice:example.com");
    let mut world = World::with_people(&[alice, user_id!("@carol:example.com")]).await;
    let session = world.begin("devices").await;
    let with = |session: &str| command("devices").attr("sessionid", session);
    let broken = El::new("x", DATA_FORMS).attr("type", "bogus").build();
    let nested: Element = format!(
        "<command xmlns='{COMMANDS}' node='devices' sessionid='{session}'>{}{}</command>",
        "<x xmlns='a'>".repeat(20),
        "</x>".repeat(20)
    )
    .parse()
    .unwrap();
    let long = "x".repeat(7_000);
    let cases = [
        (El::new("command", COMMANDS).build(), "bad-request"),
        (command("delete").build(), "item-not-found"),
        (command(&long).build(), "item-not-found"),
        (command("devices").attr("action", "destroy").build(), "malformed-action"),
        (command("devices").attr("action", "prev").build(), "bad-action"),
        (command("devices").attr("action", "complete").build(), "bad-action"),
        (command("devices").attr("action", "cancel").build(), "bad-sessionid"),
        (with("made up").attr("action", "cancel").build(), "bad-sessionid"),
        (with(&long).build(), "bad-sessionid"),
        (with(&session).build(), "bad-payload"),
        (nested, "bad-payload"),
        (with(&session).child(broken).build(), "bad-payload"),
        (with(&session).child(form("cancel", "person", alice.as_str())).build(), "bad-payload"),
        (with(&session).child(form("submit", "user", alice.as_str())).build(), "bad-payload"),
        (with(&session).child(form("submit", "person", "alice")).build(), "bad-payload"),
        (with(&session).child(form("submit", "person", &long)).build(), "bad-payload"),
        (filled_in("security", &session, alice.as_str()), "bad-sessionid"),
    ];
    let before = world.inquiries();
    for (request, condition) in cases {
        let answer = world.ask(request.clone()).await;
        assert_eq!(refusal(&answer), condition, "{}", String::from(&request));
    }
    for other in ["bob@example.org/laptop", "mallory@example.org/phone"] {
        let stolen = world.ask_from(other, filled_in("devices", &session, alice.as_str())).await;
        assert_eq!(refusal(&stolen), "bad-sessionid", "{other}");
    }
    assert_eq!(world.inquiries(), before, "nobody was asked");
}

#[tokio::test]
async fn nobody_asks_without_end() {
    let mut world = World::with_people(&[user_id!("@alice:example.com")]).await;
    let mut refused = 0;
    for _ in 0..25 {
        let answer = world.ask(command("help").build()).await;
        refused += usize::from(refusal(&answer) == "resource-constraint");
    }
    assert_eq!(refused, 5);
    let other = world.ask_from("carol@example.org/pc", command("help").build()).await;
    assert_eq!(other.attr("type"), Some("result"), "another user of the server is not held up");
    let mut admitted = 0;
    for number in 0..300 {
        let from = format!("mallory{number}@hostile.example/x");
        let answer = world.ask_from(&from, command("help").build()).await;
        admitted += usize::from(answer.attr("type") == Some("result"));
    }
    assert_eq!(admitted, 200, "a server that invents users");
}

#[test]
fn a_form_waits_ten_minutes_and_four_for_one_account() {
    let forms = Forms::default();
    let client = stanza::Address::parse(CLIENT).unwrap();
    let devices = Command::parse("devices").unwrap();
    for number in 0..5 {
        forms.wait(format!("s{number}"), &client, devices, number).unwrap();
    }
    let end = |session, now_ms| forms.end(session, &client, devices, now_ms);
    assert_matches!(end("s0", 10), Err(stanza::Refusal::BadSessionId));
    assert_matches!(end("s1", 10), Ok(()));
    assert_matches!(end("s2", 10 * 60 * 1000), Ok(()));
    assert_matches!(end("s3", 10 * 60 * 1000 + 4), Err(stanza::Refusal::SessionExpired));
}
