//! SNS topic ARNs.

use crate::{AccountId, ParseIdentityError, Partition, Region, split_arn, text::text_identity};

/// The ARN of an SNS topic: `arn:<partition>:sns:<region>:<account>:<name>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicArn {
    text: String,
    region: Region,
}

impl TopicArn {
    /// # Errors
    /// When any part is malformed.
    pub fn parse(text: &str) -> Result<Self, ParseIdentityError> {
        let wrong = |problem| ParseIdentityError::new("an SNS topic ARN", problem);
        let (partition, service, region, account, name) = split_arn(text).ok_or(wrong("but the text is no ARN"))?;
        let name_is_fine = (1..=256).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.');
        if service != "sns" || !name_is_fine {
            return Err(wrong("but the ARN is no topic's"));
        }
        Partition::parse(partition).map_err(|_| wrong("but its partition is unknown"))?;
        AccountId::parse(account).map_err(|_| wrong("but its account ID is not twelve digits"))?;
        let region = Region::parse(region).map_err(|_| wrong("but its region is malformed"))?;
        Ok(Self { text: text.to_owned(), region })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region in which a stack must be launched for this topic to be its `ServiceToken`.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }
}

text_identity!(
    TopicArn,
    pattern: "^arn:aws(-[a-z-]+)?:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9._-]{1,256}$",
    example: "arn:aws:sns:eu-central-1:111111111111:rolebridge-callbacks"
);
