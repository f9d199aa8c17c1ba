//! The media repository.
//!
//! Spec: <https://spec.matrix.org/v1.17/client-server-api/#content-repository>

use ruma::{OwnedMxcUri, UserId, api::client::media::create_content};

use super::{ClientError, Identity, MatrixClient, Repeat};

impl MatrixClient {
    /// Uploads a file as `who`. What is not for the homeserver's eyes is encrypted before.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload(
        &self,
        who: &UserId,
        content_type: &str,
        file: Vec<u8>,
    ) -> Result<OwnedMxcUri, ClientError> {
        let mut request = create_content::v3::Request::new(file);
        request.content_type = Some(content_type.to_owned());
        let response = self.send(Some(Identity::user(who)), Repeat::Unsafe, request).await?;
        Ok(response.content_uri)
    }
}
