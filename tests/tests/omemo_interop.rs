//! The OMEMO engine against an independent implementation: Oldmemo and Twomemo behind python-omemo's session manager.
//!
//! No server takes part. Messages are lost, overtaken, repeated and altered on the way.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2ee::omemo::{
    Account, Answer, Bundle, DecryptError, DeviceId, DeviceList, EncryptedElement, IdentityKey,
    Machine, Namespace, OmemoChanges, Payload, Plaintext, Recipient, Sender, SessionList,
};
use minidom::Element;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tests::paths;

const OUR_JID: &str = "alice%matrix.example@bridge.example";
const PEER_JID: &str = "bob@example.org";

/// Each way.
const MESSAGES: usize = 1000;
const LOST_PERCENT: u32 = 10;
/// A message is overtaken by no more than this many others.
const WINDOW: usize = 8;

#[test]
fn we_start_with_oldmemo() {
    converse(Namespace::Legacy, Start::We);
}

#[test]
fn oldmemo_starts() {
    converse(Namespace::Legacy, Start::Peer);
}

#[test]
fn we_and_oldmemo_start_at_once() {
    converse(Namespace::Legacy, Start::Both);
}

#[test]
fn we_start_with_twomemo() {
    converse(Namespace::V2, Start::We);
}

#[test]
fn twomemo_starts() {
    converse(Namespace::V2, Start::Peer);
}

#[test]
fn we_and_twomemo_start_at_once() {
    converse(Namespace::V2, Start::Both);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    We,
    Peer,
    Both,
}

/// A message on its way; without text it is an empty one.
struct Letter {
    text: Option<String>,
    xml: String,
}

struct Conversation {
    namespace: Namespace,
    us: Us,
    peer: Peer,
    to_us: Vec<Letter>,
    to_peer: Vec<Letter>,
    dice: StdRng,
    heard_by_us: usize,
    heard_by_peer: usize,
    lost: usize,
    refused: usize,
}

fn converse(namespace: Namespace, start: Start) {
    let mut talk = Conversation::new(namespace);
    talk.begin(start);
    for side in [Side::Peer, Side::Us] {
        assert!(talk.heard_by(side) > 0 || start != Start::Both, "both have heard the other");
    }
    let mut sent = [0, 0];
    while sent.iter().any(|count| *count < MESSAGES) {
        let speaker = if talk.dice.gen_bool(0.5) { Side::Us } else { Side::Peer };
        let count = &mut sent[usize::from(speaker == Side::Us)];
        if *count == MESSAGES {
            continue;
        }
        *count += 1;
        talk.say(speaker, &format!("message {count} 🙂"));
        talk.deliver_some();
    }
    talk.deliver_all();
    println!(
        "{namespace:?}, {start:?} start: {} heard by us, {} by the peer, {} lost, {} refused",
        talk.heard_by_us, talk.heard_by_peer, talk.lost, talk.refused
    );
    assert!(talk.heard_by_us > MESSAGES * 8 / 10);
    assert!(talk.heard_by_peer > MESSAGES * 8 / 10);
    assert!(talk.heard_by_us + talk.heard_by_peer + talk.lost >= 2 * MESSAGES);
    assert!(talk.refused > 100, "replays and alterations were tried");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Us,
    Peer,
}

impl Conversation {
    fn new(namespace: Namespace) -> Self {
        let mut peer = Peer::start();
        let mut us = Us::new(namespace);
        us.meet(&mut peer);
        Self {
            namespace,
            us,
            peer,
            to_us: Vec::new(),
            to_peer: Vec::new(),
            dice: StdRng::seed_from_u64(7),
            heard_by_us: 0,
            heard_by_peer: 0,
            lost: 0,
            refused: 0,
        }
    }

    fn heard_by(&self, side: Side) -> usize {
        match side {
            Side::Us => self.heard_by_us,
            Side::Peer => self.heard_by_peer,
        }
    }

