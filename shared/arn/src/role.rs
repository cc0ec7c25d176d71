//! IAM role and user ARNs.

use crate::{AccountId, ParseIdentityError, Partition, split_arn, text::text_identity};

/// Longest path and longest name of a role, in characters (IAM quotas).
const LONGEST_PATH: usize = 512;
const LONGEST_NAME: usize = 64;

/// An IAM path: `/`, or `/word/.../`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IamPath(String);

impl IamPath {
    /// # Errors
    /// When the text does not begin and end with `/`, is longer than 512 characters, or holds anything but printable ASCII.
    pub fn parse(text: &str) -> Result<Self, ParseIdentityError> {
        let fine = text.starts_with('/')
            && text.ends_with('/')
            && text.len() <= LONGEST_PATH
            && !text.contains("//")
            && text.bytes().all(|b| b.is_ascii_graphic());
        if fine {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdentityError::new("an IAM path", "but the text does not begin and end with a slash"))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text_identity!(IamPath, pattern: "^/([!-~]+/)?$", example: "/rolebridge/");

macro_rules! iam_arn {
    ($(#[$doc:meta])* $name:ident, kind: $kind:literal, what: $what:literal, pattern: $pattern:literal, example: $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            text: String,
            partition: Partition,
            account: AccountId,
        }

        impl $name {
            /// # Errors
            /// When the partition, the account, the path or the name is not well-formed, or the ARN is of another kind.
            pub fn parse(text: &str) -> Result<Self, ParseIdentityError> {
                let wrong = |problem| ParseIdentityError::new($what, problem);
                let (partition, service, region, account, resource) =
                    split_arn(text).ok_or(wrong("but the text is no ARN"))?;
                if service != "iam" || !region.is_empty() {
                    return Err(wrong("but the ARN is not IAM's"));
                }
                let rest = resource.strip_prefix($kind).ok_or(wrong("but the ARN is of another kind"))?;
                let (path, name) = rest.rsplit_once('/').ok_or(wrong("but the ARN has no name"))?;
                let name_is_fine = !name.is_empty()
                    && name.len() <= LONGEST_NAME
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b));
                if !name_is_fine {
                    return Err(wrong("but its name is empty, too long or has letters that IAM does not allow"));
                }
                IamPath::parse(&format!("{path}/")).map_err(|_| wrong("but its path is malformed"))?;
                Ok(Self {
                    partition: Partition::parse(partition).map_err(|_| wrong("but its partition is unknown"))?,
                    account: AccountId::parse(account).map_err(|_| wrong("but its account ID is not twelve digits"))?,
                    text: text.to_owned(),
                })
            }

            /// The ARN of `name` under `path` in `account`.
            ///
            /// # Errors
            /// When the name is not one that IAM allows.
            pub fn new(partition: &Partition, account: &AccountId, path: &IamPath, name: &str) -> Result<Self, ParseIdentityError> {
                Self::parse(&format!("arn:{partition}:iam::{account}:{}{path}{name}", $kind))
            }

            /// The same path and name in another account.
            #[must_use]
            pub fn in_account(&self, account: &AccountId) -> Self {
                let text = self.text.replacen(self.account.as_str(), account.as_str(), 1);
                Self { text, partition: self.partition.clone(), account: account.clone() }
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.text
            }

            #[must_use]
            pub fn partition(&self) -> &Partition {
                &self.partition
            }

            #[must_use]
            pub fn account(&self) -> &AccountId {
                &self.account
            }

            /// The name without its path.
            #[must_use]
            pub fn name(&self) -> &str {
                self.text.rsplit_once('/').map_or("", |(_, name)| name)
            }
        }

        text_identity!($name, pattern: $pattern, example: $example);
    };
}

iam_arn!(
    /// The ARN of an IAM role: `arn:<partition>:iam::<account>:role/<path><name>`.
    RoleArn, kind: "role", what: "an IAM role ARN",
    pattern: "^arn:aws(-[a-z-]+)?:iam::[0-9]{12}:role/([!-~]+/)?[A-Za-z0-9+=,.@_-]{1,64}$",
    example: "arn:aws:iam::222222222222:role/rolebridge/rolebridge-7f3a"
);

iam_arn!(
    /// The ARN of an IAM user: `arn:<partition>:iam::<account>:user/<path><name>`.
    UserArn, kind: "user", what: "an IAM user ARN",
    pattern: "^arn:aws(-[a-z-]+)?:iam::[0-9]{12}:user/([!-~]+/)?[A-Za-z0-9+=,.@_-]{1,64}$",
    example: "arn:aws:iam::111111111111:user/rolebridge/tenant-7f3a"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_role_in_each_partition() {
        for partition in ["aws", "aws-cn", "aws-us-gov", "aws-iso-b"] {
            let arn = RoleArn::parse(&format!("arn:{partition}:iam::222222222222:role/a/b/name")).unwrap();
            assert_eq!(
                (arn.partition().as_str(), arn.account().as_str(), arn.name()),
                (partition, "222222222222", "name")
            );
        }
    }

    #[test]
    fn what_is_no_role() {
        for text in [
            "",
            "arn:aws:iam::222222222222:user/name",
            "arn:aws:iam::222222222222:role/",
            "arn:aws:iam::22222222222:role/name",
            "arn:aws:iam:eu-west-1:222222222222:role/name",
            "arn:aws:sts::222222222222:assumed-role/name/session",
            "arn:evil:iam::222222222222:role/name",
            "arn:aws:iam::222222222222:role//name",
            "arn:aws:iam::222222222222:role/na me",
            "arn:aws:iam::222222222222:role/name\n",
            "arn:aws:iam::222222222222:role/*/na*me",
            "arn:aws:iam::222222222222:roleish/name",
        ] {
            assert!(RoleArn::parse(text).is_err(), "{text:?} was taken for a role");
        }
        let long = format!("arn:aws:iam::222222222222:role/{}", "n".repeat(65));
        assert!(RoleArn::parse(&long).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,200}") {
            if let Ok(arn) = RoleArn::parse(&text) {
                prop_assert_eq!(arn.as_str(), text);
            }
        }

        #[test]
        fn made_from_parts_it_parses_back(name in "[A-Za-z0-9+=,.@_-]{1,64}", path in "/([a-z]{1,8}/){0,3}", account in "[0-9]{12}") {
            let arn = RoleArn::new(&Partition::parse("aws").unwrap(), &AccountId::parse(&account).unwrap(), &IamPath::parse(&path).unwrap(), &name).unwrap();
            prop_assert_eq!(arn.name(), &name);
            prop_assert_eq!(arn.account().as_str(), &account);
            prop_assert_eq!(serde_json::from_str::<RoleArn>(&serde_json::to_string(&arn).unwrap()).unwrap(), arn);
        }
    }
}
