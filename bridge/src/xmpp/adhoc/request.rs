//! What is asked for (XEP-0050 section 3).

use minidom::Element;
use xmpp_parsers::data_forms::DataForm;

use super::DATA_FORMS;
use crate::{network::Inquiry, xmpp::stanza::Refusal};

/// Longest session id; ours are shorter.
const MAX_SESSION_BYTES: usize = 64;

/// A command that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::xmpp) struct Command(Inquiry);

impl Command {
    /// All of them, in the order in which they are listed.
    pub(in crate::xmpp) fn all() -> impl Iterator<Item = Self> {
        Inquiry::ALL.into_iter().map(Self)
    }

    pub(in crate::xmpp) fn inquiry(self) -> Inquiry {
        self.0
    }

    /// Its name for programs.
    pub(in crate::xmpp) fn node(self) -> &'static str {
        self.0.word()
    }

    /// Its name for people.
    pub(in crate::xmpp) fn title(self) -> &'static str {
        match self.0 {
            Inquiry::Help => "What you can tell this bridge",
            Inquiry::Security => "How a chat is protected",
            Inquiry::Devices => "Keys to compare",
            Inquiry::Pending => "What waits",
            Inquiry::Verify => "Compare emoji with a person on Matrix",
        }
    }

    pub(in crate::xmpp) fn parse(node: &str) -> Option<Self> {
        Self::all().find(|command| command.node() == node)
    }
}

/// What is to be done with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The obvious thing: to begin it, or to end it with what was filled in.
    Execute,
    Complete,
    Cancel,
}

/// A request about a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub command: Command,
    pub action: Action,
    /// The session that it goes on with.
    pub session: Option<String>,
    pub form: Option<DataForm>,
}

impl Request {
    pub(super) fn read(command: &Element) -> Result<Self, Refusal> {
        let action = match command.attr("action") {
            None | Some("execute") => Action::Execute,
            Some("complete") => Action::Complete,
            Some("cancel") => Action::Cancel,
            // There is but one form.
            Some("next" | "prev") => return Err(Refusal::BadAction),
            Some(_) => return Err(Refusal::MalformedAction),
        };
        let node = command.attr("node").ok_or(Refusal::BadRequest)?;
        let session = match command.attr("sessionid") {
            Some(session) if session.len() > MAX_SESSION_BYTES => {
                return Err(Refusal::BadSessionId);
            }
            session => session.map(str::to_owned),
        };
        let form = command.get_child("x", DATA_FORMS).cloned().map(DataForm::try_from);
        Ok(Self {
            command: Command::parse(node).ok_or(Refusal::ItemNotFound)?,
            action,
            session,
            form: form.transpose().map_err(|_| Refusal::BadPayload)?,
        })
    }
}