    /// The first messages, of which the very first gets lost.
    fn begin(&mut self, start: Start) {
        let starters: &[Side] = match start {
            Start::We => &[Side::Us],
            Start::Peer => &[Side::Peer],
            Start::Both => &[Side::Us, Side::Peer],
        };
        for number in 0..3 {
            for side in starters {
                self.write(*side, Some(&format!("start {number}")));
            }
        }
        let lost = if start == Start::Peer { &mut self.to_us } else { &mut self.to_peer };
        lost.remove(0);
        if start != Start::Both {
            return self.deliver_all();
        }
        // The peer keeps one session only: what crosses its new start fails there, once.
        while let Some(letter) = take_first(&mut self.to_us) {
            self.deliver_to_us(letter);
        }
        while let Some(letter) = take_first(&mut self.to_peer) {
            let said = self.peer.decrypt(self.namespace, &letter.xml);
            match said {
                Ok((text, sent)) => {
                    assert_eq!(text, letter.text);
                    self.heard_by_peer += usize::from(text.is_some());
                    self.to_us.extend(sent.into_iter().map(|xml| Letter { text: None, xml }));
                }
                Err(error) => {
                    assert_eq!((error.as_str(), &letter.text), ("DecryptionFailed", &None));
                }
            }
        }
        self.deliver_all();
    }

    fn say(&mut self, side: Side, text: &str) {
        if self.dice.gen_range(0..100) < LOST_PERCENT {
            self.write(side, Some(text));
            let lost = if side == Side::Us { self.to_peer.pop() } else { self.to_us.pop() };
            self.lost += usize::from(lost.is_some());
        } else {
            self.write(side, Some(text));
        }
    }

    fn write(&mut self, side: Side, text: Option<&str>) {
        let owned = text.map(str::to_owned);
        match side {
            Side::Us => {
                let xml = self.us.encrypt(text);
                self.to_peer.push(Letter { text: owned, xml });
            }
            Side::Peer => {
                let xml = self.peer.encrypt(self.namespace, text.expect("it says something"));
                self.to_us.push(Letter { text: owned, xml });
            }
        }
    }

    fn deliver_some(&mut self) {
        while self.to_us.len() >= WINDOW || (!self.to_us.is_empty() && self.dice.gen_bool(0.4)) {
            let letter = pick(&mut self.to_us, &mut self.dice);
            self.deliver_to_us(letter);
        }
        while self.to_peer.len() >= WINDOW || (!self.to_peer.is_empty() && self.dice.gen_bool(0.4))
        {
            let letter = pick(&mut self.to_peer, &mut self.dice);
            self.deliver_to_peer(&letter);
        }
    }

    fn deliver_all(&mut self) {
        loop {
            if let Some(letter) = take_first(&mut self.to_us) {
                self.deliver_to_us(letter);
            } else if let Some(letter) = take_first(&mut self.to_peer) {
                self.deliver_to_peer(&letter);
            } else {
                return;
            }
        }
    }

    fn deliver_to_us(&mut self, letter: Letter) {
        if self.dice.gen_bool(0.1) {
            self.us.refuse(&altered(&letter.xml, &mut self.dice), |_| true);
            self.refused += 1;
        }
        let (text, answer) = self.us.decrypt(&letter.xml).expect("every message opens");
        assert_eq!(text, letter.text);
        self.heard_by_us += usize::from(text.is_some());
        if self.dice.gen_bool(0.1) {
            self.us.refuse(&letter.xml, |error| *error == DecryptError::Replayed);
            self.refused += 1;
        }
        if answer == Answer::Due {
            self.write(Side::Us, None);
        }
    }

    fn deliver_to_peer(&mut self, letter: &Letter) {
        let (text, sent) = self.peer.decrypt(self.namespace, &letter.xml).expect("it opens");
        assert_eq!(text, letter.text);
        self.heard_by_peer += usize::from(text.is_some());
        self.to_us.extend(sent.into_iter().map(|xml| Letter { text: None, xml }));
        if self.dice.gen_bool(0.05) {
            assert!(self.peer.decrypt(self.namespace, &letter.xml).is_err(), "a replay");
            self.refused += 1;
        }
    }
}

