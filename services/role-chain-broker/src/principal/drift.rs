//! What a principal is compared with what it must be. Pure, but for the reading.
//!
//! Policies as an earlier version of this program wrote them are no drift, or every upgrade would be an alarm for every tenant: they are renewed.
//!
//! Looked at: user, role and its unique ID, trust, permissions boundaries, inline and attached policies, access keys. Not looked at: groups and
//! console passwords of the user, tags, descriptions; a permissions boundary bounds what those could add.

use aws::Failure;
use contracts::tenant::Drift;
use secrecy::SecretString;
use serde_json::Value;

use super::{
    iam::{FoundKey, FoundRole, FoundUser, Half, Iam},
    policy::Plan,
    record::{Record, Rotation, State},
};

/// Policies of a user or role as IAM has them.
#[derive(Debug, Default)]
pub(super) struct FoundPolicies {
    /// By name; `None` when IAM's text is no JSON.
    inline: Vec<(String, Option<Value>)>,
    attached: Vec<String>,
}

/// A principal as IAM has it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub user: Option<FoundUser>,
    pub role: Option<FoundRole>,
    user_policies: FoundPolicies,
    role_policies: FoundPolicies,
    keys: Vec<FoundKey>,
}

/// Reads everything. Some ten calls; none changes anything.
///
/// Of what is not there nothing more is asked: IAM knows no path of it, and refuses what is allowed under the path alone.
///
/// # Errors
/// When IAM does not answer: then nothing is known, and nothing is called a drift.
pub(super) async fn read(iam: &dyn Iam, plan: &Plan) -> Result<Found, Failure> {
    let name = plan.name.as_str();
    let mut found = Found { user: iam.user(name).await?, role: iam.role(name).await?, ..Found::default() };
    // One of the same name at another path is not ours to read.
    if found.user.as_ref().is_some_and(|user| user.arn == plan.user_arn) {
        found.user_policies = policies(iam, Half::User, name).await?;
        found.keys = iam.access_keys(name).await?;
    }
    if found.role.as_ref().is_some_and(|role| role.arn == plan.role_arn) {
        found.role_policies = policies(iam, Half::Role, name).await?;
    }
    Ok(found)
}

async fn policies(iam: &dyn Iam, half: Half, name: &str) -> Result<FoundPolicies, Failure> {
    let mut inline = Vec::new();
    for policy in iam.policies(half, name).await? {
        let document = iam.policy(half, name, &policy).await?;
        inline.push((policy, document));
    }
    Ok(FoundPolicies { inline, attached: iam.attached(half, name).await? })
}

/// Every difference, in a fixed order. `known` are the IDs of the recorded keys, the one in use first.
pub(super) fn compare(plan: &Plan, record: &Record, known: &[SecretString], found: &Found) -> Vec<Drift> {
    let mut drifts = Vec::new();
    // One of the same name at another path is not ours.
    let user = found.user.as_ref().filter(|user| user.arn == plan.user_arn);
    let role = found.role.as_ref().filter(|role| role.arn == plan.role_arn);
    match user {
        None => drifts.push(Drift::UserMissing),
        Some(_) if !are_ours(plan, Half::User, record, &found.user_policies) => drifts.push(Drift::UserPolicy),
        Some(_) => {}
    }
    match role {
        None => drifts.push(Drift::RoleMissing),
        Some(role) => {
            if record.role_id.as_ref().is_some_and(|id| *id != role.id) {
                drifts.push(Drift::RoleReplaced);
            }
            if role.trust.as_ref() != Some(&plan.trust()) {
                drifts.push(Drift::RoleTrust);
            }
            if !are_ours(plan, Half::Role, record, &found.role_policies) {
                drifts.push(Drift::RolePolicy);
            }
        }
    }
    let boundaries = [user.map(|user| &user.boundary), role.map(|role| &role.boundary)];
    if plan.boundary.is_some() && boundaries.into_iter().flatten().any(|boundary| *boundary != plan.boundary) {
        drifts.push(Drift::Boundary);
    }
    if user.is_some() {
        keys(record, known, &found.keys, &mut drifts);
    }
    drifts
}

