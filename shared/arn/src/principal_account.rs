//! The provider's accounts that principals live in, as they are configured.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::{AccountId, ParseIdentityError, RoleArn};

/// More roles than this IAM allows no account
/// ([IAM quotas](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html): 1,000, and 5,000 when it is raised).
pub const MOST_PRINCIPALS: u32 = 5_000;

/// One account: `ACCOUNT` or `ROLE_ARN`, and `:CAPACITY` after it where it differs from that of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalAccount {
    pub account: AccountId,
    /// The role in it that keeps principals; absent for the account that one's own credentials are of.
    pub keeper: Option<RoleArn>,
    /// Principals that it takes, 0 to [`MOST_PRINCIPALS`]; with 0 it keeps those that it has and gets no new ones.
    pub capacity: Option<u32>,
}

/// One account or more, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalAccounts(Vec<PrincipalAccount>);

/// Why a text is no list of accounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalAccountsError {
    #[error("`{text}` is neither an account ID of twelve digits nor the ARN of a role")]
    NotAnAccount { text: String },
    #[error(
        "`{text}` has a capacity that is not a number from 0 to {MOST_PRINCIPALS}, which is the most that IAM allows"
    )]
    Capacity { text: String },
    #[error("account {account} is named twice: name it once")]
    Twice { account: AccountId },
    #[error(
        "account {account} is named without a role, and is not the provider's {own}: give the ARN of its keeper role"
    )]
    NoKeeper { account: AccountId, own: AccountId },
}

impl PrincipalAccounts {
    /// The account that one's own credentials are of, alone.
    #[must_use]
    pub fn only(account: AccountId) -> Self {
        Self(vec![PrincipalAccount { account, keeper: None, capacity: None }])
    }

    /// Checks that every account but `own` has a role to keep principals with.
    ///
    /// # Errors
    /// When one has none.
    pub fn reachable_from(self, own: &AccountId) -> Result<Self, PrincipalAccountsError> {
        let no_keeper = self.0.iter().find(|entry| entry.keeper.is_none() && entry.account != *own);
        match no_keeper {
            Some(entry) => Err(PrincipalAccountsError::NoKeeper { account: entry.account.clone(), own: own.clone() }),
            None => Ok(self),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &PrincipalAccount> {
        self.0.iter()
    }

    #[must_use]
    pub fn contains(&self, account: &AccountId) -> bool {
        self.0.iter().any(|entry| entry.account == *account)
    }
}

impl FromStr for PrincipalAccount {
    type Err = PrincipalAccountsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_an_account = |_: ParseIdentityError| PrincipalAccountsError::NotAnAccount { text: text.to_owned() };
        // Neither an account ID nor the name of a role has a colon in it.
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (place, capacity) = match text.rsplit_once(':') {
            Some((place, number)) if is_number(number) => (place, Some(number)),
            _ => (text, None),
        };
        let capacity = capacity.map(|number| match number.parse() {
            Ok(capacity) if capacity <= MOST_PRINCIPALS => Ok(capacity),
            _ => Err(PrincipalAccountsError::Capacity { text: text.to_owned() }),
        });
        let capacity = capacity.transpose()?;
        if place.starts_with("arn:") {
            let keeper = RoleArn::parse(place).map_err(not_an_account)?;
            return Ok(Self { account: keeper.account().clone(), keeper: Some(keeper), capacity });
        }
        Ok(Self { account: AccountId::parse(place).map_err(not_an_account)?, keeper: None, capacity })
    }
}

impl FromStr for PrincipalAccounts {
    type Err = PrincipalAccountsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries =
            text.split(',').map(|entry| entry.trim().parse()).collect::<Result<Vec<PrincipalAccount>, _>>()?;
        let mut seen = BTreeSet::new();
        match entries.iter().find(|entry| !seen.insert(entry.account.as_str())) {
            Some(entry) => Err(PrincipalAccountsError::Twice { account: entry.account.clone() }),
            None => Ok(Self(entries)),
        }
    }
}

impl fmt::Display for PrincipalAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts: Vec<_> = self.0.iter().map(|entry| entry.account.as_str()).collect();
        f.write_str(&accounts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_roles_and_capacities_are_read() {
        let text = "111111111111, arn:aws:iam::333333333333:role/rolebridge-keeper:4500,444444444444:0";
        let accounts: PrincipalAccounts = text.parse().unwrap();
        let read: Vec<_> =
            accounts.iter().map(|entry| (entry.account.as_str(), entry.keeper.is_some(), entry.capacity)).collect();
        assert_eq!(
            read,
            [("111111111111", false, None), ("333333333333", true, Some(4500)), ("444444444444", false, Some(0))]
        );
        assert_eq!(accounts.to_string(), "111111111111, 333333333333, 444444444444");
        assert!(accounts.contains(&AccountId::parse("333333333333").unwrap()));
        let own = AccountId::parse("111111111111").unwrap();
        assert!(accounts.reachable_from(&own).unwrap_err().to_string().contains("444444444444"));
        assert!(PrincipalAccounts::only(own.clone()).reachable_from(&own).is_ok());
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "neither"),
            ("111111111111,", "neither"),
            ("12", "neither"),
            ("arn:aws:iam::333333333333:user/u", "neither"),
            ("111111111111:5001", "from 0 to 5000"),
            ("111111111111:99999999999", "from 0 to 5000"),
            ("111111111111:-1", "neither"),
            ("333333333333,arn:aws:iam::333333333333:role/r", "twice"),
        ] {
            let error = text.parse::<PrincipalAccounts>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
