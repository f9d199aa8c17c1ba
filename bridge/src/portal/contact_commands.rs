//! What a contact writes to the bridge itself, at its own address on the other network.
//!
//! Only what came encrypted counts: anybody on the way could write the rest.

use ruma::{OwnedUserId, UserId};

use super::{
    Hub, StepError, contact_compares::Answered, from_remote::Step, notices::contact::HELP,
};
use crate::{
    network::{Answer, Inquiry, LegSecurity, MessageContent, RemoteUserId},
    store::{Notice, PendingRemoteEvent},
};

const TRUST: &str = "trust";
const DISTRUST: &str = "distrust";

/// What a contact wants.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Ask {
        inquiry: Inquiry,
        about: Option<OwnedUserId>,
    },
    Compared {
        with: Option<OwnedUserId>,
        is_same: bool,
    },
    /// The fingerprint is as it was typed, without blanks; empty where none was.
    Trust {
        about: Option<OwnedUserId>,
        fingerprint: String,
    },
    Distrust {
        about: Option<OwnedUserId>,
    },
}

const ONLY_ENCRYPTED: &str =
    "I take this only encrypted. Switch on OMEMO in this chat and write it again.";

/// Why something that a contact wrote to the bridge was not taken: a short word, and the words for them.
pub(super) type NotTaken = (&'static str, &'static str);

/// It could not be decrypted.
pub(super) const UNREADABLE: NotTaken = (
    "unreadable",
    "⚠️ I could not read what you wrote to me, and have done nothing. Please send it \
    again. I say this once an hour: what I do not answer, I have not taken.",
);

/// Nobody can approve a contact's keys in the bridge's own chat.
pub(super) const UNAPPROVED: NotTaken = (
    "unapproved",
    "⚠️ I have not taken what you wrote to me, and have done nothing: the device that \
    it came from has another encryption key than before. Write from another device, or remove the keys of this one \
    in your client and let it make new ones. I say this once an hour: what I do not answer, I have not taken.",
);

impl Hub {
    /// Tells a contact that what they wrote to the bridge was not taken: it may have been a decision about a person.
    pub(super) async fn cannot_obey(
        &self,
        row: &PendingRemoteEvent,
        (kind, text): NotTaken,
    ) -> Result<Step, StepError> {
        let contact = &row.event.chat.contact;
        let notice = Notice { scope: contact.as_str(), subject: "", kind };
        let is_told = self.tell_contact_of_batch(contact, notice, text).await?;
        if !is_told && !self.has_waited_too_long(row) {
            return Ok(Step::Waits);
        }
        self.end(row).await
    }

    /// Carries out what a contact wrote to the bridge, and answers. It is done before it begins, like a command of a
    /// Matrix user, so that it is not repeated in another situation than the one they saw. Only a distrust is done
    /// when it is decided: lost it must not be, and said twice it is the same.
    pub(super) async fn obey_contact(
        &self,
        row: &PendingRemoteEvent,
        content: &MessageContent,
        security: LegSecurity,
    ) -> Result<(), StepError> {
        let contact = &row.event.chat.contact;
        let MessageContent::Text { body } = content else { return self.end_row(row).await };
        let wish = parse(body);
        if let Some(Wish::Distrust { about }) = &wish
            && security != LegSecurity::Plaintext
        {
            return self.obey_distrust(row, about.as_deref()).await;
        }
        self.end_row(row).await?;
        if let Err(error) = self.grant(contact, wish, security).await {
            tracing::warn!(error = %crate::error_chain(&error), "portal.contact_command.failed");
            let text = "That did not work. Please try again.";
            self.tell_contact(contact, "answer", text).await;
        }
        Ok(())
    }

    async fn obey_distrust(
        &self,
        row: &PendingRemoteEvent,
        about: Option<&UserId>,
    ) -> Result<(), StepError> {
        let contact = &row.event.chat.contact;
        match self.chat_meant(contact, about).await? {
            Ok(portal) => self.contact_distrusts(&portal, row.id).await,
            Err(answer) => {
                self.end_row(row).await?;
                self.tell_contact(contact, "answer", &in_words(answer, DISTRUST)).await;
                Ok(())
            }
        }
    }

