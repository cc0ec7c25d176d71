//! `cost-read`: read the cost export that the customer named, and what finds it.
//!
//! Which bucket is the customer's word, in the role's own policy; this one only takes away what is no reading of costs.

use contracts::Partition;
use serde_json::json;

use super::{Declared, Durations, Need, Read, Scope};
use crate::sts::SessionDuration;

pub(super) const COST_READ: Declared = Declared {
    // A month's export may take longer to read than any shorter session lasts.
    durations: Durations { usual: SessionDuration::LONGEST, longest: SessionDuration::LONGEST },
    session_policy,
    needs,
    read,
};

const FIND_AND_QUERY: [&str; 6] = [
    "bcm-data-exports:GetExecution",
    "bcm-data-exports:GetExport",
    "bcm-data-exports:ListExecutions",
    "bcm-data-exports:ListExports",
    "ce:GetCostAndUsage",
    "cur:DescribeReportDefinitions",
];
const OF_BUCKET: [&str; 2] = ["s3:GetBucketLocation", "s3:ListBucket"];
const OF_OBJECTS: [&str; 1] = ["s3:GetObject"];

fn session_policy(partition: &Partition) -> String {
    let of_exports = [&OF_BUCKET[..], &OF_OBJECTS[..]].concat();
    json!({ "Version": "2012-10-17", "Statement": [
        {
            "Sid": "FindAndQueryCosts",
            "Effect": "Allow",
            "Action": FIND_AND_QUERY,
            "Resource": "*",
        },
        {
            "Sid": "ReadExports",
            "Effect": "Allow",
            "Action": of_exports,
            "Resource": format!("arn:{partition}:s3:::*"),
        },
    ]})
    .to_string()
}

/// Those of S3 only where there is an export to read: a connection without one needs none.
fn needs(scope: &Scope<'_>) -> Vec<Need> {
    let mut needs = vec![Need { actions: &FIND_AND_QUERY, resource: "*".to_owned(), context: Vec::new() }];
    let Some(export) = scope.export else { return needs };
    let bucket = format!("arn:{}:s3:::{}", scope.partition, export.bucket);
    let folder = if export.prefix.is_empty() { String::new() } else { format!("{}/", export.prefix) };
    needs.push(Need {
        actions: &OF_BUCKET,
        resource: bucket.clone(),
        // The template allows listings of this folder alone. Without a prefix it sets no condition, and a listing names none.
        context: if folder.is_empty() { Vec::new() } else { vec![("s3:prefix", folder.clone())] },
    });
    needs.push(Need {
        actions: &OF_OBJECTS,
        // Any object of the export: it need not be there.
        resource: format!("{bucket}/{folder}rolebridge-permission-check"),
        context: Vec::new(),
    });
    needs
}

/// `ce:GetCostAndUsage` is left alone: each call of it costs the customer 0.01 USD.
fn read(scope: &Scope<'_>) -> Read {
    match scope.export {
        Some(export) => Read::ListObjects { bucket: export.bucket.clone(), prefix: export.prefix.clone() },
        None => Read::ReportDefinitions,
    }
}

#[cfg(test)]
mod tests {
    use contracts::costs::ExportLocation;

    use super::*;

    fn scope<'a>(partition: &'a Partition, export: Option<&'a ExportLocation>) -> Scope<'a> {
        Scope { partition, export }
    }

    #[test]
    fn s3_is_needed_only_for_an_export_and_only_there() {
        let partition = Partition::parse("aws-cn").unwrap();
        assert!(needs(&scope(&partition, None)).iter().all(|need| need.resource == "*"));
        let export = ExportLocation { bucket: "acme-costs".to_owned(), prefix: "exports/cur".to_owned() };
        let resources: Vec<_> =
            needs(&scope(&partition, Some(&export))).into_iter().map(|need| need.resource).collect();
        assert_eq!(resources[1], "arn:aws-cn:s3:::acme-costs");
        assert!(resources[2].starts_with("arn:aws-cn:s3:::acme-costs/exports/cur/"));
        let whole = ExportLocation { prefix: String::new(), ..export };
        let needs = needs(&scope(&partition, Some(&whole)));
        assert!(needs[1].context.is_empty() && !needs[2].resource.contains("//"));
    }
}
