//! The managed policy that bounds principals: one of the same name in each account.

use std::{fmt, str::FromStr};

use contracts::AccountId;

/// ARN of a managed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    before: String,
    /// `aws` for AWS's own policies, which are the same in every account.
    account: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the ARN of a managed policy (arn:aws:iam::ACCOUNT:policy/NAME)")]
pub struct NotAPolicy {
    text: String,
}

impl FromStr for Boundary {
    type Err = NotAPolicy;

    fn from_str(text: &str) -> Result<Self, NotAPolicy> {
        let parsed = || {
            let (before, rest) = text.strip_prefix("arn:")?.split_once(":iam::")?;
            let (account, name) = rest.split_once(':')?;
            let is_policy = name.strip_prefix("policy/").is_some_and(|name| !name.is_empty());
            let is_account = account == "aws" || AccountId::parse(account).is_ok();
            (is_policy && is_account && !before.contains(':')).then(|| Self {
                before: format!("arn:{before}:iam::"),
                account: account.to_owned(),
                name: name.to_owned(),
            })
        };
        parsed().ok_or_else(|| NotAPolicy { text: text.to_owned() })
    }
}

impl Boundary {
    /// The ARN of the policy of this name in that account.
    #[must_use]
    pub fn in_account(&self, account: &AccountId) -> String {
        let account = if self.account == "aws" { "aws" } else { account.as_str() };
        format!("{}{account}:{}", self.before, self.name)
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:{}", self.before, self.account, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_same_name_in_each_account() {
        let other = AccountId::parse("333333333333").unwrap();
        let of = |text: &str| text.parse::<Boundary>().map(|boundary| boundary.in_account(&other));
        let own = "arn:aws-us-gov:iam::111111111111:policy/rolebridge-principal-boundary";
        assert_eq!(own.parse::<Boundary>().unwrap().to_string(), own);
        assert_eq!(of(own).unwrap(), "arn:aws-us-gov:iam::333333333333:policy/rolebridge-principal-boundary");
        let managed = "arn:aws:iam::aws:policy/SecurityAudit";
        assert_eq!(of(managed).unwrap(), managed);
        for text in
            ["", "policy", "arn:aws:iam::111111111111:role/r", "arn:aws:iam::1:policy/p", "arn:aws:iam::aws:policy/"]
        {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
