//! What is stored of a principal: typed, versioned, and without a secret in clear.

use contracts::{AccountId, RoleArn, TenantId, Timestamp, UserArn, tenant::Drift};
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
    /// Both name the account that it lives in.
    pub user_arn: UserArn,
    pub role_arn: RoleArn,
    #[serde(flatten)]
    pub state: State,
    /// When it was changed last, other than by looking at it.
    pub updated_at: Timestamp,
    /// The role's unique ID in IAM, as it was seen first. Customers' trust policies hold on to it, whatever the role's name is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_id: Option<String>,
    /// What the role began before this instant is denied. It only ever grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_before: Option<Timestamp>,
    /// When user and role were last compared with what they must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<Timestamp>,
    /// Who works on it at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// What was found to differ, and is not told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    /// Accounts in which it was begun and is not to be, because IAM took no more there: what is found in them is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<AccountId>,
}

/// The instance that works on a principal. It only keeps others from doing the same: safety hangs on claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub holder: Uuid,
    pub until: Timestamp,
}

/// Written before anything is mended, so that a crash cannot silence it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Becomes the event's ID.
    pub id: Uuid,
    pub found: Vec<Drift>,
}

/// How far it is. A program of before there was rotation reads a principal in rotation as one that is ready, with a key that works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// User and role, or the access key, are being made. Whoever wrote its own claim last may store a key; all others must not.
    Making { claim: Uuid },
    /// It can be used, with this key.
    Ready {
        key: Wrapped,
        /// When the key was made; absent in records of before there was rotation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made_at: Option<Timestamp>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rotation: Option<Rotation>,
    },
    /// Its tenant has ended, and it is being deleted.
    Removing,
    /// It is gone for good. The record stays, so that nobody makes it again.
    Removed,
}

/// How far the change of the access key is. `key` of [`State::Ready`] is one that is known to work, at every step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Rotation {
    /// Somebody is making the new key. Whoever wrote its own claim last may store one; all others must not.
    Making { claim: Uuid },
    /// The new one is there, and nobody has seen it work yet.
    Proving { new: Wrapped, made_at: Timestamp },
    /// The new one is in use. The old one is disabled, and after a time deleted.
    Retiring {
        old: Wrapped,
        /// Becomes the event's ID.
        id: Uuid,
        since: Timestamp,
    },
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("the stored {what} has not the form of any version that this program knows: is the writer newer?")]
pub struct RecordError {
    what: &'static str,
}

impl Record {
    /// Of a principal of which nothing is known yet.
    pub fn new(tenant: TenantId, user_arn: UserArn, role_arn: RoleArn, state: State) -> Self {
        let (role_id, denied_before, looked_at, lease, alarm) = (None, None, None, None, None);
        let updated_at = Timestamp::now();
        let left = Vec::new();
        Self { tenant, user_arn, role_arn, state, updated_at, role_id, denied_before, looked_at, lease, alarm, left }
    }

    pub fn enter(&mut self, state: State) {
        self.state = state;
        self.updated_at = Timestamp::now();
    }

    /// Something of it changed, though not its state.
    pub fn touch(&mut self) {
        let known = self.key_made_at();
        // `updated_at` stands in for the time of making in old records: it is written down before it moves on.
        if let State::Ready { made_at: unknown @ None, .. } = &mut self.state {
            *unknown = known;
        }
        self.updated_at = Timestamp::now();
    }

    /// Its tenant has ended: nobody makes it or mends it any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Removing | State::Removed)
    }

    /// When the key in use was made, as far as it is known.
    pub fn key_made_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Ready { made_at, .. } => Some(made_at.unwrap_or(self.updated_at)),
            _ => None,
        }
    }

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
        assert_eq!(record.key_made_at(), Some(record.updated_at), "an old record has no better word");
        assert!(Record::decode(golden.replace(r#""version":"1""#, r#""version":"2""#).as_bytes()).is_err());
    }

    /// What a program of before there was rotation reads.
    #[derive(Deserialize)]
    struct Old {
        state: String,
        key: Wrapped,
    }

    #[test]
    fn in_rotation_older_programs_find_a_key_that_works() {
        let wrapped = |text: &str| serde_json::from_value::<Wrapped>(serde_json::json!({ "by": text, "sealed": "" }));
        let golden = r#"{"version":"1","tenant":"01890a5d-ac96-774b-bcce-b302099a8057","user_arn":"arn:aws:iam::111111111111:user/rolebridge/rolebridge-01890a5d-ac96-774b-bcce-b302099a8057","role_arn":"arn:aws:iam::111111111111:role/rolebridge/rolebridge-01890a5d-ac96-774b-bcce-b302099a8057","state":"ready","key":{"by":"in use","sealed":""},"made_at":"2026-11-01T00:00:00Z","rotation":{"step":"proving","new":{"by":"new","sealed":""},"made_at":"2026-11-30T00:00:00Z"},"updated_at":"2026-11-30T00:00:00Z","role_id":"AROAEXAMPLE","denied_before":"2026-11-02T00:00:00Z","lease":{"holder":"01890a5d-ac96-774b-bcce-b302099a8057","until":"2026-11-30T00:01:00Z"},"alarm":{"id":"01890a5d-ac96-774b-bcce-b302099a8057","found":["role-trust"]}}"#;
        let record = Record::decode(golden.as_bytes()).unwrap();
        let State::Ready { rotation: Some(Rotation::Proving { new, .. }), .. } = &record.state else {
            panic!("{:?}", record.state)
        };
        assert_eq!(*new, wrapped("new").unwrap());
        assert_eq!(String::from_utf8(record.encode().unwrap()).unwrap(), golden);
        let old: Old = serde_json::from_str(golden).unwrap();
        assert_eq!((old.state.as_str(), old.key), ("ready", wrapped("in use").unwrap()));
    }
}