fn take_first(letters: &mut Vec<Letter>) -> Option<Letter> {
    if letters.is_empty() { None } else { Some(letters.remove(0)) }
}

/// Any of the letters, or the oldest when too many wait.
fn pick(letters: &mut Vec<Letter>, dice: &mut StdRng) -> Letter {
    let position = if letters.len() >= WINDOW { 0 } else { dice.gen_range(0..letters.len()) };
    letters.remove(position)
}

/// The message with one letter of the base64 in its key changed.
fn altered(xml: &str, dice: &mut StdRng) -> String {
    let key = xml.find("rid=").expect("a key");
    let start = key + xml[key..].find('>').expect("its end") + 1;
    let length = xml[start..].find('<').expect("its text");
    // The last letters may be padding, or bits that base64 ignores.
    let position = start + dice.gen_range(0..length - 4);
    let other = if xml.as_bytes()[position] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &xml[..position], &xml[position + 1..])
}

/// Our side. What it keeps are bytes, as in a database.
struct Us {
    namespace: Namespace,
    rng: StdRng,
    account: Vec<u8>,
    sessions: Option<Vec<u8>>,
    pinned: Option<IdentityKey>,
    peer_device: Option<DeviceId>,
    peer_bundle: Option<Bundle>,
}

impl Us {
    fn new(namespace: Namespace) -> Self {
        let mut rng = StdRng::seed_from_u64(3);
        let account = Account::generate(now(), &mut rng).to_bytes().unwrap().to_vec();
        Self {
            namespace,
            rng,
            account,
            sessions: None,
            pinned: None,
            peer_device: None,
            peer_bundle: None,
        }
    }

    fn account(&self) -> Account {
        Account::from_bytes(&self.account).unwrap()
    }

    fn meet(&mut self, peer: &mut Peer) {
        let account = self.account();
        let devices = DeviceList::new(vec![account.device_id()]).to_element(self.namespace);
        let bundle = account.bundle(self.namespace).to_element();
        let uri = self.namespace.uri();
        let published = peer.ask(json!({ "op": "publish", "namespace": uri })).unwrap();
        let list = parse(published["devices"].as_str().unwrap());
        let list = DeviceList::from_element(self.namespace, &list).unwrap();
        self.peer_device = list.devices.first().copied();
        let theirs = parse(published["bundle"].as_str().unwrap());
        self.peer_bundle = Some(Bundle::from_element(self.namespace, &theirs).unwrap());
        let bundles = HashMap::from([(account.device_id().to_string(), write(&bundle))]);
        let ours = json!({ "op": "meet", "namespace": uri, "jid": OUR_JID, "devices": write(&devices),
                           "bundles": bundles });
        peer.ask(ours).unwrap();
    }

    fn loaded_sessions(&self) -> Option<SessionList> {
        self.sessions.as_ref().map(|bytes| SessionList::from_bytes(bytes).unwrap())
    }

    fn encrypt(&mut self, text: Option<&str>) -> String {
        let payload = match (text, self.namespace) {
            (None, namespace) => Payload::Empty(namespace),
            (Some(text), Namespace::Legacy) => Payload::Body(text.to_owned()),
            (Some(text), Namespace::V2) => Payload::Content(vec![
                Element::builder("body", "jabber:client").append(text).build(),
            ]),
        };
        let sessions = self.loaded_sessions();
        let recipient = Recipient {
            jid: PEER_JID.to_owned(),
            device: self.peer_device.unwrap(),
            bundle: sessions.is_none().then(|| self.peer_bundle.clone().unwrap()),
            sessions,
            pinned: self.pinned,
        };
        let account = self.account();
        let encrypted = Machine::new(&account, OUR_JID)
            .encrypt(PEER_JID, vec![recipient], &payload, now(), &mut self.rng)
            .unwrap();
        self.save(encrypted.changes);
        write(&encrypted.element.to_element())
    }