    async fn grant(
        &self,
        contact: &RemoteUserId,
        wish: Option<Wish>,
        security: LegSecurity,
    ) -> Result<(), StepError> {
        let answer = match wish {
            // Once: whoever answers every message by itself would be answered for ever.
            None => {
                let notice = Notice { scope: contact.as_str(), subject: "", kind: "help" };
                return self.tell_contact_once(contact, notice, HELP).await;
            }
            // What came encrypted is obeyed elsewhere.
            Some(Wish::Distrust { .. }) => ONLY_ENCRYPTED.to_owned(),
            Some(wish) if wish.decides() && security == LegSecurity::Plaintext => {
                ONLY_ENCRYPTED.to_owned()
            }
            Some(Wish::Ask { inquiry, about }) => {
                let answer = self.answer_inquiry(contact, inquiry, about.as_deref()).await?;
                in_words(answer, inquiry.word())
            }
            Some(Wish::Trust { about, fingerprint }) => {
                match self.chat_meant(contact, about.as_deref()).await? {
                    Ok(portal) => self.contact_trusts(&portal, &fingerprint).await?,
                    Err(answer) => in_words(answer, TRUST),
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
            Answered::Nothing if is_same => "There is nothing to compare now.".to_owned(),
            Answered::Nothing => "There is nothing to compare now. If something was not the same \
                before, write “distrust”: then nothing crosses between you and them."
                .to_owned(),
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
            Self::Compared { .. } | Self::Trust { .. } | Self::Distrust { .. } => true,
        }
    }
}

fn in_words(answer: Answer, word: &str) -> String {
    match answer {
        Answer::Text(text) => text,
        Answer::Whom(people) => whom(word, &people),
    }
}

fn whom(word: &str, people: &[OwnedUserId]) -> String {
    let choices: Vec<String> = people.iter().map(|user| format!("{word} {user}")).collect();
    format!("With whom? Write one of these:\n{}", choices.join("\n"))
}

/// What a message asks for; `None` when it is none of the wishes.
fn parse(body: &str) -> Option<Wish> {
    let text = body.trim().trim_end_matches(['.', '!']);
    if let Some(decision) = parse_decision(text) {
        return Some(decision);
    }
    let lower = text.to_lowercase();
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

/// A decision about a person. Small and capital letters of a fingerprint differ.
fn parse_decision(text: &str) -> Option<Wish> {
    let mut words = text.split_whitespace().peekable();
    let word = words.next()?.to_lowercase();
    let about = words.next_if(|word| word.starts_with('@'));
    let about = about.map(|user| UserId::parse(user.to_lowercase())).transpose().ok()?;
    let rest: String = words.collect();
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || ['+', '/', '='].contains(&c);
    match word.as_str() {
        TRUST if rest.chars().all(is_base64) => {
            let fingerprint = rest.trim_end_matches('=').to_owned();
            Some(Wish::Trust { about, fingerprint })
        }
        DISTRUST if rest.is_empty() => Some(Wish::Distrust { about }),
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
        let trust = |about: Option<&OwnedUserId>, typed: &str| {
            Some(Wish::Trust { about: about.cloned(), fingerprint: typed.to_owned() })
        };
        let distrust = |about: Option<&OwnedUserId>| Some(Wish::Distrust { about: about.cloned() });
        for (body, wish) in [
            ("help", ask(Inquiry::Help, None)),
            ("Security.", ask(Inquiry::Security, None)),
            ("devices  @alice:example.org", ask(Inquiry::Devices, Some(&alice))),
            ("pending", ask(Inquiry::Pending, None)),
            ("verify", ask(Inquiry::Verify, None)),
            ("verify @alice:example.org", ask(Inquiry::Verify, Some(&alice))),
            ("match", compared(None, true)),
            (" Match! ", compared(None, true)),
            ("no match", compared(None, false)),
            ("No match @alice:example.org", compared(Some(alice.clone()), false)),
            ("match @alice:example.org", compared(Some(alice.clone()), true)),
            ("trust @alice:example.org aB+/ cD=", trust(Some(&alice), "aB+/cD")),
            ("Trust aBcD.", trust(None, "aBcD")),
            ("trust @Alice:example.org", trust(Some(&alice), "")),
            ("trust", trust(None, "")),
            ("distrust @alice:example.org", distrust(Some(&alice))),
            ("DISTRUST", distrust(None)),
            ("distrust alice", None),
            ("distrust @alice", None),
            ("trust @alice:example.org, she is fine", None),
            ("trusty", None),
            ("I distrust @alice:example.org", None),
            ("> distrust @alice:example.org", None),
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
