//! What a contact writes to the bridge itself, at its own address on the other network.
//!
//! Only what came encrypted counts: anybody on the way could write the rest.

use ruma::{OwnedUserId, UserId};

use super::{Hub, StepError, notices::contact::HELP, verification::Answered};
use crate::{
    network::{Answer, Inquiry, LegSecurity, MessageContent, RemoteUserId},
    store::Notice,
};

/// What a contact wants.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Ask { inquiry: Inquiry, about: Option<OwnedUserId> },
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
            Some(wish) if wish.decides() && security == LegSecurity::Plaintext => {
                "I take this only encrypted. Switch on OMEMO in this chat and write it again."
                    .to_owned()
            }
            Some(Wish::Ask { inquiry, about }) => {
                match self.answer_inquiry(contact, inquiry, about.as_deref()).await? {
                    Answer::Text(text) => text,
                    Answer::Whom(people) => whom(inquiry.word(), &people),
                }
            }
            Some(Wish::Compared { with, is_same }) => {
                self.contact_answers(contact, with.as_deref(), is_same).await?
            }
        };
        self.tell_contact(contact, "answer", &answer).await;
        Ok(())
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
                whom(if is_same { "match" } else { "no match" }, &people)
            }
        })
    }
}

impl Wish {
    /// Whether something follows from it that only an encrypted word can bring about.
    fn decides(&self) -> bool {
        match self {
            Self::Ask { inquiry, .. } => *inquiry == Inquiry::Verify,
            Self::Compared { .. } => true,
        }
    }
}

fn whom(word: &str, people: &[OwnedUserId]) -> String {
    let choices: Vec<String> = people.iter().map(|user| format!("{word} {user}")).collect();
    format!("With whom? Write one of these:\n{}", choices.join("\n"))
}

/// What a message asks for; `None` when it is none of the wishes.
fn parse(body: &str) -> Option<Wish> {
    let lower = body.trim().trim_end_matches(['.', '!']).to_lowercase();
    let user = |text: &str| UserId::parse(text.trim()).ok();
    for inquiry in Inquiry::ALL {
        match lower.strip_prefix(inquiry.word()) {
            Some("") => return Some(Wish::Ask { inquiry, about: None }),
            Some(rest) if rest.starts_with(' ') && inquiry != Inquiry::Help => {
                let about = Some(user(rest)?);
                return Some(Wish::Ask { inquiry, about });
            }
            _ => {}
        }
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
        let ask = |inquiry, about: Option<&OwnedUserId>| {
            Some(Wish::Ask { inquiry, about: about.cloned() })
        };
        let compared = |with: Option<OwnedUserId>, is_same| Some(Wish::Compared { with, is_same });
        for (body, wish) in [
            ("help", ask(Inquiry::Help, None)),
            ("Security.", ask(Inquiry::Security, None)),
            ("devices  @alice:example.org", ask(Inquiry::Devices, Some(&alice))),
            ("verify", ask(Inquiry::Verify, None)),
            ("verify @alice:example.org", ask(Inquiry::Verify, Some(&alice))),
            ("match", compared(None, true)),
            (" Match! ", compared(None, true)),
            ("no match", compared(None, false)),
            ("No match @alice:example.org", compared(Some(alice.clone()), false)),
            ("match @alice:example.org", compared(Some(alice.clone()), true)),
            ("help me", None),
            ("securityx", None),
            ("devices of alice", None),
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