/// Whether its policies are those of an earlier version of this program: nobody has changed them, and they must be renewed.
pub(super) fn is_of_an_earlier_version(plan: &Plan, record: &Record, found: &Found) -> bool {
    of_an_earlier_version(plan, Half::User, record, &found.user_policies)
        || of_an_earlier_version(plan, Half::Role, record, &found.role_policies)
}

fn of_an_earlier_version(plan: &Plan, half: Half, record: &Record, found: &FoundPolicies) -> bool {
    plan.earlier_policies(half, record.denied_before).iter().any(|earlier| found.are(earlier))
}

fn are_ours(plan: &Plan, half: Half, record: &Record, found: &FoundPolicies) -> bool {
    found.are(&plan.policies(half, record.denied_before)) || of_an_earlier_version(plan, half, record, found)
}

impl FoundPolicies {
    /// Exactly these, and no managed ones.
    fn are(&self, wanted: &[(&'static str, Value)]) -> bool {
        let is_there = |(name, document): &(&str, Value)| {
            self.inline.iter().any(|(found, text)| found == name && text.as_ref() == Some(document))
        };
        self.attached.is_empty() && self.inline.len() == wanted.len() && wanted.iter().all(is_there)
    }
}

fn keys(record: &Record, known: &[SecretString], found: &[FoundKey], drifts: &mut Vec<Drift>) {
    let State::Ready { rotation, .. } = &record.state else { return };
    if let Some(in_use) = known.first()
        && !found.iter().any(|key| key.active && key.is(in_use))
    {
        drifts.push(Drift::AccessKeyMissing);
    }
    // A key that is being made is not recorded yet; left behind by a crash, it is deleted by the next rotation.
    let making = matches!(rotation, Some(Rotation::Making { .. }));
    if !making && found.iter().any(|key| !known.iter().any(|id| key.is(id))) {
        drifts.push(Drift::AccessKeyForeign);
    }
}

/// What an operator must do that no program can: AWS puts the role's unique ID in place of its ARN when a trust policy is saved, so customers'
/// roles go on trusting the role that is gone
/// ([IAM identifiers](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids)).
const ROLE_IS_ANOTHER: &str = "customers' roles trust the old role by its unique ID and refuse the new one: each customer must save the trust policy again, most simply by updating its stack";

/// Whether it can be as it was.
pub(super) fn can_be_mended(found: &[Drift]) -> bool {
    !found.iter().any(|drift| matches!(drift, Drift::RoleMissing | Drift::RoleReplaced))
}

/// The sentence for a person.
pub(super) fn reason(found: &[Drift], trouble: Option<&str>) -> String {
    let what = found.iter().map(|drift| match drift {
        Drift::UserMissing => "the IAM user was gone",
        Drift::UserPolicy => "the user's policies were changed",
        Drift::RoleMissing => "the IAM role was gone",
        Drift::RoleReplaced => "the IAM role is another one than the one that was made",
        Drift::RoleTrust => "the role's trust policy was changed",
        Drift::RolePolicy => "the role's policies were changed",
        Drift::Boundary => "the permissions boundary was not the one that is configured",
        Drift::AccessKeyMissing => "the access key in use was gone or disabled",
        Drift::AccessKeyForeign => "there was an access key that this system has not made; it is deleted",
    });
    let mut text = format!("{}.", what.collect::<Vec<_>>().join("; "));
    match trouble {
        Some(trouble) => {
            text.push_str(&format!(" It could not be set right: {trouble}; it is tried again at the next look."));
        }
        None if can_be_mended(found) => text.push_str(" All is set again."),
        None => text.push_str(&format!(" What could be set again was, but {ROLE_IS_ANOTHER}.")),
    }
    text.push_str(" Find out in CloudTrail who changed it.");
    text
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
