//! The sentences that people read in the CloudFormation console, in the audit log and in events. Each says what happened and what to do.
//!
//! None names another tenant, and none shows an external ID, a token or a role ARN: the reader knows their own.

use contracts::{
    AccountId, Region,
    verification::{Fault, PurposeEvidence, PurposeOutcome},
};

/// Why a callback is answered FAILED.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One sentence for an unknown external ID and for a wrong token: a stranger learns nothing from the difference.
    #[error(
        "The external ID and callback token belong to no open offer. Launch the stack with the parameters exactly as the provider shows them, or ask the provider for a new offer."
    )]
    NoSuchOffer,
    #[error("This request carries no external ID, token or role. Launch the provider's template unchanged.")]
    Incomplete,
    #[error("The offer was withdrawn by the provider. Ask the provider for a new one.")]
    OfferCancelled,
    #[error("The offer has expired. Ask the provider for a new one and launch the stack again.")]
    OfferExpired,
    #[error(
        "The offer was used by another stack already, and it is good for one account only. Ask the provider for a new offer for this account."
    )]
    OfferUsed,
    #[error("The provider has suspended this customer for now. Contact the provider, then launch the stack again.")]
    TenantSuspended,
    #[error("The provider is not ready for this customer yet. Wait a minute and launch the stack again.")]
    PrincipalMissing,
    #[error(
        "The account {claimed} in the request is not the stack's own account {stack}. Launch the provider's template unchanged."
    )]
    ClaimedAccountDiffers { claimed: AccountId, stack: AccountId },
    #[error(
        "The role belongs to account {role}, not to the stack's own account {stack}. The role must be made by this stack: launch the provider's template unchanged."
    )]
    RoleOfOtherAccount { role: AccountId, stack: AccountId },
    #[error(
        "The role, the stack and the provider are not in the same AWS partition, and roles cannot be assumed across partitions. Ask the provider for an offer for yours."
    )]
    OtherPartition,
    #[error(
        "The region {claimed} in the request is not the stack's own region {stack}. Launch the provider's template unchanged."
    )]
    ClaimedRegionDiffers { claimed: Region, stack: Region },
    #[error("The provider does not take callbacks from region {region}. Launch the stack in one of: {ours}.")]
    RegionNotOurs { region: Region, ours: String },
    #[error(
        "The offer is for account {offered}, and this stack runs in {stack}. Sign in to account {offered} and launch the stack there, or ask the provider for a new offer."
    )]
    OtherAccountThanOffered { offered: AccountId, stack: AccountId },
    #[error("This stack has made a connection already. Delete the stack and launch it again if it is to be made anew.")]
    StackConnected,
    #[error(
        "Another stack of this offer has connected account {account} already. One is enough: delete this stack. If the other one is gone, ask the provider to end its connection."
    )]
    AccountConnected { account: AccountId },
    #[error("Too many attempts were made with this offer. Ask the provider for a new one.")]
    TooManyAttempts,
    #[error(
        "This stack's connection is not known here, or has ended. Delete the stack and launch it from a new offer."
    )]
    NoSuchConnection,
    #[error(
        "This stack's connection is still being verified for the first time. Wait until the stack is complete, then update it again."
    )]
    StillVerifying,
    #[error(
        "A later request of this stack took this one's place. If the stack is not as you want it, update it again."
    )]
    Overtaken,
    #[error(
        "The callback token is not the one that this stack was launched with. Set CallbackToken back to its first value; for a new offer, delete the stack and launch it anew."
    )]
    OtherToken,
    #[error(
        "The external ID of a connection cannot change, but to the one that the provider offers for it. Set ExternalId back to its last value, exactly as it was."
    )]
    ExternalIdChanged,
    #[error(
        "PreviousExternalId is not the external ID that this stack had before. Leave it empty, or set both IDs exactly as the provider shows them for the change."
    )]
    PreviousIdUnknown,
    #[error("The provider no longer serves this customer. Contact the provider, or delete the stack.")]
    TenantGone,
    #[error(
        "The role could not be verified: AWS did not answer clearly in time. Nothing is known to be wrong with the role; launch the stack again."
    )]
    Undecided,
    #[error(
        "This role cannot be connected, because it is in use by another connection. Launch the provider's template unchanged, so that the stack makes a role of its own."
    )]
    RoleTaken,
    #[error("The provider ended this connection before it was verified. Contact the provider.")]
    RevokedMeanwhile,
    #[error("{}", fault_text(*.0))]
    Faulty(Fault),
}

