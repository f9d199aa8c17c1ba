//! Commands as forms (XEP-0050, XEP-0004) at the component's own address.
//!
//! Owns what is asked of whom and the one form there is. Knows no answer: those come through
//! [`Inquiries`](crate::network::Inquiries), and nothing that decides about trust does. Whoever
//! carries these stanzas reads them and can write them.

mod forms;
mod request;

use minidom::Element;
use ruma::{OwnedUserId, UserId};
use xmpp_parsers::data_forms::{DataForm, DataFormType, Field, FieldType, Option_};

use self::request::{Action, Request};
pub(super) use self::{forms::Forms, request::Command};
use super::{
    core::Core,
    stanza::{self, Address, Head, Refusal},
    xml::El,
};
use crate::{
    error_chain,
    network::{Answer, RemoteUserId},
};

/// XEP-0050.
pub(super) const COMMANDS: &str = "http://jabber.org/protocol/commands";
/// XEP-0004.
pub(super) const DATA_FORMS: &str = "jabber:x:data";

/// The field in which the person is named.
const PERSON: &str = "person";

/// People that a form lists; whoever has more chats writes the name.
const MAX_LISTED: usize = 50;

/// Who asks, as the answer needs it.
struct Asker {
    from: Address,
    to: Address,
    id: String,
}

/// How a command stands after a request.
enum Outcome {
    /// It is done, and these are the words.
    Told(String),
    /// A person is to be chosen among these.
    Whom(Vec<OwnedUserId>),
    /// It was given up.
    Cancelled,
}

impl Core {
    /// Takes a command. The answer is worked on beside the stream, which it may need.
    pub(super) async fn take_command(&self, head: &Head<'_>, command: &Element) {
        let asker = Asker {
            from: head.from.clone(),
            to: head.to.clone(),
            id: head.id.unwrap_or_default().to_owned(),
        };
        let begun = Request::read(command)
            .and_then(|request| Ok((request, self.forms.begin(&asker.from, self.clock.now_ms())?)));
        match begun {
            Ok((request, at_work)) => self.spawn(|core| async move {
                let result = core.obey_form(&asker, &request).await;
                core.answer_command(&asker, result).await;
                drop(at_work);
            }),
            Err(refusal) => self.answer_command(&asker, Err(refusal)).await,
        }
    }

    async fn answer_command(&self, asker: &Asker, result: Result<Element, Refusal>) {
        let Asker { from, to, id } = asker;
        match result {
            Ok(payload) => {
                let head =
                    Head { from: from.clone(), to: to.clone(), id: Some(id), kind: Some("set") };
                // Whoever waits for it will ask again when the stream is up again.
                let _ = self.link.write(&stanza::result(&head, Some(payload))).await;
            }
            Err(why) => self.refuse("iq", from.as_str(), to.as_str(), Some(id), why).await,
        }
    }

    async fn obey_form(&self, asker: &Asker, request: &Request) -> Result<Element, Refusal> {
        let command = request.command;
        let outcome = match (&request.session, request.action) {
            (None, Action::Execute) => self.inquire(asker, command, None).await?,
            (None, Action::Cancel) => return Err(Refusal::BadSessionId),
            (None, Action::Complete) => return Err(Refusal::BadAction),
            (Some(session), Action::Cancel) => {
                self.forms.end(session, &asker.from, command, self.clock.now_ms())?;
                Outcome::Cancelled
            }
            (Some(session), Action::Execute | Action::Complete) => {
                let person = named_person(request.form.as_ref())?;
                self.forms.end(session, &asker.from, command, self.clock.now_ms())?;
                self.inquire(asker, command, Some(&person)).await?
            }
        };
        let session = request.session.clone().unwrap_or_else(|| self.random_id());
        if matches!(outcome, Outcome::Whom(_)) {
            let now_ms = self.clock.now_ms();
            self.forms.wait(session.clone(), &asker.from, command, now_ms)?;
        }
        Ok(answer(command, &session, outcome))
    }

    async fn inquire(
        &self,
        asker: &Asker,
        command: Command,
        about: Option<&UserId>,
    ) -> Result<Outcome, Refusal> {
        let contact = RemoteUserId::new(asker.from.bare().as_str());
        match self.inquiries.inquire(&contact, command.inquiry(), about).await {
            Ok(Answer::Text(text)) => Ok(Outcome::Told(text)),
            Ok(Answer::Whom(people)) => Ok(Outcome::Whom(people)),
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "xmpp.adhoc: no answer");
                Err(Refusal::InternalServerError)
            }
        }
    }
}

/// The person whom a submitted form names.
fn named_person(form: Option<&DataForm>) -> Result<OwnedUserId, Refusal> {
    let form = form.filter(|form| form.type_ == DataFormType::Submit);
    let fields = form.map(|form| form.fields.as_slice()).unwrap_or_default();
    let field = fields.iter().find(|field| field.var.as_deref() == Some(PERSON));
    let [name] = field.map(|field| field.values.as_slice()).unwrap_or_default() else {
        return Err(Refusal::BadPayload);
    };
    UserId::parse(name.trim()).map_err(|_| Refusal::BadPayload)
}

/// The state of a command for whoever has asked (XEP-0050 section 3.4).
fn answer(command: Command, session: &str, outcome: Outcome) -> Element {
    let state = |status| {
        El::new("command", COMMANDS)
            .attr("node", command.node())
            .attr("sessionid", session)
            .attr("status", status)
    };
    match outcome {
        Outcome::Cancelled => state("canceled").build(),
        Outcome::Whom(people) => {
            let actions = El::new("actions", COMMANDS)
                .attr("execute", "complete")
                .child(El::new("complete", COMMANDS));
            state("executing").child(actions).child(ask_for_person(command, &people)).build()
        }
        // Clients show a note as one line.
        Outcome::Told(text) if text.contains('\n') => {
            state("completed").child(told(command, &text)).build()
        }
        Outcome::Told(text) => {
            let note = El::new("note", COMMANDS).attr("type", "info").text(&text);
            state("completed").child(note).build()
        }
    }
}

fn ask_for_person(command: Command, people: &[OwnedUserId]) -> DataForm {
    let kind =
        if people.len() <= MAX_LISTED { FieldType::ListSingle } else { FieldType::TextSingle };
    let mut field = Field::new(PERSON, kind);
    field.label = Some("Person on Matrix".to_owned());
    field.required = true;
    if people.len() <= MAX_LISTED {
        let option = |user: &OwnedUserId| Option_ { label: None, value: user.to_string() };
        field.options = people.iter().map(option).collect();
    }
    DataForm {
        type_: DataFormType::Form,
        title: Some(command.title().to_owned()),
        instructions: Some("With whom is the chat that you mean?".to_owned()),
        fields: vec![field],
    }
}

fn told(command: Command, text: &str) -> DataForm {
    let mut field = Field::new("answer", FieldType::TextMulti);
    field.values = text.lines().map(str::to_owned).collect();
    DataForm {
        type_: DataFormType::Result_,
        title: Some(command.title().to_owned()),
        instructions: None,
        fields: vec![field],
    }
}
