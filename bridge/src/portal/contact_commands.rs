//! What a contact writes to the bridge itself, at its own address on the other network.
//!
//! Only what came encrypted counts: anybody on the way could write the rest.

use ruma::{OwnedUserId, UserId};

use super::{Hub, StepError, verification::Answered};
use crate::{
    network::{LegSecurity, MessageContent, RemoteUserId},
    store::Notice,
};

const HELP: &str = "I am the bridge to Matrix. What you can write to me:\n\
    verify @name:server — compares encryption keys with a person on Matrix, by emoji.\n\
    match — what you see is what they see.\n\
    no match — it is not.\n\
    help — this.";

/// What a contact wants.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Help,
    Verify(OwnedUserId),
    Compared { with: Option<OwnedUserId>, is_same: bool },
}

impl Hub {
    /// Carries out what a contact wrote to the bridge, and answers.
    pub(super) async fn obey_contact(
        &self,
        contact: &RemoteUserId,
        content: &MessageContent,
        security: LegSecurity,
    ) -> Result<(), StepError> {
        let MessageContent::Text { body } = content else { return Ok(()) };
        let answer = match parse(body) {
            // Once: whoever answers every message by itself would be answered for ever.
            None => {
                let notice = Notice { scope: contact.as_str(), subject: "", kind: "help" };
                return self.tell_contact_once(contact, notice, HELP).await;
            }
            Some(Wish::Help) => HELP.to_owned(),
            Some(_) if security == LegSecurity::Plaintext => {
                "I take this only encrypted. Switch on OMEMO in this chat and write it again."
                    .to_owned()
            }
            Some(Wish::Verify(user)) => self.contact_verifies(contact, &user).await?,
            Some(Wish::Compared { with, is_same }) => {
                self.contact_answers(contact, with.as_deref(), is_same).await?
            }
        };
        self.tell_contact(contact, "answer", &answer).await;
        Ok(())
    }

    async fn contact_verifies(
        &self,
        contact: &RemoteUserId,
        user: &UserId,
    ) -> Result<String, StepError> {
        Ok(match self.begin_verification(user, contact).await? {
            Ok(()) => format!(
                "I have asked {user}. As soon as they accept, you see seven emoji here and have about \
                 a minute to compare them: call them, or meet them."
            ),
            Err(why) => <&str>::from(why).to_owned(),
        })
    }

    async fn contact_answers(
        &self,
        contact: &RemoteUserId,
        with: Option<&UserId>,
        is_same: bool,
    ) -> Result<String, StepError> {
        Ok(match self.contact_compared(contact, with, is_same).await? {
            Answered::Done if is_same => "Thank you. I wait for them to say the same.".to_owned(),
            Answered::Done => "I have ended it. Somebody may be listening: do not trust this chat \
                until a comparison has succeeded."
                .to_owned(),
            Answered::Nothing => "There is nothing to compare now.".to_owned(),
            Answered::Ambiguous => {
                let people = self.comparing_with(contact).await?;
                let word = if is_same { "match" } else { "no match" };
                let choices: Vec<String> =
                    people.iter().map(|user| format!("{word} {user}")).collect();
                format!("With whom? Write one of these:\n{}", choices.join("\n"))
            }
        })
    }
}

/// What a message asks for; `None` when it is none of the wishes.
fn parse(body: &str) -> Option<Wish> {
    let lower = body.trim().trim_end_matches(['.', '!']).to_lowercase();
    let user = |text: &str| UserId::parse(text.trim()).ok();
    if lower == "help" {
        return Some(Wish::Help);
    }
    if let Some(rest) = lower.strip_prefix("verify ") {
        return user(rest).map(Wish::Verify);
    }
    let (rest, is_same) = match lower.strip_prefix("no match") {
        Some(rest) => (rest, false),
        None => (lower.strip_prefix("match")?, true),
    };
    match rest {
        "" => Some(Wish::Compared { with: None, is_same }),
        rest if rest.starts_with(' ') => Some(Wish::Compared { with: Some(user(rest)?), is_same }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn only_the_very_words_count() {
        let alice = user_id!("@alice:example.org").to_owned();
        let compared = |with: Option<OwnedUserId>, is_same| Some(Wish::Compared { with, is_same });
        for (body, wish) in [
            ("help", Some(Wish::Help)),
            ("match", compared(None, true)),
            (" Match! ", compared(None, true)),
            ("no match", compared(None, false)),
            ("No match @alice:example.org", compared(Some(alice.clone()), false)),
            ("match @alice:example.org", compared(Some(alice.clone()), true)),
            ("verify @alice:example.org", Some(Wish::Verify(alice))),
            ("verify alice", None),
            ("matches", None),
            ("match alice", None),
            ("they match", None),
            ("> match", None),
            ("not match", None),
        ] {
            assert_eq!(parse(body), wish, "{body:?}");
        }
    }
}
