//! `ResourceProperties` as the customer's template writes them. CloudFormation makes strings of all values.

use contracts::{
    AccountId, CallbackToken, ExternalId, Partition, Region, RoleArn, StackId, callback::Claims, costs::ExportLocation,
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Malformed, bounded};

const LONGEST_VERSION: usize = 32;

/// Takes the claims out of the request. The token is hashed and wiped.
pub(super) fn take(fields: &mut Map<String, Value>, stack: &StackId) -> Result<Claims, Malformed> {
    let Some(Value::Object(properties)) = fields.get_mut("ResourceProperties") else {
        return Err(Malformed("ResourceProperties", "are missing or no object"));
    };
    let token = match properties.remove("CallbackToken") {
        Some(Value::String(token)) => Zeroizing::new(token),
        _ => return Err(Malformed("CallbackToken", "is missing or no string")),
    };
    let token_hash =
        CallbackToken::parse(&token).map_err(|_| Malformed("CallbackToken", "is not one that was offered"))?.hash();
    let partition =
        Partition::parse(required(properties, "Partition")?).map_err(|_| Malformed("Partition", "is malformed"))?;
    if partition != *stack.partition() {
        return Err(Malformed("Partition", "is not the stack's"));
    }
    let template_version = bounded(required(properties, "TemplateVersion")?, LONGEST_VERSION)
        .ok_or(Malformed("TemplateVersion", "is malformed"))?;
    Ok(Claims {
        external_id: ExternalId::parse(required(properties, "ExternalId")?)
            .map_err(|_| Malformed("ExternalId", "is malformed"))?,
        previous_external_id: previous(properties)?,
        token_hash,
        role_arn: RoleArn::parse(required(properties, "RoleArn")?)
            .map_err(|_| Malformed("RoleArn", "is no IAM role's ARN"))?,
        account: AccountId::parse(required(properties, "AccountId")?)
            .map_err(|_| Malformed("AccountId", "is no account ID"))?,
        region: Region::parse(required(properties, "Region")?).map_err(|_| Malformed("Region", "is no region"))?,
        cost_export: export(properties)?,
        // A changed template may call itself what it likes: that is no version of ours, and no harm.
        template_version: template_version.parse().ok(),
    })
}

fn required<'a>(properties: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, Malformed> {
    properties.get(name).and_then(Value::as_str).ok_or(Malformed(name, "is missing or no string"))
}

/// An empty or absent value means that there is none.
fn optional<'a>(properties: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, Malformed> {
    match properties.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Malformed(name, "is no string")),
    }
}

/// Templates of version 1 have none.
fn previous(properties: &Map<String, Value>) -> Result<Option<ExternalId>, Malformed> {
    match optional(properties, "PreviousExternalId")? {
        "" => Ok(None),
        text => ExternalId::parse(text).map(Some).map_err(|_| Malformed("PreviousExternalId", "is malformed")),
    }
}

fn export(properties: &Map<String, Value>) -> Result<Option<ExportLocation>, Malformed> {
    let (bucket, prefix) = (optional(properties, "CostBucket")?, optional(properties, "CostPrefix")?);
    if bucket.is_empty() {
        return if prefix.is_empty() {
            Ok(None)
        } else {
            Err(Malformed("CostPrefix", "is given without a CostBucket"))
        };
    }
    let export = ExportLocation { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
    if export.is_well_formed() { Ok(Some(export)) } else { Err(Malformed("CostBucket or CostPrefix", "is malformed")) }
}
