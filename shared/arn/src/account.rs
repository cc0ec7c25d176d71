//! Account, partition and region.

use crate::{ParseIdentityError, text::text_identity};

/// A 12-digit AWS account ID.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(String);

impl AccountId {
    /// # Errors
    /// When the text is not exactly twelve ASCII digits.
    pub fn parse(text: &str) -> Result<Self, ParseIdentityError> {
        if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdentityError::new("an AWS account ID", "but the text is not twelve digits"))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text_identity!(AccountId, pattern: "^[0-9]{12}$", example: "222222222222");

/// An AWS partition: regions that share an IAM. Roles of one partition cannot assume roles of another.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(String);

impl Partition {
    /// # Errors
    /// When the text is not `aws` or `aws-` followed by lower-case letters and dashes.
    pub fn parse(text: &str) -> Result<Self, ParseIdentityError> {
        let rest_is_fine = |rest: &str| {
            rest.is_empty()
                || rest.strip_prefix('-').is_some_and(|name| {
                    !name.is_empty() && name.len() <= 16 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
                })
        };
        if text.strip_prefix("aws").is_some_and(rest_is_fine) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdentityError::new("an AWS partition", "but the text is none (aws, aws-cn, aws-us-gov, ...)"))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text_identity!(Partition, pattern: "^aws(-[a-z-]{1,16})?$", example: "aws");

/// An AWS region, such as `eu-central-1` or `us-gov-west-1`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(String);

impl Region {
    /// # Errors
    /// When the text has not the form of a region: lower-case words joined by dashes, then a number.
    pub fn parse(text: &str) -> Result<Self, ParseIdentityError> {
        let error = ParseIdentityError::new("an AWS region", "but the text has not the form of one (eu-central-1)");
        let (words, number) = text.rsplit_once('-').ok_or(error.clone())?;
        let number_is_fine = !number.is_empty() && number.len() <= 2 && number.bytes().all(|b| b.is_ascii_digit());
        let word_is_fine = |word: &str| (2..=16).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase());
        let count = words.split('-').count();
        if number_is_fine && (2..=4).contains(&count) && words.split('-').all(word_is_fine) {
            Ok(Self(text.to_owned()))
        } else {
            Err(error)
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition this region is in, by its prefix (AWS's `partitions.json`).
    #[must_use]
    pub fn partition(&self) -> Partition {
        let name = match &self.0 {
            r if r.starts_with("cn-") => "aws-cn",
            r if r.starts_with("us-gov-") => "aws-us-gov",
            r if r.starts_with("us-iso-") => "aws-iso",
            r if r.starts_with("us-isob-") => "aws-iso-b",
            r if r.starts_with("eu-isoe-") => "aws-iso-e",
            r if r.starts_with("us-isof-") => "aws-iso-f",
            r if r.starts_with("eusc-") => "aws-eusc",
            _ => "aws",
        };
        Partition(name.to_owned())
    }
}

text_identity!(Region, pattern: "^[a-z]{2,16}(-[a-z]{2,16}){1,3}-[0-9]{1,2}$", example: "eu-central-1");
