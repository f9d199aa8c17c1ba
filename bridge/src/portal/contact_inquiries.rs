//! What contacts ask the bridge about people, in its chat or in a form of their network.
//!
//! A contact learns only of people who have joined a chat with them, and only public keys.

use ruma::UserId;

use super::{DecideError, Hub, StepError, notices::contact as words};
use crate::{
    network::{Answer, Author, Inquiry, RemoteUserId},
    store::{Portal, PortalState},
};

impl From<DecideError> for StepError {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Store(error) => error.into(),
            DecideError::Matrix(error) => error.into(),
            DecideError::Remote(error) => error.into(),
        }
    }
}

impl Hub {
    /// See [`crate::network::Inquiries::inquire`].
    pub(super) async fn answer_inquiry(
        &self,
        contact: &RemoteUserId,
        inquiry: Inquiry,
        about: Option<&UserId>,
    ) -> Result<Answer, StepError> {
        if inquiry == Inquiry::Help {
            return Ok(Answer::Text(words::HELP.to_owned()));
        }
        let portal = match self.chat_meant(contact, about).await? {
            Ok(portal) => portal,
            Err(answer) => return Ok(answer),
        };
        let portal = &portal;
        Ok(Answer::Text(match inquiry {
            Inquiry::Help => words::HELP.to_owned(),
            Inquiry::Security => {
                words::security(portal, self.remote_encryption(), &self.matrix_keys(portal).await?)
            }
            Inquiry::Devices => {
                let remote = &self.parts.remote;
                let person = Author::Person(portal.local.clone());
                let own =
                    [remote.own_device(&person).await?, remote.own_device(&Author::Bridge).await?];
                words::devices(&portal.local, &self.matrix_keys(portal).await?, &own)
            }
            Inquiry::Pending => words::pending(&self.pending_in(portal).await?),
            Inquiry::Verify => match self.begin_verification(&portal.local, contact).await? {
                Ok(()) => words::asked(&portal.local),
                Err(why) => <&str>::from(why).to_owned(),
            },
        }))
    }

    /// The chat that a contact means, with `about` or else with the only person they have one with;
    /// or the answer where there is none, or more than one.
    pub(super) async fn chat_meant(
        &self,
        contact: &RemoteUserId,
        about: Option<&UserId>,
    ) -> Result<Result<Portal, Answer>, StepError> {
        let mut portals = self.joined_portals_with(contact).await?;
        portals.retain(|portal| about.is_none_or(|user| portal.local == *user));
        if portals.len() > 1 {
            return Ok(Err(Answer::Whom(portals.into_iter().map(|it| it.local).collect())));
        }
        Ok(portals.pop().ok_or_else(|| Answer::Text(words::NO_CHAT.to_owned())))
    }

    /// The portals of a contact with people who are there and may use the bridge.
    async fn joined_portals_with(&self, contact: &RemoteUserId) -> Result<Vec<Portal>, StepError> {
        let mut tx = self.parts.db.read().await?;
        let mut portals = tx.portals().load_by_contact(self.parts.network.name(), contact).await?;
        portals.retain(|it| it.state == PortalState::Active && self.may_use(&it.local));
        Ok(portals)
    }
}
