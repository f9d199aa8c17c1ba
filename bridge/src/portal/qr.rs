//! Pictures of what others scan: the person's address on the other network, with the key that the
//! bridge has there for them.

use matrix_sdk_crypto::AttachmentEncryptor;
use qrcode::{Color, QrCode};
use ruma::{RoomId, UserId};
use serde_json::{Map, Value, json};

use super::Hub;
use crate::{
    matrix::{ClientError, EncryptError},
    network::{Author, SendError},
    store::{RoomEncryption, StoreError},
};

/// Pixels of a module's side.
const SCALE: u32 = 8;
/// Modules of white around the code, as ISO/IEC 18004 asks for.
const QUIET: u32 = 4;

/// Why there is no picture in the room.
#[derive(Debug, thiserror::Error)]
pub enum QrError {
    /// The network has no URI for the person at the moment.
    #[error("the network gives no URI")]
    Remote(#[from] SendError),
    /// It does not fit into a picture.
    #[error("the picture cannot be made")]
    Picture,
    /// The homeserver did not take the file.
    #[error("the picture could not be uploaded")]
    Upload(#[from] ClientError),
    /// The file or its event could not be encrypted.
    #[error("the picture could not be encrypted")]
    Encrypt(#[from] EncryptError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// A grey picture of one byte per pixel.
struct Picture {
    side: u32,
    pixels: Vec<u8>,
}

impl Hub {
    /// The URI that names a person on the other network with their key there.
    ///
    /// # Errors
    /// [`QrError::Remote`] when the network has none at the moment.
    pub async fn own_uri(&self, user: &UserId) -> Result<String, QrError> {
        Ok(self.parts.remote.own_uri(&Author::Person(user.to_owned())).await?)
    }

    /// The bot posts a text as a QR code, for `reader`.
    ///
    /// # Errors
    /// See [`QrError`]; then there is nothing in the room.
    pub async fn post_qr(
        &self,
        (room, reader): (&RoomId, &UserId),
        encryption: RoomEncryption,
        text: &str,
    ) -> Result<(), QrError> {
        let picture = Picture::of(text)?;
        let png = picture.to_png()?;
        let info = json!({ "mimetype": "image/png", "size": png.len(), "w": picture.side, "h": picture.side });
        let mut content = Map::new();
        content.insert("msgtype".to_owned(), json!("m.image"));
        content.insert("body".to_owned(), json!("qr.png"));
        content.insert("info".to_owned(), info);
        content.insert("m.mentions".to_owned(), json!({}));
        let bot = self.parts.namespace.bot();
        match encryption {
            RoomEncryption::Plain => {
                let url = self.parts.client.upload(bot, "image/png", png).await?;
                content.insert("url".to_owned(), json!(url));
            }
            RoomEncryption::Encrypted => {
                let (file, mut keys) = encrypt_file(&png)?;
                let url = self.parts.client.upload(bot, "application/octet-stream", file).await?;
                keys.insert("url".to_owned(), json!(url));
                content.insert("file".to_owned(), Value::Object(keys));
            }
        }
        let kind = "m.room.message";
        let (staged, _) = self.stage(bot, (room, reader), encryption, kind, |_| content).await?;
        let mut tx = self.parts.db.begin().await?;
        tx.matrix_outbox().insert(&staged).await?;
        tx.commit().await?;
        self.parts.outbox.ring(room);
        Ok(())
    }
}

/// A file under a key of its own, and the content of an event's `file` but for the address.
fn encrypt_file(mut file: &[u8]) -> Result<(Vec<u8>, Map<String, Value>), QrError> {
    use std::io::Read as _;

    let mut encryptor = AttachmentEncryptor::new(&mut file);
    let mut encrypted = Vec::new();
    encryptor.read_to_end(&mut encrypted).map_err(|_| QrError::Picture)?;
    match serde_json::to_value(encryptor.finish()) {
        Ok(Value::Object(keys)) => Ok((encrypted, keys)),
        _ => Err(QrError::Picture),
    }
}

impl Picture {
    fn of(text: &str) -> Result<Self, QrError> {
        let code = QrCode::new(text).map_err(|_| QrError::Picture)?;
        let modules = u32::try_from(code.width()).map_err(|_| QrError::Picture)?;
        let (side, colors) = ((modules + 2 * QUIET) * SCALE, code.to_colors());
        let module = |x: u32, y: u32| {
            let (x, y) = ((x / SCALE).checked_sub(QUIET)?, (y / SCALE).checked_sub(QUIET)?);
            let is_inside = x < modules && y < modules;
            let index = usize::try_from(y * modules + x).ok()?;
            colors.get(index).copied().filter(|_| is_inside)
        };
        let grey = |color| if color == Some(Color::Dark) { 0 } else { u8::MAX };
        let pixels = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
        Ok(Self { side, pixels: pixels.map(|(x, y)| grey(module(x, y))).collect() })
    }

    fn to_png(&self) -> Result<Vec<u8>, QrError> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.side, self.side);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(|_| QrError::Picture)?;
        writer.write_image_data(&self.pixels).map_err(|_| QrError::Picture)?;
        writer.finish().map_err(|_| QrError::Picture)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use matrix_sdk_crypto::{AttachmentDecryptor, MediaEncryptionInfo};

    use super::*;

    /// What a scanner reads from a picture.
    fn scan(png: &[u8]) -> String {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let (width, height) = (info.width as usize, info.height as usize);
        let at = |x: usize, y: usize| pixels[y * width + x];
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, height, at);
        let codes = picture.detect_grids();
        assert_eq!(codes.len(), 1);
        codes[0].decode().unwrap().1
    }

    #[test]
    fn a_picture_is_read_back() {
        let uri = format!(
            "xmpp:alice%25example.com@bridge.example.net?omemo-sid-7={}",
            "09ab".repeat(16)
        );
        assert_eq!(scan(&Picture::of(&uri).unwrap().to_png().unwrap()), uri);
        assert!(matches!(Picture::of(&"x".repeat(5000)), Err(QrError::Picture)));
    }

    #[test]
    fn the_homeserver_gets_nothing_that_it_could_read() {
        let png = Picture::of("xmpp:a@b").unwrap().to_png().unwrap();
        let (file, keys) = encrypt_file(&png).unwrap();
        assert_eq!(file.len(), png.len());
        assert_ne!(file, png);
        let info: MediaEncryptionInfo = serde_json::from_value(Value::Object(keys)).unwrap();
        let mut file = file.as_slice();
        let mut decrypted = Vec::new();
        let mut decryptor = AttachmentDecryptor::new(&mut file, info).unwrap();
        decryptor.read_to_end(&mut decrypted).unwrap();
        assert_eq!(scan(&decrypted), "xmpp:a@b");
    }
}
