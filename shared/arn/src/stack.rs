//! CloudFormation stack IDs.

use crate::{AccountId, ParseIdentityError, Partition, Region, split_arn, text::text_identity};

/// A CloudFormation stack ID: `arn:<partition>:cloudformation:<region>:<account>:stack/<name>/<uuid>`.
///
/// It names the account and region that the *sender* of a callback claims; nothing more.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId {
    text: String,
    partition: Partition,
    region: Region,
    account: AccountId,
}

impl StackId {
    /// # Errors
    /// When any part is malformed, or region and partition do not belong together.
    pub fn parse(text: &str) -> Result<Self, ParseIdentityError> {
        let wrong = |problem| ParseIdentityError::new("a CloudFormation stack ID", problem);
        let (partition, service, region, account, resource) = split_arn(text).ok_or(wrong("but the text is no ARN"))?;
        let rest = resource.strip_prefix("stack/").filter(|_| service == "cloudformation");
        let (name, id) = rest.and_then(|rest| rest.split_once('/')).ok_or(wrong("but the ARN is no stack's"))?;
        let name_is_fine =
            !name.is_empty() && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let id_is_fine = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if !name_is_fine || !id_is_fine {
            return Err(wrong("but its name or its identifier is malformed"));
        }
        let stack = Self {
            text: text.to_owned(),
            partition: Partition::parse(partition).map_err(|_| wrong("but its partition is unknown"))?,
            region: Region::parse(region).map_err(|_| wrong("but its region is malformed"))?,
            account: AccountId::parse(account).map_err(|_| wrong("but its account ID is not twelve digits"))?,
        };
        if stack.region.partition() == stack.partition {
            Ok(stack)
        } else {
            Err(wrong("but its region is of another partition"))
        }
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
    pub fn region(&self) -> &Region {
        &self.region
    }

    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }
}

text_identity!(
    StackId,
    pattern: "^arn:aws(-[a-z-]+)?:cloudformation:[a-z0-9-]+:[0-9]{12}:stack/[A-Za-z0-9-]{1,128}/[0-9a-fA-F-]{1,64}$",
    example: "arn:aws:cloudformation:eu-central-1:222222222222:stack/rolebridge/0b9f3a10-6f3e-11f0-8c5d-0242ac120002"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_stack_id() {
        let stack = StackId::parse("arn:aws-cn:cloudformation:cn-north-1:222222222222:stack/rolebridge/0b9f").unwrap();
        assert_eq!(
            (stack.region().as_str(), stack.account().as_str(), stack.partition().as_str()),
            ("cn-north-1", "222222222222", "aws-cn")
        );
    }

    #[test]
    fn what_is_no_stack_id() {
        for text in [
            "arn:aws:cloudformation:cn-north-1:222222222222:stack/a/0b",
            "arn:aws:cloudformation:eu-central-1:222222222222:stack/a",
            "arn:aws:cloudformation:eu-central-1:222222222222:changeSet/a/0b",
            "arn:aws:sns:eu-central-1:222222222222:stack/a/0b",
            "arn:aws:cloudformation:eu-central-1.evil.example#:222222222222:stack/a/0b",
            "arn:aws:cloudformation:eu-central-1:222222222222:stack/a/0b/../c",
        ] {
            assert!(StackId::parse(text).is_err(), "{text:?} was taken for a stack");
        }
    }
}
