//! Session tags: what a customer reads in CloudTrail beside a session's name, and may ask for in a policy (`aws:PrincipalTag/rolebridge:purpose`).
//!
//! They are made of the connection and of what the session is for. Who asked cannot get in here: a session is shared by all who ask for the same,
//! and a requester is nobody's business but the provider's. The keys bear our own prefix, and the trust policy of the customer's role, our
//! principals' policies and their boundary allow these keys and no others, none of them transitive: no tag of ours can be taken for
//! one that a policy of the customer's goes by.

use contracts::{ConnectionId, credentials::Purpose};

/// The ID that stands in the stack's output `ConnectionId`.
const CONNECTION: &str = "rolebridge:connection";
/// `cost-read`, ..., or `probe`.
const PURPOSE: &str = "rolebridge:purpose";
/// All that there are; they stand in `deploy/aws`, too.
pub const KEYS: [&str; 2] = [CONNECTION, PURPOSE];

/// What a probe is for. No purpose is called so.
const PROBE: &str = "probe";

/// The tags of one session. Nothing in them is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTags {
    connection: ConnectionId,
    purpose: &'static str,
}

impl SessionTags {
    /// Of a session that is issued.
    #[must_use]
    pub const fn of(connection: ConnectionId, purpose: Purpose) -> Self {
        Self { connection, purpose: purpose.as_str() }
    }

    /// Of a session that only shows whether tags are admitted.
    #[must_use]
    pub const fn of_probe(connection: ConnectionId) -> Self {
        Self { connection, purpose: PROBE }
    }

    /// Keys of at most 128 characters with values of at most 256, all of `[\p{L}\p{Z}\p{N}_.:/=+\-@]`
    /// ([Tag](https://docs.aws.amazon.com/STS/latest/APIReference/API_Tag.html)).
    #[must_use]
    pub fn pairs(&self) -> [(&'static str, String); 2] {
        [(CONNECTION, self.connection.to_string()), (PURPOSE, self.purpose.to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use contracts::{Partition, Region};

    use super::*;
    use crate::purpose::{LONGEST_POLICY, session_policy};

    fn is_allowed(text: &str) -> bool {
        text.chars().all(|char| char.is_ascii_alphanumeric() || "_.:/=+-@".contains(char))
    }

    #[test]
    fn tags_are_as_aws_takes_them() {
        let connection = ConnectionId::new();
        let all = Purpose::ALL.map(|purpose| SessionTags::of(connection, purpose));
        for tags in all.into_iter().chain([SessionTags::of_probe(connection)]) {
            let pairs = tags.pairs();
            assert_eq!(pairs.clone().map(|(key, _)| key), KEYS);
            for (key, value) in pairs {
                assert!(key.len() <= 128 && (1..=256).contains(&value.len()));
                assert!(is_allowed(key) && is_allowed(&value), "{key}={value}");
                // `aws:` is AWS's own, and without a prefix a key may be the customer's.
                assert!(key.starts_with("rolebridge:"));
            }
        }
        assert!(Purpose::ALL.iter().all(|purpose| purpose.as_str() != PROBE));
    }

    /// AWS packs session policy and tags into one room, of a size that it does not tell (only the share that is taken, in its answers). With as much to spare as there
    /// is used, the packed form fits even where packing gained nothing.
    #[test]
    fn tags_fit_beside_the_policy_of_every_purpose() {
        for purpose in Purpose::ALL {
            let tags = SessionTags::of(ConnectionId::new(), purpose).pairs();
            let of_tags: usize = tags.iter().map(|(key, value)| key.len() + value.len()).sum();
            for region in ["eu-central-1", "us-gov-west-1", "cn-northwest-1"] {
                let policy = session_policy(purpose, &Region::parse(region).unwrap());
                let sum = policy.len() + of_tags;
                assert!(sum <= LONGEST_POLICY / 2, "{purpose} in {region}: {sum} characters");
            }
        }
    }

    /// Each text of AWS's that says which tags there may be names these keys, and no other.
    #[test]
    fn attack_36_no_policy_lets_another_tag_through() {
        let templates = [
            ("customer.yaml", include_str!("../../../deploy/aws/customer.yaml")),
            ("provider.yaml", include_str!("../../../deploy/aws/provider.yaml")),
            ("provider-account.yaml", include_str!("../../../deploy/aws/provider-account.yaml")),
        ];
        for (name, text) in templates {
            let statements: Vec<&str> = text.split("- Sid: ").filter(|part| part.contains("sts:TagSession")).collect();
            assert_eq!(statements.len(), 1, "{name}");
            let (_, keys) = statements[0].split_once("aws:TagKeys:").expect(name);
            let keys: Vec<&str> =
                keys.lines().skip(1).map_while(|line| line.trim().strip_prefix("- ")).map(str::trim).collect();
            assert_eq!(keys, KEYS, "{name}");
            assert!(statements[0].contains("ForAllValues:StringEquals:"), "{name}");
            assert!(statements[0].contains("sts:TransitiveTagKeys: \"true\""), "{name}");
        }
        let policy = crate::purpose::tag_customer_roles(&Partition::parse("aws").unwrap());
        assert_eq!(policy["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"], serde_json::json!(KEYS));
    }
}
