//! External IDs, callback tokens and sealed boxes: what must not be printed, and what stands in for it on the wire.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// The text is not of the form that we make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} expected, but the text has not its form")]
pub struct ParseSecretError {
    what: &'static str,
}

/// The value of `sts:ExternalId` that a customer's role demands: made by the registry alone, unique per enrollment.
///
/// Not a secret (AWS says so), but never printed beside a role ARN: `Debug` shows nothing of it. Form: 2 to 1,224 characters of
/// `[\w+=,.@:\/-]` ([AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)); ours are UUIDs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ExternalId(String);

impl ExternalId {
    /// A new one: 122 random bits.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    /// # Errors
    /// When the text is shorter than 2 or longer than 1,224 characters, or has one that STS does not allow.
    pub fn parse(text: &str) -> Result<Self, ParseSecretError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b);
        if (2..=1224).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseSecretError { what: "an external ID" })
        }
    }

    /// The text itself, for STS, the template's parameter and the store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExternalId(..)")
    }
}

impl Serialize for ExternalId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ExternalId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for ExternalId {
    fn schema_name() -> Cow<'static, str> {
        "ExternalId".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 2, "maxLength": 1224, "pattern": r"^[\w+=,.@:/-]*$" })
    }
}

/// The single-use secret of an enrollment: `rbt_` and 256 random bits. On the wire only in the reply that makes the offer.
#[derive(Clone)]
pub struct CallbackToken(SecretString);

impl CallbackToken {
    const PREFIX: &'static str = "rbt_";

    /// A new one, from two random UUIDs hashed together with the operating system's randomness behind both (244 random bits).
    #[must_use]
    pub fn generate() -> Self {
        let mut hash = Sha256::new();
        for _ in 0..3 {
            hash.update(Uuid::new_v4().as_bytes());
        }
        Self(format!("{}{}", Self::PREFIX, URL_SAFE_NO_PAD.encode(hash.finalize())).into())
    }

    /// # Errors
    /// When the text has not the form of a token that we make.
    pub fn parse(text: &str) -> Result<Self, ParseSecretError> {
        let wrong = ParseSecretError { what: "a callback token" };
        let body = text.strip_prefix(Self::PREFIX).ok_or(wrong.clone())?;
        match URL_SAFE_NO_PAD.decode(body) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self(text.to_owned().into())),
            _ => Err(wrong),
        }
    }

    /// What is stored and sent in its place.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(format!("{:x}", Sha256::digest(self.0.expose_secret())))
    }

    /// The token itself: for the customer's eyes, in the offer.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for CallbackToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackToken(..)")
    }
}

impl Serialize for CallbackToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for CallbackToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for CallbackToken {
    fn schema_name() -> Cow<'static, str> {
        "CallbackToken".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^rbt_[A-Za-z0-9_-]{43}$", "writeOnly": true })
    }
}

/// SHA-256 of a callback token, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TokenHash(#[schemars(regex(pattern = "^[0-9a-f]{64}$"))] String);

impl TokenHash {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As read back from a store of ours.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// Compares without telling by its time how much was alike.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

/// A public X25519 key in the nkeys form (`X...`), for sealing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct SealingKey(#[schemars(regex(pattern = "^X[A-Z2-7]{55}$"))] String);

impl SealingKey {
    /// # Errors
    /// When the text is not `X` and 55 letters of base 32. (Its checksum is checked where it is used.)
    pub fn parse(text: &str) -> Result<Self, ParseSecretError> {
        let fine = text.len() == 56
            && text.starts_with('X')
            && text.bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b));
        if fine { Ok(Self(text.to_owned())) } else { Err(ParseSecretError { what: "a public X25519 key (X...)" }) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SealingKey {
    type Err = ParseSecretError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SealingKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Bytes sealed with `nkeys` xkey (`xkv1`, Curve25519 box), as URL-safe base64 without padding.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SealedBox(String);

impl SealedBox {
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The sealed bytes; `None` when the text is not base64.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(&self.0).ok()
    }

    /// For stores that hold text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SealedBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedBox({} characters)", self.0.len())
    }
}