impl Refusal {
    /// The word for the audit log and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NoSuchOffer => "no-such-offer",
            Self::Incomplete => "incomplete",
            Self::OfferCancelled => "offer-cancelled",
            Self::OfferExpired => "offer-expired",
            Self::OfferUsed => "offer-used",
            Self::TenantSuspended => "tenant-suspended",
            Self::PrincipalMissing => "principal-missing",
            Self::ClaimedAccountDiffers { .. } | Self::RoleOfOtherAccount { .. } => "account-mismatch",
            Self::OtherPartition => "partition-mismatch",
            Self::ClaimedRegionDiffers { .. } => "region-mismatch",
            Self::RegionNotOurs { .. } => "region-not-ours",
            Self::OtherAccountThanOffered { .. } => "other-account",
            Self::StackConnected => "stack-connected",
            Self::AccountConnected { .. } => "account-connected",
            Self::TooManyAttempts => "too-many-attempts",
            Self::NoSuchConnection => "no-such-connection",
            Self::StillVerifying => "still-verifying",
            Self::Overtaken => "overtaken",
            Self::OtherToken => "other-token",
            Self::ExternalIdChanged => "external-id-changed",
            Self::PreviousIdUnknown => "previous-id-unknown",
            Self::TenantGone => "tenant-gone",
            Self::Undecided => "undecided",
            Self::RoleTaken => "role-taken",
            Self::RevokedMeanwhile => "revoked-meanwhile",
            Self::Faulty(_) => "faulty-role",
        }
    }
}

/// What is wrong with a role and how it is mended.
#[must_use]
pub const fn fault_text(fault: Fault) -> &'static str {
    match fault {
        Fault::Refused => {
            "The role refuses the provider. Its trust policy must allow sts:AssumeRole to exactly the provider's role for you, with the condition \
             StringEquals sts:ExternalId set to your external ID; launch the provider's template with its parameters unchanged."
        }
        Fault::OpenWithoutId => {
            "The role can be assumed without an external ID. Add the condition StringEquals sts:ExternalId with your external ID to every statement \
             of its trust policy that allows sts:AssumeRole (not StringEqualsIfExists), or launch the provider's template unchanged."
        }
        Fault::OpenWithRandomId => {
            "The role can be assumed with any external ID. The trust policy's condition must be StringEquals sts:ExternalId with exactly your \
             external ID (no StringLike, no wildcard, no second value), as in the provider's template."
        }
        Fault::WrongAccount => {
            "The role's session belongs to another AWS account than the stack. The role must be made by this very stack: launch the provider's \
             template unchanged."
        }
        Fault::OpenWithRetiredId => {
            "The role can still be assumed with the external ID that was replaced. Update the stack once more with PreviousExternalId empty, so that \
             the trust policy names the new external ID alone."
        }
        Fault::OpenToOtherPrincipal => {
            "The role lets in other roles of the provider than the one that was made for you. Its trust policy must name exactly that one role as \
             principal (no account, no wildcard), as in the provider's template; launch the template unchanged."
        }
        Fault::LongSessions => {
            "The role gives sessions of more than an hour, and the provider takes none that does. Set its maximum session duration to one hour, or \
             launch the provider's template unchanged."
        }
        Fault::PermissionsMissing => {
            "The role lacks permissions that the provider's purposes need. Launch the provider's template unchanged, or add what connections show \
             lists as missing."
        }
    }
}

