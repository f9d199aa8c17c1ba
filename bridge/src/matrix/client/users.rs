//! Users and their profiles, and the appservice's own account.
//!
//! Spec: <https://spec.matrix.org/v1.17/application-service-api/>

use ruma::{
    UserId,
    api::client::{
        account::register,
        appservice::request_ping,
        profile::{get_profile, set_profile_field},
    },
    profile::{ProfileFieldName, ProfileFieldValue},
};

use super::{ClientError, Identity, MatrixClient, Repeat};

impl MatrixClient {
    /// Makes sure that a user of our namespaces is registered.
    ///
    /// # Errors
    /// See [`ClientError`]; `M_EXCLUSIVE` when the user is not of our namespaces.
    pub async fn ensure_registered(&self, user: &UserId) -> Result<(), ClientError> {
        let mut request = register::v3::Request::new();
        request.username = Some(user.localpart().to_owned());
        request.login_type = Some(register::LoginType::ApplicationService);
        request.inhibit_login = true;
        match self.send(None, Repeat::Safe, request).await {
            Err(error) if error.errcode() == Some("M_USER_IN_USE") => Ok(()),
            result => result.map(drop),
        }
    }

    /// Sets a user's display name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_display_name(&self, user: &UserId, name: &str) -> Result<(), ClientError> {
        let value = ProfileFieldValue::DisplayName(name.to_owned());
        let request = set_profile_field::v3::Request::new(user.to_owned(), value);
        self.send(Some(Identity::user(user)), Repeat::Safe, request).await.map(drop)
    }

    /// The display name of any user, asked as `who`. `None` when they have none or are unknown.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fetch_display_name(
        &self,
        who: &UserId,
        user: &UserId,
    ) -> Result<Option<String>, ClientError> {
        match self.fetch_profile(who, user).await {
            Ok(profile) => Ok(profile
                .get(ProfileFieldName::DisplayName.as_str())
                .and_then(|name| name.as_str())
                .map(str::to_owned)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn fetch_profile(
        &self,
        who: &UserId,
        user: &UserId,
    ) -> Result<get_profile::v3::Response, ClientError> {
        let request = get_profile::v3::Request::new(user.to_owned());
        self.send(Some(Identity::user(who)), Repeat::Safe, request).await
    }

    /// Whether a user of the homeserver may exist: only "not found" is a no, because a homeserver
    /// need not show profiles to everybody.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn may_exist(&self, who: &UserId, user: &UserId) -> Result<bool, ClientError> {
        match self.fetch_profile(who, user).await {
            Err(error) if error.is_temporary() => Err(error),
            result => Ok(!result.is_err_and(|error| error.is_not_found())),
        }
    }

    /// Asks the homeserver to call us, which also ends its waiting after failed transactions.
    ///
    /// # Errors
    /// See [`ClientError`]; `M_CONNECTION_FAILED`, `M_BAD_STATUS` and the like when the
    /// homeserver could not reach us.
    pub async fn ping(&self, appservice_id: &str) -> Result<(), ClientError> {
        let request = request_ping::v1::Request::new(appservice_id.to_owned());
        self.send(None, Repeat::Safe, request).await.map(drop)
    }
}