    fn try_decrypt(
        &self,
        xml: &str,
    ) -> Result<(Option<String>, Answer, OmemoChanges), DecryptError> {
        let Ok(element) = EncryptedElement::from_element(&parse(xml)) else {
            return Err(DecryptError::Malformed("element"));
        };
        let account = self.account();
        let sender = Sender {
            jid: PEER_JID.to_owned(),
            sessions: self.loaded_sessions(),
            pinned: self.pinned,
        };
        let decrypted = Machine::new(&account, OUR_JID).decrypt(sender, &element)?;
        let text = decrypted.plaintext.map(|plaintext| match plaintext {
            Plaintext::Body(text) => text,
            Plaintext::Envelope(envelope) => envelope.body().expect("a body"),
        });
        Ok((text, decrypted.answer, decrypted.changes))
    }

    fn decrypt(&mut self, xml: &str) -> Result<(Option<String>, Answer), DecryptError> {
        let (text, answer, changes) = self.try_decrypt(xml)?;
        self.save(changes);
        Ok((text, answer))
    }

    /// The message must be refused, and not one stored byte may change.
    fn refuse(&mut self, xml: &str, expected: impl FnOnce(&DecryptError) -> bool) {
        let before = (self.account.clone(), self.sessions.clone(), self.pinned);
        let error = self.decrypt(xml).expect_err("the message is refused");
        assert!(expected(&error), "{error:?}");
        assert!(before == (self.account.clone(), self.sessions.clone(), self.pinned));
    }

    fn save(&mut self, changes: OmemoChanges) {
        if let Some(mut account) = changes.account {
            account.maintain(now(), &mut self.rng);
            self.account = account.to_bytes().unwrap().to_vec();
        }
        for change in changes.sessions {
            self.sessions = Some(change.sessions.to_bytes().unwrap().to_vec());
        }
        for pin in changes.pins {
            self.pinned = Some(pin.identity);
        }
    }
}

/// The independent client.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start() -> Self {
        let mut child = Command::new(python())
            .arg(paths::peers().join("omemo_peer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the peer starts");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self { child, input, output };
        peer.ask(json!({ "op": "start", "jid": PEER_JID })).expect(
            "the peer answers; it needs the Python packages of tests/peers/requirements.txt",
        );
        peer
    }

    /// The answer, or the name of the error.
    fn ask(&mut self, request: Value) -> Result<Value, String> {
        writeln!(self.input, "{request}").expect("the peer listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the peer answers");
        let answer: Value = serde_json::from_str(&line).map_err(|_| "no answer".to_owned())?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }

    fn encrypt(&mut self, namespace: Namespace, text: &str) -> String {
        let request =
            json!({ "op": "encrypt", "namespace": namespace.uri(), "jid": OUR_JID, "text": text });
        let answer = self.ask(request).expect("the peer encrypts");
        answer["message"].as_str().unwrap().to_owned()
    }

    /// The text, and the empty messages that the peer sent by itself.
    fn decrypt(
        &mut self,
        namespace: Namespace,
        xml: &str,
    ) -> Result<(Option<String>, Vec<String>), String> {
        let request = json!({ "op": "decrypt", "namespace": namespace.uri(), "jid": OUR_JID, "message": xml });
        let answer = self.ask(request)?;
        let text = answer["text"].as_str().map(str::to_owned);
        let sent = answer["sent"].as_array().unwrap().iter();
        Ok((text, sent.map(|xml| xml.as_str().unwrap().to_owned()).collect()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `GEPHYRA_PEERS_PYTHON`, else the environment that `cargo xtask test` makes.
fn python() -> PathBuf {
    match env::var_os("GEPHYRA_PEERS_PYTHON") {
        Some(path) => path.into(),
        None => paths::python("venv-peers").expect("the peers' Python is installed"),
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn parse(xml: &str) -> Element {
    xml.parse().unwrap()
}

fn write(element: &Element) -> String {
    let mut bytes = Vec::new();
    element.write_to(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}