/// Actions that a sentence names; the rest are counted.
const NAMED_ACTIONS: usize = 6;

/// Which permissions a role lacks, and what is to be done.
#[must_use]
pub fn lacking_text(looks: &[PurposeEvidence]) -> String {
    let lacking = |look: &PurposeEvidence| {
        let mut actions = look.missing.iter().take(NAMED_ACTIONS).cloned().collect::<Vec<_>>().join(", ");
        match look.missing.len().saturating_sub(NAMED_ACTIONS) {
            0 if actions.is_empty() => "what it reads".clone_into(&mut actions),
            0 => {}
            more => actions.push_str(&format!(" and {more} more")),
        }
        format!("{} ({actions})", look.purpose)
    };
    let lacking: Vec<_> = looks.iter().filter(|look| look.outcome == PurposeOutcome::Missing).map(lacking).collect();
    format!(
        "The role denies what the provider's purposes need: {}. Nothing is given out for them until it is allowed. Launch the provider's template \
         unchanged, or allow these actions in the role's policy, and see to it that no bucket policy denies them.",
        lacking.join("; ")
    )
}

/// Why a revoked connection ended, when its stack ended it.
pub const STACK_DELETED: &str = "The customer deleted the stack, and its role refuses us.";

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Refusal> {
        let account = |text| AccountId::parse(text).unwrap();
        let region = |text| Region::parse(text).unwrap();
        vec![
            Refusal::NoSuchOffer,
            Refusal::Incomplete,
            Refusal::OfferCancelled,
            Refusal::OfferExpired,
            Refusal::OfferUsed,
            Refusal::TenantSuspended,
            Refusal::PrincipalMissing,
            Refusal::ClaimedAccountDiffers { claimed: account("222222222222"), stack: account("333333333333") },
            Refusal::RoleOfOtherAccount { role: account("222222222222"), stack: account("333333333333") },
            Refusal::OtherPartition,
            Refusal::ClaimedRegionDiffers { claimed: region("eu-west-1"), stack: region("eu-west-2") },
            Refusal::RegionNotOurs { region: region("eu-west-1"), ours: "eu-central-1".to_owned() },
            Refusal::OtherAccountThanOffered { offered: account("222222222222"), stack: account("333333333333") },
            Refusal::StackConnected,
            Refusal::AccountConnected { account: account("222222222222") },
            Refusal::TooManyAttempts,
            Refusal::NoSuchConnection,
            Refusal::StillVerifying,
            Refusal::Overtaken,
            Refusal::OtherToken,
            Refusal::ExternalIdChanged,
            Refusal::PreviousIdUnknown,
            Refusal::TenantGone,
            Refusal::Undecided,
            Refusal::RoleTaken,
            Refusal::RevokedMeanwhile,
            Refusal::Faulty(Fault::Refused),
            Refusal::Faulty(Fault::OpenWithoutId),
            Refusal::Faulty(Fault::OpenWithRandomId),
            Refusal::Faulty(Fault::WrongAccount),
            Refusal::Faulty(Fault::OpenWithRetiredId),
            Refusal::Faulty(Fault::OpenToOtherPrincipal),
            Refusal::Faulty(Fault::LongSessions),
            Refusal::Faulty(Fault::PermissionsMissing),
        ]
    }

    #[test]
    fn each_tells_a_person_what_to_do_in_a_line_that_cloudformation_can_carry() {
        let words = [
            "unchanged",
            "again",
            "Ask",
            "Contact",
            "anew",
            "delete",
            "Sign in",
            "exactly",
            "Launch",
            "Delete",
            "Update",
        ];
        for refusal in all() {
            let text = refusal.to_string();
            assert!(words.iter().any(|word| text.contains(word)), "{text}");
            assert!(text.len() < 400 && !text.contains('\n') && !text.contains("  ") && text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn each_says_something_else() {
        let texts: std::collections::BTreeSet<String> = all().iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), all().len());
    }
}
