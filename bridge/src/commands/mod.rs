//! What people type to the bridge bot.
//!
//! A command is a file with a [`Command`] and a line in [`COMMANDS`]. Who may give commands, and
//! that they came from a person in an event as protected as its room, is settled before
//! [`run`] is called.

mod approve;
mod chat;
mod devices;
mod distrust;
mod help;
mod pending;
mod plaintext;
mod qr;
mod rotate;
mod security;
mod trust;
mod verify;
mod version;
pub(crate) mod words;

use async_trait::async_trait;
use ruma::{RoomId, UserId};

use crate::{
    network::{Decider, IdentityTrust, LegSecurity},
    portal::Hub,
    store::{Portal, RoomEncryption},
};

/// Stands before a command inside a portal.
pub const PREFIX: &str = "!xmpp";

const COMMANDS: &[&dyn Command] = &[
    &help::Help,
    &chat::Chat,
    &security::Security,
    &devices::Devices,
    &trust::Trust,
    &distrust::Distrust,
    &approve::Approve,
    &pending::Pending,
    &qr::Qr,
    &rotate::Rotate,
    &verify::Verify,
    &plaintext::Plaintext,
    &version::Version,
];

/// One command.
#[async_trait]
trait Command: Send + Sync {
    /// The word that calls it.
    fn name(&self) -> &'static str;
    /// Its arguments, for the help.
    fn usage(&self) -> &'static str;
    /// What it does, in one line.
    fn about(&self) -> &'static str;
    /// How it is used, for the help; empty when the usage shows it.
    fn example(&self) -> &'static str {
        ""
    }
    /// Does it, and gives the answer.
    async fn run(&self, call: &Call<'_>, arguments: &[&str]) -> String;
}

/// Who gives a command, and where.
pub struct Call<'a> {
    /// The portals.
    pub hub: &'a Hub,
    /// Who gives it.
    pub sender: &'a UserId,
    /// The room it is given in.
    pub room: &'a RoomId,
    /// Whether that is encrypted.
    pub encryption: RoomEncryption,
    /// The portal it is given in; `None` in a management room.
    pub portal: Option<&'a Portal>,
    /// How it came.
    pub security: LegSecurity,
    /// The public master key behind it; `None` when it came in the clear.
    pub identity: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// The portal in which a decision can be made about a contact.
    ///
    /// # Errors
    /// The answer to who may not, or not here.
    fn deciding_portal(&self) -> Result<&'a Portal, String> {
        let Some(portal) = self.portal else {
            return Err("Say this in the chat it is meant for.".to_owned());
        };
        if self.identity.is_none() {
            // Whoever carries it could have written it.
            return Err("I take this only encrypted: say it in an encrypted chat.".to_owned());
        }
        if self.is_of_changed_identity() {
            return Err("Approve your own identity first: write “!xmpp approve me”.".to_owned());
        }
        Ok(portal)
    }

    /// Who decides what this call decides.
    fn decider(&self) -> Decider {
        Decider::Person(self.sender.to_owned())
    }

    /// Whether it is given by an identity that is not the pinned one. Such a one may approve
    /// itself, but decides nothing else.
    pub fn is_of_changed_identity(&self) -> bool {
        self.security == LegSecurity::Encrypted { identity: IdentityTrust::Changed }
    }
}

/// The command in a message: what follows [`PREFIX`] in a portal, everything in a management
/// room. `None` when the message is none.
pub fn parse(body: &str, in_portal: bool) -> Option<&str> {
    let body = body.trim();
    let command = match body.strip_prefix(PREFIX) {
        Some(rest) if rest.is_empty() || rest.starts_with(char::is_whitespace) => rest.trim(),
        _ if in_portal => return None,
        _ => body,
    };
    // A second line is no part of a command, and what is quoted was said by somebody else.
    (!command.contains('\n') && !command.starts_with('>')).then_some(command)
}

/// Runs a command and gives the answer for the room it came from.
pub async fn run(call: &Call<'_>, command: &str) -> String {
    let mut words = command.split_whitespace();
    let name = words.next().unwrap_or("help");
    let arguments: Vec<&str> = words.collect();
    match COMMANDS.iter().find(|command| command.name().eq_ignore_ascii_case(name)) {
        Some(command) => command.run(call, &arguments).await,
        None => "I do not know this command. Say “help” for those I know.".to_owned(),
    }
}

fn usage_of(command: &dyn Command) -> String {
    format!("Usage: {} {}", command.name(), command.usage())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_shows_an_example_of_whatever_takes_arguments() {
        for command in COMMANDS {
            let (name, example) = (command.name(), command.example());
            let is_shown = example.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
            assert_eq!(is_shown, !command.usage().is_empty(), "{name}");
            assert!(!command.about().is_empty(), "{name}");
        }
    }

    #[test]
    fn a_portal_needs_the_prefix_and_a_management_room_takes_both() {
        for (body, in_portal, command) in [
            ("help", false, Some("help")),
            ("!xmpp chat bob@example.org", false, Some("chat bob@example.org")),
            ("!xmpp approve", true, Some("approve")),
            ("!xmpp", true, Some("")),
            ("approve", true, None),
            ("!xmppapprove", true, None),
            ("hello !xmpp approve", true, None),
            ("!xmpp approve\nand more", true, None),
            ("> <@alice:example.org> !xmpp approve", true, None),
            ("> approve", false, None),
        ] {
            assert_eq!(parse(body, in_portal), command, "{body:?}");
        }
    }
}
