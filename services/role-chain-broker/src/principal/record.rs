//! What is stored of a principal: typed, versioned, and without a secret in clear.

use contracts::{RoleArn, TenantId, Timestamp, UserArn};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{sts::Keys, wrap::Wrapped};

/// The value in the bucket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "version")]
enum Stored {
    #[serde(rename = "1")]
    V1(Record),
}

/// One principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub tenant: TenantId,
    pub user_arn: UserArn,
    pub role_arn: RoleArn,
    #[serde(flatten)]
    pub state: State,
    pub updated_at: Timestamp,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Somebody is making the access key. Whoever wrote its own claim last may store a key; all others must not.
    Making { claim: Uuid },
    /// It can be used.
    Ready { key: Wrapped },
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("the stored {what} has not the form of any version that this program knows: is the writer newer?")]
pub struct RecordError {
    what: &'static str,
}

impl Record {
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        serde_json::to_vec(&Stored::V1(self.clone())).map_err(|_| RecordError { what: "principal" })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match serde_json::from_slice(bytes) {
            Ok(Stored::V1(record)) => Ok(record),
            Err(_) => Err(RecordError { what: "principal" }),
        }
    }
}

/// What is wrapped: the ID too, so that nothing of the key lies in the bucket.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct PlainKey {
    id: String,
    secret: String,
}

pub(super) fn encode_key(keys: &Keys) -> Result<Zeroizing<Vec<u8>>, RecordError> {
    let plain = PlainKey {
        id: keys.access_key_id.expose_secret().to_owned(),
        secret: keys.secret_access_key.expose_secret().to_owned(),
    };
    serde_json::to_vec(&plain).map(Zeroizing::new).map_err(|_| RecordError { what: "access key" })
}

pub(super) fn decode_key(bytes: &[u8]) -> Result<Keys, RecordError> {
    let plain: PlainKey = serde_json::from_slice(bytes).map_err(|_| RecordError { what: "access key" })?;
    Ok(Keys {
        access_key_id: plain.id.as_str().into(),
        secret_access_key: plain.secret.as_str().into(),
        session_token: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_stored_by_the_first_version() {
        let golden = r#"{"version":"1","tenant":"01890a5d-ac96-774b-bcce-b302099a8057","user_arn":"arn:aws:iam::111111111111:user/rolebridge/rolebridge-01890a5d-ac96-774b-bcce-b302099a8057","role_arn":"arn:aws:iam::111111111111:role/rolebridge/rolebridge-01890a5d-ac96-774b-bcce-b302099a8057","state":"ready","key":{"by":"local:0011223344556677","sealed":"c2VhbGVk"},"updated_at":"2026-11-01T00:00:00Z"}"#;
        let record = Record::decode(golden.as_bytes()).unwrap();
        assert!(matches!(record.state, State::Ready { .. }));
        assert_eq!(String::from_utf8(record.encode().unwrap()).unwrap(), golden);
        assert!(Record::decode(golden.replace(r#""version":"1""#, r#""version":"2""#).as_bytes()).is_err());
    }
}
